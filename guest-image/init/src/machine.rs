// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ends the machine, with an exit status.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;

use ersatz_guest_image::ports::EXIT_PORT;
use nix::errno::Errno;
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::sync;

use crate::console;

/// I/O ports as a file: a write at an offset is an `out` to that port.
const PORTS: &str = "/dev/port";

/// Reports an exit status to the host and ends the machine: by the port, or by powering off where nothing listens there.
pub fn end(status: u8) -> ! {
    sync();
    console::drain();
    if let Err(error) = write_port(EXIT_PORT, status) {
        eprintln!("ersatz-init: cannot report exit status {status} by {PORTS}: {error}");
        console::drain();
    }
    let Err(error) = power_off();
    eprintln!("ersatz-init: cannot power off: {error}");
    console::drain();
    // PID 1 must not return: the kernel panics, which the host sees.
    std::process::exit(i32::from(status))
}

/// Writes a byte to an I/O port.
///
/// # Errors
///
/// Fails if the kernel refuses.
pub fn write_port(port: u16, value: u8) -> io::Result<()> {
    OpenOptions::new().write(true).open(PORTS)?.write_all_at(&[value], port.into())
}

fn power_off() -> Result<Infallible, Errno> {
    reboot(RebootMode::RB_POWER_OFF)
}

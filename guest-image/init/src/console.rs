// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The console as a terminal.
//!
//! `/dev/console` can be written, but it cannot be the controlling terminal of a session, so Ctrl-C would do nothing
//! there. The terminal behind it can.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;

use nix::sys::termios::tcdrain;

/// Names the terminals the kernel writes to; the last one is `/dev/console`.
const ACTIVE: &str = "/sys/class/tty/console/active";

/// Opens the terminal behind `/dev/console`.
///
/// # Errors
///
/// Fails if the kernel names none, or it cannot be opened.
pub fn open() -> io::Result<File> {
    let active = std::fs::read_to_string(ACTIVE)?;
    let name = active
        .split_whitespace()
        .next_back()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{ACTIVE} names no terminal")))?;
    let path: PathBuf = ["/dev", name].iter().collect();
    OpenOptions::new().read(true).write(true).open(path)
}

/// Waits until all that was written has left the machine, as far as the terminal can tell.
pub fn drain() {
    if let Ok(console) = open() {
        // A console that cannot drain has nothing buffered that waiting would save.
        let _ = tcdrain(&console);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel's random number generator, and what is drawn from it once: the machine id.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use ersatz_guest_image::mailbox::SEED_SIZE;

/// Where programs look for the machine's id.
const MACHINE_ID: &str = "/etc/machine-id";
/// Gives another random UUID each time it is read.
const UUID: &str = "/proc/sys/kernel/random/uuid";

/// What `RNDADDENTROPY` takes (`include/uapi/linux/random.h`): `struct rand_pool_info` with its bytes.
#[repr(C)]
struct Pool {
    entropy_bits: i32,
    size: i32,
    bytes: [u8; SEED_SIZE],
}

mod ioctl {
    nix::ioctl_write_ptr_bad!(
        /// Adds bytes, and as much entropy as is claimed for them. Its size is that of the head of the structure.
        add_entropy,
        nix::request_code_write!(b'R', 0x03, 8),
        super::Pool
    );
    nix::ioctl_none!(
        /// Makes all generators draw a new key before they give out anything.
        reseed,
        b'R',
        0x07
    );
}

/// Mixes bytes into the generator, and has every number from here on depend on them.
///
/// # Errors
///
/// Fails if the kernel refuses.
pub fn reseed(seed: &[u8; SEED_SIZE]) -> io::Result<()> {
    let device = File::options().write(true).open("/dev/urandom")?;
    let size = i32::try_from(seed.len()).map_err(io::Error::other)?;
    let pool = Pool { entropy_bits: size.saturating_mul(8), size, bytes: *seed };
    // SAFETY: the descriptor is an open one of the generator, and the kernel reads one `Pool`, whose size says how long it is.
    unsafe { ioctl::add_entropy(device.as_raw_fd(), &pool) }?;
    // SAFETY: the descriptor is an open one of the generator; there is no argument.
    unsafe { ioctl::reseed(device.as_raw_fd()) }?;
    Ok(())
}

/// Gives this machine an id of its own, unless its image has one.
///
/// # Errors
///
/// Fails if the file cannot be written.
pub fn give_machine_id() -> io::Result<()> {
    if fs::exists(MACHINE_ID)? {
        return Ok(());
    }
    let uuid = fs::read_to_string(UUID)?;
    fs::write(MACHINE_ID, uuid.replace('-', ""))
}

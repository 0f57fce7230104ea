// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The header of a run in the mailbox, above all what makes a restored guest different from those restored before.

use std::io;
use std::time::{Duration, SystemTime};

use ersatz_guest_image::mailbox::{Header, SEED_SIZE};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::spec::RunSpec;

/// Returns the header for a run that begins now, with random numbers of its own.
///
/// # Errors
///
/// Fails if the kernel gives no random numbers.
pub fn new(archive: &[u8], run: &RunSpec) -> io::Result<Header> {
    let mut seed = [0; SEED_SIZE];
    // Up to 256 bytes come whole.
    getrandom(&mut seed, GetRandomFlags::empty())?;
    Ok(Header {
        length: archive.len() as u64,
        gpus: u32::try_from(run.devices.len()).unwrap_or(u32::MAX),
        wall_clock: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO),
        seed,
    })
}

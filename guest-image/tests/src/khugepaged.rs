// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel's thread that collapses pages into huge ones. It brings pages of devices back to do so, and takes those away that a device has
//! just been given access to, whenever it likes: no test can count pages or faults beside it.

use std::fs;
use std::io::{self, ErrorKind};

use nix::sys::mman::MmapAdvise;

use crate::region::Region;

/// How long it pauses, in milliseconds.
const PAUSE: &str = "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs";
/// A day: longer than any run.
const LONG_MS: &str = "86400000";
/// Pages in a huge page.
const HUGE_PAGES: usize = 512;

/// Keeps it asleep for as long as this process lives. (`MADV_COLLAPSE` does not need it.)
///
/// It looks for work when the first memory comes that may have huge pages, and after its pause: that of this process is the first, and nothing
/// is in it.
///
/// # Errors
///
/// If the kernel has it, and its pause cannot be set.
pub fn keep_asleep() -> io::Result<()> {
    match fs::write(PAUSE, LONG_MS) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result?,
    }
    let memory = Region::new(2 * HUGE_PAGES);
    memory.advise(0..2 * HUGE_PAGES, MmapAdvise::MADV_HUGEPAGE)?;
    std::mem::forget(memory);
    Ok(())
}

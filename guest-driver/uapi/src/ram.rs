// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note OR Apache-2.0 OR BSD-3-Clause
//! The ioctls of `/dev/ersatz_ram`, a device whose memory is a chunk of RAM: the example `guest-driver/examples/ram_device`, which shows
//! what a driver of another device does with the abstractions of `guest-driver/src/zone_device`.
//!
//! Errors: `EINVAL` for a range that is empty, unaligned or wraps; `EFAULT` for a pointer that does not lead to memory; `ENOMEM`.

use super::iowr;

/// Moves [`Pages`] to the device. Those that cannot go (holes, memory that is not anonymous, no memory of the device left) stay.
pub const IOC_TO_DEVICE: u32 = iowr::<Pages>(0x60);
/// Moves [`Pages`] back to the system.
pub const IOC_TO_SYSTEM: u32 = iowr::<Pages>(0x61);

/// Pages that the device's memory has.
pub const PAGES: usize = 2048;

/// A range of the calling process's memory, and what became of it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Pages {
    /// In: first byte of the range.
    pub address: u64,
    /// In: length in bytes.
    pub length: u64,
    /// Out: pages that moved.
    pub moved: u64,
    /// Out: pages of the device's memory that are in use, by any process.
    pub in_use: u64,
}

const _: () = assert!(super::size_of::<Pages>() == 4 * 8, "there is no padding");

// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note OR Apache-2.0 OR BSD-3-Clause
//! The ioctls of `/dev/hmm_dmirrorN`: those of the kernel's own test driver for HMM (`lib/test_hmm_uapi.h`), so that the kernel's test
//! program (`tools/testing/selftests/mm/hmm-tests.c`) runs against this driver and its device.
//!
//! All of them take a [`Command`], and write it back if they succeed. What opens the file binds its address space to the device, as
//! [`IOC_BIND`](super::IOC_BIND) does; only its own process may use it.

use super::iowr_of;

/// The letter of these ioctls.
pub const IOC_MAGIC: u8 = b'H';

/// The device reads the pages, and stores what it has read at `pointer`.
pub const IOC_READ: u32 = iowr_of::<Command>(IOC_MAGIC, 0);
/// The device writes to the pages what it reads at `pointer`.
pub const IOC_WRITE: u32 = iowr_of::<Command>(IOC_MAGIC, 1);
/// Moves the pages to the device, which stores their content at `pointer`. `EINVAL` for addresses that are not mapped or not readable;
/// `ENOENT` if a page is not in the device's memory in the end.
pub const IOC_MIGRATE_TO_DEVICE: u32 = iowr_of::<Command>(IOC_MAGIC, 2);
/// Moves the pages back to the system. `EINVAL` as above.
pub const IOC_MIGRATE_TO_SYSTEM: u32 = iowr_of::<Command>(IOC_MAGIC, 3);
/// Says what each page is, without faulting anything in: a byte of [`protection`] for each at `pointer`.
pub const IOC_SNAPSHOT: u32 = iowr_of::<Command>(IOC_MAGIC, 4);
/// Gives the device exclusive access to the pages until a CPU touches them; the device stores their content at `pointer`.
pub const IOC_EXCLUSIVE: u32 = iowr_of::<Command>(IOC_MAGIC, 5);
/// `EPERM` if the device has exclusive access to one of the pages.
pub const IOC_CHECK_EXCLUSIVE: u32 = iowr_of::<Command>(IOC_MAGIC, 6);
/// Moves all pages of all processes off the device.
pub const IOC_RELEASE: u32 = iowr_of::<Command>(IOC_MAGIC, 7);
/// Takes `pages` as a set of flags: [`FLAG_FAIL_ALLOCATION`].
pub const IOC_FLAGS: u32 = iowr_of::<Command>(IOC_MAGIC, 8);
/// As [`IOC_READ`], with the pages faulted in by the calling thread first, so that a userfaultfd can answer. Linux has it since 7.3.
pub const IOC_READ_UNLOCKED: u32 = iowr_of::<Command>(IOC_MAGIC, 9);

/// The next allocation of the destination of a migration fails, in either direction.
pub const FLAG_FAIL_ALLOCATION: u64 = 1;

/// Some pages of the process, and memory for their content.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Command {
    /// In: address of the first page.
    pub address: u64,
    /// In: address of the content, a multiple of 8 where the device accesses it.
    pub pointer: u64,
    /// In: number of pages, at least 1.
    pub pages: u64,
    /// Out: number of pages for which it was done.
    pub done: u64,
    /// Out: number of the device's faults on the pages that were answered, each with all pages from there to the end.
    pub faults: u64,
}

/// What [`IOC_SNAPSHOT`] says of a page.
pub mod protection {
    /// There is no mapping, or none that can be read.
    pub const ERROR: u8 = 0xff;
    /// Nothing is there, or a private page of another device.
    pub const NONE: u8 = 0x00;
    /// It may be read.
    pub const READ: u8 = 0x01;
    /// It may be written.
    pub const WRITE: u8 = 0x02;
    /// It is mapped by an entry of a PMD table.
    pub const PMD: u8 = 0x04;
    /// It is mapped by an entry of a PUD table.
    pub const PUD: u8 = 0x08;
    /// It is the zero page.
    pub const ZERO: u8 = 0x10;
    /// It is in this device's private memory.
    pub const PRIVATE: u8 = 0x20;
    /// It is in this device's coherent memory.
    pub const COHERENT: u8 = 0x40;
    /// It is in another device's coherent memory.
    pub const COHERENT_ELSEWHERE: u8 = 0x50;
}

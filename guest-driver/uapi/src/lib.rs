// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note OR Apache-2.0 OR BSD-3-Clause
//! The contract between the Ersatz driver and user space: the ioctls of `/dev/ersatzN`.
//!
//! The driver compiles this very file as a module; user space links it as a crate, or includes `ersatz.h`, which
//! says the same in C (a test compares the two). All structures are `repr(C)`, have no padding, and mean the same
//! to 32-bit and 64-bit callers. An address range belongs to the calling process's memory and is page-aligned;
//! unless said otherwise a range may cross mappings and holes.
//!
//! Errors common to all: `EINVAL` for a range that is empty, unaligned or wraps, or for a flag that is not defined;
//! `EFAULT` for a pointer that does not lead to memory; `ENODEV` once the device is unbound or gone; `EIO` if the
//! device reported an error; `EINTR` if a signal came first.
//!
//! [`hold`] is the contract of another module, `ersatz_hold`, for `/dev/ersatz_hold`; [`dmirror`] that of `/dev/hmm_dmirrorN`, which the
//! driver offers if it is asked to; [`ram`] that of an example's `/dev/ersatz_ram`.
#![cfg_attr(not(MODULE), no_std)]

pub mod dmirror;
pub mod hold;
pub mod ram;

/// The letter of all Ersatz ioctls.
pub const IOC_MAGIC: u8 = 0xe5;

/// The number of an ioctl that reads and writes a `T`: `_IOWR(IOC_MAGIC, nr, T)` of `asm-generic/ioctl.h`.
const fn iowr<T>(nr: u8) -> u32 {
    iowr_of::<T>(IOC_MAGIC, nr)
}

/// The number of an ioctl of another letter.
const fn iowr_of<T>(magic: u8, nr: u8) -> u32 {
    (3 << 30) | ((size_of::<T>() as u32) << 16) | ((magic as u32) << 8) | nr as u32
}

use core::mem::size_of;

/// `ERSATZ_IOC_INFO`: fills in an [`Info`].
pub const IOC_INFO: u32 = iowr::<Info>(1);
/// `ERSATZ_IOC_MIGRATE`: performs a [`Migrate`].
pub const IOC_MIGRATE: u32 = iowr::<Migrate>(2);
/// `ERSATZ_IOC_RESIDENCY`: fills in a [`Residency`].
pub const IOC_RESIDENCY: u32 = iowr::<Residency>(3);
/// `ERSATZ_IOC_DIGEST`: performs a [`Digest`].
pub const IOC_DIGEST: u32 = iowr::<Digest>(4);
/// `ERSATZ_IOC_COUNTERS`: fills in a [`Counters`].
pub const IOC_COUNTERS: u32 = iowr::<Counters>(5);
/// `ERSATZ_IOC_EVICT`: performs an [`Evict`].
pub const IOC_EVICT: u32 = iowr::<Evict>(6);
/// `ERSATZ_IOC_MARK`: performs a [`Mark`].
pub const IOC_MARK: u32 = iowr::<Mark>(7);

/// `ERSATZ_IOC_BIND`: performs a [`Bind`].
pub const IOC_BIND: u32 = iowr::<Bind>(8);
/// `ERSATZ_IOC_LAUNCH`: performs a [`Launch`].
pub const IOC_LAUNCH: u32 = iowr::<Launch>(9);
/// `ERSATZ_IOC_EXCLUSIVE`: performs an [`Exclusive`].
pub const IOC_EXCLUSIVE: u32 = iowr::<Exclusive>(10);
/// `ERSATZ_IOC_ADVISE`: performs an [`Advise`].
pub const IOC_ADVISE: u32 = iowr::<Advise>(11);

/// How VRAM is registered with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MemoryType {
    /// `MEMORY_DEVICE_PRIVATE`: no CPU access; a touch migrates the page back.
    Private = 0,
    /// `MEMORY_DEVICE_COHERENT`: the CPU reads and writes VRAM in place.
    Coherent = 1,
}

/// What the device and its driver are.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Info {
    /// Out: the device's `ersatz_abi::ABI_VERSION`.
    pub abi_version: u32,
    /// Out: a [`MemoryType`].
    pub memory_type: u32,
    /// Out: bytes of VRAM that the driver has registered as pages.
    pub vram_bytes: u64,
    /// Out: bytes of it that no page uses now.
    pub vram_free: u64,
    /// Out: CPU faults on device pages that the driver has answered since it was bound.
    pub cpu_faults: u64,
    /// Out: CPU faults it could not answer (the process got SIGBUS).
    pub cpu_faults_failed: u64,
    /// Out: PCI segment (31:16), bus (15:8), device (7:3), function (2:0).
    pub pci_address: u32,
    /// Zero.
    pub reserved: u32,
}

/// Where [`Migrate`] takes pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Direction {
    /// To the device's VRAM.
    ToDevice = 0,
    /// Back to system memory.
    ToSystem = 1,
}

/// Moves the pages of a range. A page that cannot move now (pinned, busy, no VRAM left, not anonymous) stays where it
/// is with its content; that is counted, not an error. When VRAM runs out, memory that was used longest ago is moved off the device to
/// make room, but nothing that this call has moved. A signal ends the call early: it is an error only if no page has moved.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Migrate {
    /// In: first byte of the range.
    pub address: u64,
    /// In: length in bytes.
    pub length: u64,
    /// In: a [`Direction`].
    pub direction: u32,
    /// In: zero.
    pub flags: u32,
    /// Out: pages that this call moved.
    pub moved: u64,
    /// Out: pages of the range that are not where they were asked to go, holes included; at most that, after a signal.
    pub left: u64,
}

/// Where a page is, as [`Residency`] reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageState {
    /// Nothing is mapped there (a hole, or never touched).
    None = 0,
    /// In system memory.
    System = 1,
    /// In this device's VRAM.
    Device = 2,
    /// Anonymous memory that is swapped out, or otherwise not there for the moment.
    Swapped = 3,
}

/// Where each page of a range is, seen without faulting anything in.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Residency {
    /// In: first byte of the range.
    pub address: u64,
    /// In: length in bytes.
    pub length: u64,
    /// In: pointer to one byte a page; out: a [`PageState`] each.
    pub states: u64,
}

/// Has the device read each page of a range where it is and report its CRC-32C. Nothing migrates; a page that is
/// not present is faulted in as a CPU read would. A range with a hole in it is `EFAULT`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Digest {
    /// In: first byte of the range.
    pub address: u64,
    /// In: length in bytes.
    pub length: u64,
    /// In: pointer to one `u64` a page; out: the CRC-32C of each.
    pub digests: u64,
    /// Out: how many of the pages the device read in VRAM; it read the others in system memory.
    pub in_vram: u64,
}

/// The device's own counters, read from its registers.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Counters {
    /// Out: by number of `ersatz_abi::counter::Counter`; those the device does not have are zero.
    pub values: [u64; 64],
}

impl Default for Counters {
    fn default() -> Self {
        Self { values: [0; 64] }
    }
}

/// Moves every page of every process off the device. Pages that stay busy are left.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Evict {
    /// Out: pages moved.
    pub moved: u64,
    /// Out: pages still on the device.
    pub left: u64,
}

/// Puts a number into the device's trace log.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Mark {
    /// In: the number.
    pub value: u64,
}

/// Makes the address space of the calling process the device's, for the work that is launched through this open file. It stays so until the
/// file is closed; the addresses mean the same to the device as to the process at any time, whatever is mapped, moved or unmapped.
///
/// `EBUSY` if the file has an address space already; `EOPNOTSUPP` if the device cannot work by virtual addresses; `ENOSPC` if all of its
/// address spaces are taken.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Bind {
    /// In: zero.
    pub flags: u32,
    /// Out: the number of the device's address space, for reading traces.
    pub asid: u32,
}

/// Where [`Advise`] wants memory to be while the device works on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Advice {
    /// Where it is: a fault of the device moves nothing. So it is without advice.
    None = 0,
    /// On the device: a fault of the device moves the memory around it there, up to 2 MiB, holes included.
    PreferDevice = 1,
    /// In system memory: a fault of the device brings back what is on it.
    PreferSystem = 2,
    /// Where it is, until the device has accessed it often: then on the device. It is counted in pieces of 64 KiB.
    ByAccess = 3,
    /// Where it is, and the device has what is present mapped, with the rights of the process: at once, and again when it has moved. The device
    /// does not fault at it then. What it may write counts as written.
    AccessedBy = 4,
    /// As [`Advice::AccessedBy`], but the device has it mapped for reading only, so that it does not count as written: for what both sides read.
    /// A write of the device faults once a page, is done where the page is, and concerns no other page. Nothing is copied: Linux has
    /// one page at an address, for all who access it.
    ReadMostly = 5,
}

/// Says where the memory of a range of the address space that is bound to the file is wanted, until other advice comes or the file is closed.
/// It concerns the addresses, whatever is mapped there; ranges without mappings can have it, too. Nothing moves at once.
///
/// With [`Advice::AccessedBy`] and [`Advice::ReadMostly`], memory that [`Migrate`] or a CPU's touch has moved is mapped again by whoever moved it, before
/// they go on; what other processes or the kernel have moved (eviction, compaction, swap), when the next kernel is launched, or at a fault of the
/// device before that. So is, at a fault, what was not present at any of these times.
///
/// Memory that cannot move is used where it is, and so is for a while what a CPU takes back soon after it has moved: 50 ms at first, and up to
/// 3.2 s if that happens again and again. If VRAM runs out, memory that was used longest ago makes room.
///
/// `EINVAL` for other advice than [`Advice`] has, or if no address space is bound; `EPERM` if it is another process's; `EFAULT` for addresses
/// from 2^47 on; `ENOSPC` if more than 1024 ranges had advice of their own then; `ENOMEM`; `EIO` if the device does not count accesses.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Advise {
    /// In: first byte of the range.
    pub address: u64,
    /// In: length in bytes.
    pub length: u64,
    /// In: an [`Advice`].
    pub advice: u32,
    /// In: zero.
    pub flags: u32,
}

/// Gives the device exclusive access to pages of the address space that is bound to the file: until a CPU touches a page, or it is unmapped,
/// moved, protected or inherited by a child, no CPU does anything to it while the device works on it, without the page leaving the system. For
/// atomics of the device that those of a CPU must not come between. Pages on the device are brought back first.
///
/// It goes page by page from the first and stops at one that cannot be had; `done` is written back in any case. `EINVAL` if no address space
/// is bound; `EPERM` if it is another process's, or the process may not write to a page; `EFAULT` for a hole; `EOPNOTSUPP` for memory that is
/// not anonymous; `EBUSY` for a page in use in other ways.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Exclusive {
    /// In: first byte of the range.
    pub address: u64,
    /// In: length in bytes.
    pub length: u64,
    /// Out: pages that the device has been given.
    pub done: u64,
}

/// What [`Launch`] runs. A word is eight bytes; addresses and lengths are multiples of 8.
///
/// | kernel | `first` | `value` | `second` | `count` | `result` |
/// |---|---|---|---|---|---|
/// | [`Read`](Self::Read) | source | | | bytes | |
/// | [`Write`](Self::Write) | destination | seed | | bytes | |
/// | [`Set`](Self::Set) | destination | pattern | | bytes | |
/// | [`Sum`](Self::Sum) | source | | | bytes | address of the sum |
/// | [`Saxpy`](Self::Saxpy) | x | factor, 32 bits | y | bytes | |
/// | [`AtomicAdd`](Self::AtomicAdd) | target | addend | | bytes | |
/// | [`CompareAndSwap`](Self::CompareAndSwap) | target | expected | replacement | | address of the old value |
/// | [`Chase`](Self::Chase) | start | | | steps | address of the last word |
/// | [`RandomUpdate`](Self::RandomUpdate) | table | seed, not 0 | bytes, a power of two | updates | |
/// | [`Copy`](Self::Copy) | source | | destination | bytes | |
///
/// What a kernel does not use is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum KernelKind {
    /// Reads the range.
    Read = 0,
    /// Word *n* becomes seed + *n*.
    Write = 1,
    /// Each word becomes the pattern.
    Set = 2,
    /// Adds up the words, wrapping.
    Sum = 3,
    /// y\[n\] = factor × x\[n\] + y\[n\], 32-bit floats.
    Saxpy = 4,
    /// Adds to each word, atomically and wrapping.
    AtomicAdd = 5,
    /// Replaces a word that is as expected, atomically.
    CompareAndSwap = 6,
    /// Follows a chain of words, each the address of the next.
    Chase = 7,
    /// For each number *r* after the seed of the 64-bit xorshift 13, 7, 17: word *r* mod words ^= *r*, atomically.
    RandomUpdate = 8,
    /// Copies the words of a range to another one; the two do not overlap.
    Copy = 9,
}

/// How the device accessed memory, as [`Launch`] reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FaultAccess {
    /// A read.
    Read = 0,
    /// A write.
    Write = 1,
    /// An atomic.
    Atomic = 2,
}

/// Runs a kernel on the device over plain addresses of the calling process, and waits for its end. What is not mapped yet is faulted in as the
/// CPU's access would do it; memory is used where it is, unless there is [advice](Advise) for it.
///
/// `EFAULT`, with the last two fields filled in, if the process itself could not have accessed an address in that way; what the kernel did
/// before stays done. `EINVAL` for operands that are not valid, or if no address space is bound; `EPERM` if another process's is;
/// `ENOMEM` if memory could not be faulted in; `EHWPOISON` if it met memory of the device that has lost its content; `EIO` if the device failed or
/// took too long.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Launch {
    /// In: a [`KernelKind`].
    pub kernel: u32,
    /// In: zero.
    pub flags: u32,
    /// In: first operand.
    pub first: u64,
    /// In: a value.
    pub value: u64,
    /// In: second operand.
    pub second: u64,
    /// In: how much.
    pub count: u64,
    /// In: address of the result.
    pub result: u64,
    /// Out, after `EFAULT`: the address that could not be accessed.
    pub fault_address: u64,
    /// Out, after `EFAULT`: a [`FaultAccess`].
    pub fault_access: u32,
    /// Zero.
    pub reserved: u32,
}

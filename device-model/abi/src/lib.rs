// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! The contract between the Ersatz GPU and its driver.
//!
//! Every number that crosses the PCIe bus is written here and nowhere else: PCI identity ([`pci`]), the register map of
//! BAR0 ([`regs`]), a channel's shared memory ([`channel`]), the 64-byte commands of its ring ([`command`], [`opcode`])
//! with their page lists ([`list`]) and kernels ([`kernel`]), address spaces and their page tables ([`mmu`]), how both name
//! memory ([`location`]), the rings by which
//! the device reports faults and hot memory ([`notification`], [`fault`], [`access_counter`]), the error codes
//! ([`error`]) and the performance counters ([`counter`]). The device model links this as a crate; the guest driver
//! compiles the very same files as a module (`#[path]`), so nothing here may name `crate::`, allocate, or depend on
//! anything but `core`.
//!
//! All integers are little-endian. "Bus address" means an address the device puts on the bus (what the
//! driver's DMA mapping returned); "VRAM offset" counts bytes from the start of VRAM, wherever BAR2 lies.
//!
//! # Glossary
//!
//! - **Aperture**: which memory an address is in: the device's own (VRAM), the system's, a peer's, or virtual.
//! - **ASID**: the number of an address space.
//! - **Channel**: a queue of commands, executed in order, with its own ring, doorbell, fence and error state.
//! - **Control block**: the page of guest memory a channel shares: PUT, GET and the fence value.
//! - **Doorbell**: a page of BAR0; a write to it says "look at PUT". The value written means nothing.
//! - **Fence**: a 64-bit timeline value in memory that only rises; work is done once it reaches the value given.
//! - **Peer**: another Ersatz GPU, linked to this one.
//! - **PUT / GET**: free-running 32-bit ring positions; the driver writes PUT, the device writes GET.
#![cfg_attr(not(MODULE), no_std)]

#[cfg(test)]
extern crate std;

#[macro_use]
mod fields;

pub mod access_counter;
pub mod channel;
pub mod command;
pub mod control_window;
pub mod counter;
pub mod error;
pub mod fault;
pub mod kernel;
pub mod list;
pub mod location;
pub mod mmu;
pub mod notification;
pub mod opcode;
pub mod pci;
pub mod regs;

/// Version of this contract: major in the high half (incompatible changes), minor in the low half (additions).
pub const ABI_VERSION: u32 = 0x0001_0007;

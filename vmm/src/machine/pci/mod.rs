// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The PCI Express bus of the machine: bus 0, with a host bridge and 31 slots, which may fill and empty while the machine
//! runs.
//!
//! [`bus::PciBus`] drives the functions and carries out their effects; [`slot`] has what a slot holds, [`plug`] the way in
//! and out for other threads; [`address`] says which function an access
//! means, [`placement`] where BARs are at first, [`decode`] where they are now, and [`attachment`] what KVM serves of
//! them without an exit, and other devices reach.

pub mod address;
mod attachment;
mod bus;
mod decode;
mod host_bridge;
mod placement;
mod plug;
mod slot;

use std::io;
use std::ops::Range;

use ersatz_device_model::dma::MapError;
use thiserror::Error;

pub use attachment::MemorySlots;
pub use bus::PciBus;
pub use placement::{bar_requests, choose_window};
pub use plug::{PciSlots, PlugError};
pub use slot::{ConnectedFunction, connect, requester_id};

use super::interrupts::InterruptError;

/// Slots of the bus, for one function each. Slot *n* is device *n* + 1; device 0 is the host bridge.
pub const SLOTS: usize = 31;

/// Why the bus could not be built.
#[derive(Debug, Error)]
pub enum PciError {
    /// More functions than device numbers.
    #[error("{0} PCI functions; the bus has room for {SLOTS}")]
    TooManyFunctions(usize),
    /// A BAR has no room in the address space.
    #[error(
        "BAR{bar} of 00:{device:02x}.0 with {size} bytes does not fit into the PCI window {window:#x?} of this \
         processor's {bits}-bit physical addresses; give the device less VRAM, or the guest less memory"
    )]
    NoRoom {
        /// Device number.
        device: u8,
        /// Index of the BAR.
        bar: u8,
        /// Size in bytes.
        size: u64,
        /// The window it must be in.
        window: Range<u64>,
        /// Width of a physical address.
        bits: u8,
    },
    /// A BAR's size is not one.
    #[error("BAR{bar} of 00:{device:02x}.0 cannot have {size} bytes: that is no power of two from 16 on")]
    BarSize {
        /// Device number.
        device: u8,
        /// Index of the BAR.
        bar: u8,
        /// Size in bytes.
        size: u64,
    },
    /// Interrupts could not be set up.
    #[error("cannot set up the interrupts of 00:{device:02x}.0")]
    Interrupts {
        /// Device number.
        device: u8,
        /// Why.
        #[source]
        source: InterruptError,
    },
}

/// Why part of a BAR could not be attached to KVM.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The mapping's numbers make no sense.
    #[error("a mapping of {length:#x} bytes at {offset:#x} is not in the BAR")]
    Range {
        /// Offset in the BAR.
        offset: u64,
        /// Length in bytes.
        length: u64,
    },
    /// The memory could not be mapped into this process.
    #[error("cannot map its memory: {0}")]
    Map(#[source] vm_memory::mmap::MmapRegionError),
    /// KVM refused the memory slot.
    #[error("KVM refuses a memory slot of {length:#x} bytes at {address:#x}")]
    Slot {
        /// Guest physical address.
        address: u64,
        /// Length in bytes.
        length: u64,
        /// What KVM said.
        #[source]
        source: io::Error,
    },
    /// The memory could not be given to the devices.
    #[error("cannot let devices reach its memory at {address:#x}")]
    Dma {
        /// Guest physical address.
        address: u64,
        /// Why not.
        #[source]
        source: MapError,
    },
    /// KVM refused the doorbell.
    #[error("KVM refuses a doorbell at {address:#x}")]
    Doorbell {
        /// Guest physical address.
        address: u64,
        /// What KVM said.
        #[source]
        source: io::Error,
    },
}

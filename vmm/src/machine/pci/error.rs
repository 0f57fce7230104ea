// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why the bus could not be built, and why part of a BAR could not be attached to KVM.

use std::io;
use std::ops::Range;

use ersatz_device_model::dma::MapError;
use thiserror::Error;

use super::slot::MAX_SLOTS;
use crate::machine::config::FactoryError;
use crate::machine::interrupts::InterruptError;

/// Why the bus could not be built.
#[derive(Debug, Error)]
pub enum PciError {
    /// More functions than device numbers.
    #[error("{0} PCI functions; the bus has room for {MAX_SLOTS}")]
    TooManyFunctions(usize),
    /// A BAR has no room in the address space.
    #[error(
        "BAR{bar} of the function in PCI slot {slot} with {size} bytes does not fit into the PCI window {window:#x?} of this \
         processor's {bits}-bit physical addresses; give the device less VRAM, or the guest less memory"
    )]
    NoRoom {
        /// The slot.
        slot: u8,
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
    #[error("BAR{bar} of the function in PCI slot {slot} cannot have {size} bytes: that is no power of two from 16 on")]
    BarSize {
        /// The slot.
        slot: u8,
        /// Index of the BAR.
        bar: u8,
        /// Size in bytes.
        size: u64,
    },
    /// A function could not be put into its slot.
    #[error(transparent)]
    Plug(#[from] PlugError),
    /// The set of events could not be made.
    #[error("cannot make a set of events for the PCI bus")]
    Events(#[source] io::Error),
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
    #[error("cannot map its memory")]
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

/// Why a slot was not filled or emptied.
#[derive(Debug, Error)]
pub enum PlugError {
    /// There is no such slot.
    #[error("there is no PCI slot {slot}; this machine has {slots}, from 0 on")]
    NoSlot {
        /// The slot asked for.
        slot: u8,
        /// Number of slots.
        slots: usize,
    },
    /// The slot holds a function already.
    #[error("PCI slot {0} is not empty; take its function out first, or use another slot")]
    Occupied(u8),
    /// The slot holds no function.
    #[error("PCI slot {0} is empty")]
    Empty(u8),
    /// The function could not be made.
    #[error("cannot make the function for PCI slot {slot}")]
    Function {
        /// The slot.
        slot: u8,
        /// What its factory says.
        #[source]
        source: FactoryError,
    },
    /// Interrupts could not be set up.
    #[error("cannot set up the interrupts of the function in PCI slot {slot}")]
    Interrupts {
        /// The slot.
        slot: u8,
        /// Why.
        #[source]
        source: InterruptError,
    },
    /// Its event cannot be waited for.
    #[error("cannot wait for the event of the function in PCI slot {slot}")]
    Event {
        /// The slot.
        slot: u8,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The machine has ended.
    #[error("the machine has ended, and its PCI slots with it")]
    Ended,
}

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! The register map of BAR0.
//!
//! The device registers from 0, among them the two notification rings; one block of registers a channel from
//! [`CHANNEL_BASE`]; the counters from [`COUNTER_BASE`]; one block an address space from [`ADDRESS_SPACE_BASE`]; one doorbell
//! page a channel from [`DOORBELL_BASE`].
//! A register is read and written whole, at its own width, naturally aligned; a 64-bit register also as two
//! 32-bit halves, low half first. Any other access reads as zero, writes nothing, and counts as a bad access.

use super::channel::ChannelState;
use super::error::ErrorCode;
use super::fault::{AccessKind, FaultKind};

/// What a driver may do with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads only; a write is a bad access.
    ReadOnly,
    /// Writes only; reads as zero.
    WriteOnly,
    /// Reads and writes.
    ReadWrite,
}

/// One row of the register map.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    /// The name in the manual and in traces.
    pub name: &'static str,
    /// Byte offset: from the start of BAR0, or of the channel's block.
    pub offset: u32,
    /// Width in bytes: 4 or 8.
    pub width: u8,
    /// Permitted accesses.
    pub access: Access,
    /// One sentence for the manual.
    pub summary: &'static str,
}

/// Defines the registers of a block: a [`Register`] for each row, the table of them, and an enumeration of them.
macro_rules! register_map {
    ($(#[$tmeta:meta])* $table:ident: $(#[$emeta:meta])* $block:ident:
        $($name:ident / $variant:ident @ $offset:literal, $width:literal, $access:ident, $summary:literal;)*) => {
        $(#[doc = $summary] pub const $name: Register = Register {
            name: stringify!($name), offset: $offset, width: $width, access: Access::$access, summary: $summary,
        };)*
        $(#[$tmeta])*
        pub const $table: &[Register] = &[$($name,)*];

        $(#[$emeta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $block { $(#[doc = $summary] $variant,)* }

        impl $block {
            /// The register that begins at this offset in the block, if there is one.
            #[inline]
            pub const fn from_offset(offset: u32) -> Option<Self> {
                match offset { $($offset => Some(Self::$variant),)* _ => None }
            }

            /// The row of the register map.
            #[inline]
            pub const fn register(self) -> &'static Register {
                match self { $(Self::$variant => &$name,)* }
            }
        }
    };
}

register_map! {
    /// The device registers, by offset from the start of BAR0.
    DEVICE_REGISTERS:
    /// A register of the device block.
    DeviceRegister:
    ID / Id @ 0x000, 4, ReadOnly, "Always [`DEVICE_MAGIC`]; anything else means that the device does not answer.";
    VERSION / Version @ 0x004, 4, ReadOnly, "The ABI version the device implements ([`super::ABI_VERSION`]).";
    CONFIGURATION / Configuration @ 0x008, 4, ReadOnly, "How many parts this device has ([`Configuration`]).";
    STATUS / Status @ 0x00c, 4, ReadOnly, "The device as a whole ([`Status`]).";
    VRAM_SIZE / VramSize @ 0x010, 8, ReadOnly, "Size of VRAM in bytes; BAR2 may show less, never more.";
    CONTROL / Control @ 0x018, 4, ReadWrite, "Requests to the device as a whole ([`Control`]).";
    TIMESTAMP / Timestamp @ 0x020, 8, ReadOnly, "The device's clock in nanoseconds: monotonic, the one that the trace log counts from its base.";
    MARK / Mark @ 0x028, 8, WriteOnly, "Puts the written value into the trace log, to find one's place there.";
    MMU_CONFIGURATION / MmuConfiguration @ 0x030, 4, ReadOnly, "What the device has for virtual memory ([`MmuConfiguration`]).";
    PEERS / Peers @ 0x034, 4, ReadOnly, "Which other GPUs this one is linked with ([`Peers`]).";
    INVALIDATE_ADDRESS / InvalidateAddress @ 0x040, 8, ReadWrite, "First virtual address of the next invalidation of a range.";
    INVALIDATE_LENGTH / InvalidateLength @ 0x048, 8, ReadWrite, "Its length in bytes.";
    INVALIDATE / Invalidate @ 0x050, 4, WriteOnly, "Starts an invalidation ([`super::mmu::InvalidateTarget`]).";
    INVALIDATE_REQUESTED / InvalidateRequested @ 0x058, 8, ReadOnly, "Number of the last invalidation started by register, from 1.";
    INVALIDATE_ACKNOWLEDGED / InvalidateAcknowledged @ 0x060, 8, ReadOnly, "All invalidations up to this number are complete.";
    POISON / Poison @ 0x068, 8, WriteOnly, "Write an offset in VRAM: the page there is poisoned, and no engine accesses it any more.";
    POISONED / Poisoned @ 0x070, 8, ReadWrite, "Write an offset in VRAM: reads as that of the first poisoned page there or behind, or as all ones.";
    POISON_CLEAR / PoisonClear @ 0x078, 8, WriteOnly, "Write an offset in VRAM: the page there is zeroed, and poisoned no more.";
    FAULT_REPLAY / FaultReplay @ 0x0a0, 4, WriteOnly, "Write 1: every channel that waits at a fault tries again.";
    FAULT_CANCEL / FaultCancel @ 0x0a4, 4, WriteOnly, "Write a channel's number: it stops with the error `fault-cancelled`.";
    FAULTED_CHANNELS / FaultedChannels @ 0x0a8, 8, ReadOnly, "One bit for each channel that waits at a fault.";
    ACCESS_COUNTER_CONTROL / AccessCounterControl @ 0x0e0, 4, ReadWrite, "What is counted ([`super::access_counter::AccessCounterControl`]).";
    ACCESS_COUNTER_CLEAR / AccessCounterClear @ 0x0e8, 8, WriteOnly, "Write a region's address, with the ASID in its low 16 bits: its count is zero again.";
    DEMAND / Demand @ 0x100, 8, ReadOnly, "Number of the demand for memory that waits for an answer, from 1; zero if none waits. The four registers behind it are zero then, too.";
    DEMAND_OFFSET / DemandOffset @ 0x108, 8, ReadOnly, "The offset in VRAM from which on memory is demanded.";
    DEMAND_LENGTH / DemandLength @ 0x110, 8, ReadOnly, "Length in bytes of the range in which it is demanded.";
    DEMAND_BYTES / DemandBytes @ 0x118, 8, ReadOnly, "How much of that range is still to be handed over, in bytes.";
    DEMAND_DEADLINE / DemandDeadline @ 0x120, 8, ReadOnly, "When the demand ends without an answer, in nanoseconds of the device's clock.";
    DEMAND_ANSWER / DemandAnswer @ 0x128, 8, WriteOnly, "Write a demand's number: all that could be handed over has been.";
    HAND_OVER / HandOver @ 0x130, 8, WriteOnly, "Hands over pages of VRAM ([`HandOver`]).";
    HANDED_OVER / HandedOver @ 0x138, 8, ReadWrite, "Write an offset in VRAM: reads as that of the first page there or behind that is handed over, or as all ones.";
    HANDED_OVER_END / HandedOverEnd @ 0x140, 8, ReadOnly, "The offset behind that page and those that follow it and are handed over as well; all ones if there is no such page.";
}

/// Size of a page that is poisoned, in bytes; it is aligned to that.
pub const POISON_BYTES: u64 = 4096;
/// The most pages that can be poisoned at a time.
pub const MAX_POISONED_PAGES: u32 = 4096;

/// Size of a page that is handed over, in bytes; it is aligned to that.
pub const HAND_OVER_BYTES: u64 = 4096;

bitfield! {
    /// Value of [`HAND_OVER`].
    pub struct HandOver(u64) {
        /// Base-2 logarithm of the number of pages.
        order / with_order: 5..=0 as field;
        /// The first page: its offset in VRAM divided by [`HAND_OVER_BYTES`]. A multiple of the number of pages.
        page / with_page: 51..=12 as field;
    }
}

impl HandOver {
    /// The first page and the number of pages; `None` if the value is not valid.
    pub const fn pages(self) -> Option<(u64, u64)> {
        if self.0 & Self::RESERVED != 0 || self.order() >= 40 {
            return None;
        }
        let count = 1 << self.order();
        if self.page() % count == 0 {
            Some((self.page(), count))
        } else {
            None
        }
    }
}

/// What [`ID`] reads: "ERSZ" in memory order.
pub const DEVICE_MAGIC: u32 = u32::from_le_bytes(*b"ERSZ");

bitfield! {
    /// Value of [`CONFIGURATION`].
    pub struct Configuration(u32) {
        /// Number of channels, 1 to [`MAX_CHANNELS`].
        channels / with_channels: 7..=0 as field;
        /// Number of copy engines.
        copy_engines / with_copy_engines: 15..=8 as field;
        /// Number of MSI-X vectors.
        vectors / with_vectors: 31..=16 as field;
    }
}

bitfield! {
    /// Value of [`MMU_CONFIGURATION`].
    pub struct MmuConfiguration(u32) {
        /// Number of address spaces.
        address_spaces / with_address_spaces: 15..=0 as field;
        /// Number of compute engines; their numbers follow those of the copy engines.
        compute_engines / with_compute_engines: 23..=16 as field;
        /// Number of peers this device may have.
        peers / with_peers: 31..=24 as field;
    }
}

bitfield! {
    /// Value of [`PEERS`].
    pub struct Peers(u32) {
        /// One bit for each peer that is there, by its number. One that sleeps or is being reset is there.
        linked / with_linked: 7..=0 as field;
        /// The number by which peers name this device; zero if it is not plugged into a fabric.
        own / with_own: 11..=8 as field;
        /// The device is plugged into a fabric.
        plugged / with_plugged: 12..=12 as flag;
    }
}

bitfield! {
    /// Value of [`STATUS`].
    pub struct Status(u32) {
        /// At least one channel is in [`ChannelState::Error`].
        channel_error / with_channel_error: 0..=0 as flag;
        /// At least one bad register access was seen since reset.
        bad_access / with_bad_access: 1..=1 as flag;
        /// A reset is under way; registers other than this one may not be written.
        resetting / with_resetting: 2..=2 as flag;
    }
}

bitfield! {
    /// Value of [`CONTROL`].
    pub struct Control(u32) {
        /// Write one: stop all channels, forget all state but VRAM's content. Reads as one until done.
        reset / with_reset: 0..=0 as flag;
    }
}

/// Largest number of channels the map has room for.
pub const MAX_CHANNELS: u32 = 64;
/// Offset of channel 0's registers in BAR0.
pub const CHANNEL_BASE: u32 = 0x1000;
/// Bytes from one channel's registers to the next one's.
pub const CHANNEL_STRIDE: u32 = 0x40;

register_map! {
    /// The registers of one channel, by offset from the start of its block.
    CHANNEL_REGISTERS:
    /// A register of a channel.
    ChannelRegister:
    RING_BASE / RingBase @ 0x00, 8, ReadWrite, "Bus address of the ring, 4 KiB aligned. Written while the channel is disabled.";
    CONTROL_BLOCK / ControlBlock @ 0x08, 8, ReadWrite, "Bus address of the control block, 4 KiB aligned. Written while disabled.";
    RING_ORDER / RingOrder @ 0x10, 4, ReadWrite, "Base-2 logarithm of the ring's length in commands. Written while disabled.";
    VECTOR / Vector @ 0x14, 4, ReadWrite, "MSI-X vector of this channel's fences and errors. Written while disabled.";
    CHANNEL_CONTROL / Control @ 0x18, 4, ReadWrite, "Requests to the channel ([`ChannelControl`]).";
    CHANNEL_STATUS / Status @ 0x1c, 4, ReadOnly, "State and error of the channel ([`ChannelStatus`]).";
    ERROR_POSITION / ErrorPosition @ 0x20, 8, ReadOnly, "Where it failed: ring position (low half), list entry or register (high half).";
    ERROR_ADDRESS / ErrorAddress @ 0x28, 8, ReadOnly, "The address that was refused, in the aperture of the failed access; while the channel is faulted, the virtual address it waits at.";
    GET / Get @ 0x30, 4, ReadOnly, "The channel's GET, as in its control block.";
    ENGINE / Engine @ 0x34, 4, ReadWrite, "Number of the engine that works for the channel. Written while disabled.";
    ASID / Asid @ 0x38, 4, ReadWrite, "Address space of the channel's virtual addresses. Written while disabled.";
    PRIORITY / Priority @ 0x3c, 4, ReadWrite, "Whose turn it is ([`super::channel::Priority`]). Written while disabled.";
}

bitfield! {
    /// Value of [`CHANNEL_CONTROL`].
    pub struct ChannelControl(u32) {
        /// One: fetch and execute commands. Cleared: stop behind the command under way; [`GET`] says where.
        enable / with_enable: 0..=0 as flag;
        /// Write one: drop all commands, clear the error, PUT and GET start again at zero, disabled. Reads as
        /// one until the engine has let go of the channel.
        reset / with_reset: 1..=1 as flag;
    }
}

bitfield! {
    /// Value of [`CHANNEL_STATUS`].
    pub struct ChannelStatus(u32) {
        /// A [`ChannelState`].
        raw_state / with_raw_state: 3..=0 as field;
        /// An [`ErrorCode`]; not [`ErrorCode::None`] exactly in [`ChannelState::Error`].
        raw_error / with_raw_error: 15..=8 as field;
        /// An [`AccessKind`]: of the access that the channel waits with, in [`ChannelState::Faulted`]; else 0.
        raw_access / with_raw_access: 19..=16 as field;
        /// A [`FaultKind`]: why that faulted; else 0.
        raw_kind / with_raw_kind: 23..=20 as field;
    }
}

impl ChannelStatus {
    /// The value for a state and an error.
    pub const fn new(state: ChannelState, error: ErrorCode) -> Self {
        Self(0).with_raw_state(state as u32).with_raw_error(error as u32)
    }

    /// The same with the access that the channel waits with.
    pub const fn with_fault(self, access: AccessKind, kind: FaultKind) -> Self {
        self.with_raw_access(access as u32).with_raw_kind(kind as u32)
    }

    /// The access that a faulted channel waits with; `None` if one of the numbers has no meaning.
    pub const fn fault(self) -> Option<(AccessKind, FaultKind)> {
        match (AccessKind::from_raw(self.raw_access() as u8), FaultKind::from_raw(self.raw_kind() as u8)) {
            (Some(access), Some(kind)) => Some((access, kind)),
            _ => None,
        }
    }

    /// The state, unless the number is not one.
    pub const fn state(self) -> Option<ChannelState> {
        ChannelState::from_raw(self.raw_state() as u8)
    }

    /// The error, unless the number is not one.
    pub const fn error(self) -> Option<ErrorCode> {
        ErrorCode::from_raw(self.raw_error() as u8)
    }
}

/// Offset in BAR0 of the registers of the fault buffer.
pub const FAULT_RING_BASE: u32 = 0x080;
/// Offset in BAR0 of the registers of the access counters' ring.
pub const ACCESS_RING_BASE: u32 = 0x0c0;
/// Size in bytes of the block of registers of a notification ring.
pub const NOTIFICATION_STRIDE: u32 = 0x20;

register_map! {
    /// The registers of a notification ring, by offset from the start of its block.
    NOTIFICATION_REGISTERS:
    /// A register of a notification ring.
    NotificationRegister:
    NOTIFICATION_BASE / Base @ 0x00, 8, ReadWrite, "Bus address of the records, 4 KiB aligned. Written while disabled.";
    NOTIFICATION_ORDER / Order @ 0x08, 4, ReadWrite, "Base-2 logarithm of the ring's length in records. Written while disabled.";
    NOTIFICATION_VECTOR / Vector @ 0x0c, 4, ReadWrite, "MSI-X vector that announces records. Written while disabled.";
    NOTIFICATION_CONTROL / Control @ 0x10, 4, ReadWrite, "Whether records are written ([`super::notification::NotificationControl`]).";
    NOTIFICATION_STATUS / Status @ 0x14, 4, ReadWrite, "What went wrong ([`super::notification::NotificationStatus`]); write ones to clear.";
    NOTIFICATION_GET / Get @ 0x18, 4, ReadWrite, "Free-running position up to which the driver has read.";
    NOTIFICATION_PUT / Put @ 0x1c, 4, ReadOnly, "Free-running position behind the last record.";
}

/// Offset in BAR0 of the registers of address space 0.
pub const ADDRESS_SPACE_BASE: u32 = 0x8000;
/// Bytes from one address space's registers to the next one's.
pub const ADDRESS_SPACE_STRIDE: u32 = 0x20;

register_map! {
    /// The registers of one address space, by offset from the start of its block.
    ADDRESS_SPACE_REGISTERS:
    /// A register of an address space.
    AddressSpaceRegister:
    ADDRESS_SPACE_ROOT / Root @ 0x00, 8, ReadWrite, "The root table ([`super::mmu::PageTableEntry`]). Written while disabled.";
    ADDRESS_SPACE_CONTROL / Control @ 0x08, 4, ReadWrite, "Requests to the address space ([`super::mmu::AddressSpaceControl`]).";
}

/// Offset in BAR0 of a register of an address space; `None` if there can be no such address space.
pub const fn address_space_register(asid: u32, register: Register) -> Option<u32> {
    if asid < super::mmu::ADDRESS_SPACES {
        Some(ADDRESS_SPACE_BASE + asid * ADDRESS_SPACE_STRIDE + register.offset)
    } else {
        None
    }
}

/// Offset in BAR0 of counter 0; counter *n* ([`super::counter::Counter`]) is the read-only 64-bit register 8 *n* on.
pub const COUNTER_BASE: u32 = 0x4000;

/// Offset in BAR0 of channel 0's doorbell page.
pub const DOORBELL_BASE: u32 = 0x1_0000;
/// Bytes from one doorbell page to the next: a page, so that each can be mapped by itself.
pub const DOORBELL_STRIDE: u32 = 0x1000;
/// A doorbell is the first this many bytes of its page, written whole.
pub const DOORBELL_WIDTH: u32 = 4;

/// Offset in BAR0 of a register in a channel's block; `None` if there can be no such channel.
pub const fn channel_register(channel: u32, register: Register) -> Option<u32> {
    if channel < MAX_CHANNELS {
        Some(CHANNEL_BASE + channel * CHANNEL_STRIDE + register.offset)
    } else {
        None
    }
}

/// Offset in BAR0 of a channel's doorbell; `None` if there can be no such channel.
pub const fn doorbell(channel: u32) -> Option<u32> {
    if channel < MAX_CHANNELS {
        Some(DOORBELL_BASE + channel * DOORBELL_STRIDE)
    } else {
        None
    }
}

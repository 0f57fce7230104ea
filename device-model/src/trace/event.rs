// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device reports: one variant a kind, with the fields that kind has. Those about virtual memory are in
//! [`MmuEvent`], those about faults and hot regions in [`NotificationEvent`].

mod mmu;
mod notification;

use ersatz_abi::command::{Cause, Location, Opcode};
use ersatz_abi::error::ErrorCode;

use super::kind::{InterruptOutcome, Kind, ResetSource};
pub use mmu::MmuEvent;
pub use notification::NotificationEvent;

/// One event. Addresses and lengths are in bytes; a bare address is a bus address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The device came into being.
    DeviceCreated {
        /// Size of VRAM.
        vram: u64,
    },
    /// The device went away in good order.
    DeviceDropped,
    /// The device was reset: all channels are disabled, bus mastering is off (but for [`ResetSource::Register`]).
    Reset {
        /// By what.
        source: ResetSource,
    },
    /// The device gained or lost the leave to do DMA: by the bus master bit, or by entering or leaving D0.
    BusMaster {
        /// Whether the device may do DMA now.
        enabled: bool,
    },
    /// The power state changed.
    PowerState {
        /// 0 for D0 to 3 for D3hot.
        state: u8,
    },
    /// A BAR decodes at another address, or stopped.
    BarMoved {
        /// Index of the BAR.
        bar: u8,
        /// Guest physical address; `None` while decoding is off.
        address: Option<u64>,
        /// Size of the BAR.
        size: u64,
    },
    /// A register was written that changes what the device does.
    RegisterWrite {
        /// Offset in BAR0.
        offset: u32,
        /// What was written.
        value: u64,
        /// The channel whose register it is.
        channel: Option<u8>,
    },
    /// An access that makes no sense to the device.
    BadAccess {
        /// Index of the BAR.
        bar: u8,
        /// Offset in it.
        offset: u64,
        /// Width of the access.
        width: u64,
        /// Whether it was a write.
        write: bool,
    },
    /// The driver wrote the MARK register.
    Mark {
        /// What it wrote.
        value: u64,
    },
    /// A channel began to accept commands.
    ChannelEnabled {
        /// The channel.
        channel: u8,
        /// Address of its ring.
        ring: u64,
        /// Address of its control block.
        control_block: u64,
        /// Length of the ring in commands.
        commands: u64,
        /// Its MSI-X vector.
        vector: u16,
    },
    /// A channel stopped accepting commands; the one under way still ends.
    ChannelDisabled {
        /// The channel.
        channel: u8,
    },
    /// A channel forgot its commands and its error, and is disabled.
    ChannelReset {
        /// The channel.
        channel: u8,
    },
    /// A channel met what it cannot execute, and stopped.
    ChannelError {
        /// The channel.
        channel: u8,
        /// What is wrong.
        error: ErrorCode,
        /// Ring position of the command.
        position: u32,
        /// List entry, if the command got that far; else 0.
        entry: u32,
        /// The address that was refused.
        address: u64,
    },
    /// A doorbell was seen.
    Doorbell {
        /// Whose.
        channel: u8,
        /// How often it was rung since it was seen last.
        rings: u64,
    },
    /// A command was fetched and understood.
    CommandStart {
        /// The channel.
        channel: u8,
        /// The engine that executes it.
        engine: u8,
        /// Ring position.
        position: u32,
        /// What it does.
        opcode: Opcode,
        /// Why.
        cause: Cause,
        /// Entries of its list; bytes of an invalidation; bytes, steps or updates of a kernel.
        count: u64,
        /// Address of the list; virtual address of an invalidation, or of a kernel's first operand.
        address: u64,
        /// The fence value it is to signal.
        fence: Option<u64>,
        /// Whether it asks for an interrupt.
        interrupt: bool,
        /// The driver's number for it.
        tag: u64,
    },
    /// A command ended: completed, or failed with an error.
    CommandEnd {
        /// The channel.
        channel: u8,
        /// The engine that executed it.
        engine: u8,
        /// Ring position.
        position: u32,
        /// What it did.
        opcode: Opcode,
        /// Why.
        cause: Cause,
        /// [`ErrorCode::None`] if it completed.
        error: ErrorCode,
        /// Bytes it moved, filled or read.
        bytes: u64,
        /// The driver's number for it.
        tag: u64,
    },
    /// One list entry was copied.
    Copy {
        /// The channel.
        channel: u8,
        /// The engine.
        engine: u8,
        /// Why.
        cause: Cause,
        /// From where.
        source: Location,
        /// To where.
        destination: Location,
        /// How much.
        length: u64,
        /// By custom the virtual address of the page.
        tag: u64,
    },
    /// One list entry was filled.
    Fill {
        /// The channel.
        channel: u8,
        /// The engine.
        engine: u8,
        /// Why.
        cause: Cause,
        /// Where.
        destination: Location,
        /// How much.
        length: u64,
        /// With what.
        pattern: u64,
        /// By custom the virtual address of the page.
        tag: u64,
    },
    /// One list entry was read for its digest.
    Digest {
        /// The channel.
        channel: u8,
        /// The engine.
        engine: u8,
        /// Why.
        cause: Cause,
        /// What was read.
        source: Location,
        /// Where the digest was written.
        destination: Location,
        /// How much was read.
        length: u64,
        /// The digest.
        digest: u32,
        /// By custom the virtual address of the page.
        tag: u64,
    },
    /// A fence value was written.
    Fence {
        /// The channel.
        channel: u8,
        /// The engine.
        engine: u8,
        /// The value.
        value: u64,
        /// Where it was written.
        address: u64,
    },
    /// An interrupt was raised, or a pending one released.
    Interrupt {
        /// MSI-X vector.
        vector: u16,
        /// The channel it is for; `None` for device errors and where it is not known any more.
        channel: Option<u8>,
        /// What became of it.
        outcome: InterruptOutcome,
    },
    /// Memory was mapped for the device's DMA (by a transport that says so).
    DmaMap {
        /// First address.
        address: u64,
        /// How much.
        length: u64,
        /// Whether the device may write it.
        writable: bool,
    },
    /// Memory was taken from the device: no access of it is under way or will begin.
    DmaUnmap {
        /// First address.
        address: u64,
        /// How much.
        length: u64,
    },
    /// Something about virtual memory.
    Mmu(MmuEvent),
    /// Something about faults or hot regions.
    Notification(NotificationEvent),
}

impl Event {
    /// The kind of this event.
    #[inline]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::DeviceCreated { .. } => Kind::DeviceCreated,
            Self::DeviceDropped => Kind::DeviceDropped,
            Self::Reset { .. } => Kind::Reset,
            Self::BusMaster { .. } => Kind::BusMaster,
            Self::PowerState { .. } => Kind::PowerState,
            Self::BarMoved { .. } => Kind::BarMoved,
            Self::RegisterWrite { .. } => Kind::RegisterWrite,
            Self::BadAccess { .. } => Kind::BadAccess,
            Self::Mark { .. } => Kind::Mark,
            Self::ChannelEnabled { .. } => Kind::ChannelEnabled,
            Self::ChannelDisabled { .. } => Kind::ChannelDisabled,
            Self::ChannelReset { .. } => Kind::ChannelReset,
            Self::ChannelError { .. } => Kind::ChannelError,
            Self::Doorbell { .. } => Kind::Doorbell,
            Self::CommandStart { .. } => Kind::CommandStart,
            Self::CommandEnd { .. } => Kind::CommandEnd,
            Self::Copy { .. } => Kind::Copy,
            Self::Fill { .. } => Kind::Fill,
            Self::Digest { .. } => Kind::Digest,
            Self::Fence { .. } => Kind::Fence,
            Self::Interrupt { .. } => Kind::Interrupt,
            Self::DmaMap { .. } => Kind::DmaMap,
            Self::DmaUnmap { .. } => Kind::DmaUnmap,
            Self::Mmu(event) => event.kind(),
            Self::Notification(event) => event.kind(),
        }
    }

    /// The channel this event is about.
    pub const fn channel(&self) -> Option<u8> {
        match *self {
            Self::ChannelEnabled { channel, .. }
            | Self::ChannelDisabled { channel }
            | Self::ChannelReset { channel }
            | Self::ChannelError { channel, .. }
            | Self::Doorbell { channel, .. }
            | Self::CommandStart { channel, .. }
            | Self::CommandEnd { channel, .. }
            | Self::Copy { channel, .. }
            | Self::Fill { channel, .. }
            | Self::Digest { channel, .. }
            | Self::Fence { channel, .. } => Some(channel),
            Self::RegisterWrite { channel, .. } | Self::Interrupt { channel, .. } => channel,
            Self::Mmu(event) => event.channel(),
            Self::Notification(event) => event.channel(),
            Self::DeviceCreated { .. }
            | Self::DeviceDropped
            | Self::Reset { .. }
            | Self::BusMaster { .. }
            | Self::PowerState { .. }
            | Self::BarMoved { .. }
            | Self::BadAccess { .. }
            | Self::Mark { .. }
            | Self::DmaMap { .. }
            | Self::DmaUnmap { .. } => None,
        }
    }
    /// The address space this event is about.
    pub const fn asid(&self) -> Option<u8> {
        match self {
            Self::Mmu(event) => event.asid(),
            Self::Notification(event) => event.asid(),
            _ => None,
        }
    }
}

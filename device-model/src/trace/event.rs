// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device reports: one variant a kind, with the fields that kind has, and their places in a record.

use ersatz_abi::command::{Aperture, Cause, Location, Opcode};
use ersatz_abi::error::ErrorCode;

use super::kind::{InterruptOutcome, Kind, ResetSource};
use super::record::{Fields, NONE};

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
        /// Entries of its list.
        count: u32,
        /// Address of the list.
        list: u64,
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
}

/// Flag of kinds that have one yes-or-no: `BusMaster`, `BarMoved` (decodes), `BadAccess` (write), `DmaMap` (writable).
const FLAG: u8 = 1;
/// Flag of `CommandStart`: there is a fence value.
const FLAG_FENCE: u8 = 1;
/// Flag of `CommandStart`: an interrupt is asked for.
const FLAG_INTERRUPT: u8 = 2;

const fn apertures(source: Aperture, destination: Aperture) -> u8 {
    source as u8 | ((destination as u8) << 4)
}

fn decode_apertures(detail: u8) -> Option<(Aperture, Aperture)> {
    Some((Aperture::from_raw(detail & 0xf)?, Aperture::from_raw(detail >> 4)?))
}

fn optional_channel(raw: u8) -> Option<u8> {
    (raw != NONE).then_some(raw)
}

impl Event {
    /// The kind of this event.
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

    /// The fields of the record that stands for this event (the device number is the writer's to fill in).
    pub fn to_fields(&self) -> Fields {
        let base = Fields::new(self.kind());
        match *self {
            Self::DeviceCreated { vram } => Fields { length: vram, ..base },
            Self::DeviceDropped => base,
            Self::Reset { source } => Fields { detail: source as u8, ..base },
            Self::BusMaster { enabled } => Fields { flags: u8::from(enabled) * FLAG, ..base },
            Self::PowerState { state } => Fields { detail: state, ..base },
            Self::BarMoved { bar, address, size } => Fields {
                detail: bar,
                flags: u8::from(address.is_some()) * FLAG,
                address: address.unwrap_or(0),
                length: size,
                ..base
            },
            Self::RegisterWrite { offset, value, channel } => {
                Fields { channel: channel.unwrap_or(NONE), address: offset.into(), id: value, ..base }
            }
            Self::BadAccess { bar, offset, width, write } => {
                Fields { detail: bar, flags: u8::from(write) * FLAG, address: offset, length: width, ..base }
            }
            Self::Mark { value } => Fields { id: value, ..base },
            Self::ChannelEnabled { channel, ring, control_block, commands, vector } => {
                Fields { channel, address: ring, second: control_block, length: commands, id: vector.into(), ..base }
            }
            Self::ChannelDisabled { channel } | Self::ChannelReset { channel } => Fields { channel, ..base },
            Self::Doorbell { channel, rings } => Fields { channel, length: rings, ..base },
            Self::ChannelError { channel, error, position, entry, address } => {
                Fields { channel, status: error as u8, address, length: entry.into(), id: position.into(), ..base }
            }
            Self::CommandStart { channel, engine, position, opcode, cause, count, list, fence, interrupt, tag } => {
                Fields {
                    detail: opcode as u8,
                    flags: (u8::from(fence.is_some()) * FLAG_FENCE) | (u8::from(interrupt) * FLAG_INTERRUPT),
                    cause: cause as u8,
                    channel,
                    engine,
                    address: list,
                    second: position.into(),
                    length: count.into(),
                    id: fence.unwrap_or(0),
                    tag,
                    ..base
                }
            }
            Self::CommandEnd { channel, engine, position, opcode, cause, error, bytes, tag } => Fields {
                detail: opcode as u8,
                cause: cause as u8,
                status: error as u8,
                channel,
                engine,
                second: position.into(),
                length: bytes,
                tag,
                ..base
            },
            Self::Copy { channel, engine, cause, source, destination, length, tag } => Fields {
                detail: apertures(source.aperture, destination.aperture),
                cause: cause as u8,
                channel,
                engine,
                address: source.address,
                second: destination.address,
                length,
                tag,
                ..base
            },
            Self::Fill { channel, engine, cause, destination, length, pattern, tag } => Fields {
                detail: apertures(destination.aperture, destination.aperture),
                cause: cause as u8,
                channel,
                engine,
                second: destination.address,
                length,
                id: pattern,
                tag,
                ..base
            },
            Self::Digest { channel, engine, cause, source, destination, length, digest, tag } => Fields {
                detail: apertures(source.aperture, destination.aperture),
                cause: cause as u8,
                channel,
                engine,
                address: source.address,
                second: destination.address,
                length,
                id: digest.into(),
                tag,
                ..base
            },
            Self::Fence { channel, engine, value, address } => Fields { channel, engine, address, id: value, ..base },
            Self::Interrupt { vector, channel, outcome } => {
                Fields { detail: outcome as u8, channel: channel.unwrap_or(NONE), id: vector.into(), ..base }
            }
            Self::DmaMap { address, length, writable } => {
                Fields { flags: u8::from(writable) * FLAG, address, length, ..base }
            }
            Self::DmaUnmap { address, length } => Fields { address, length, ..base },
        }
    }

    /// The event that these fields stand for; `None` if a number in them is unknown or too large for its place.
    pub fn from_fields(fields: &Fields) -> Option<Self> {
        let Fields { channel, engine, address, length, id, tag, .. } = *fields;
        let flag = fields.flags & FLAG != 0;
        Some(match Kind::from_raw(fields.kind)? {
            Kind::DeviceCreated => Self::DeviceCreated { vram: length },
            Kind::DeviceDropped => Self::DeviceDropped,
            Kind::Reset => Self::Reset { source: ResetSource::from_raw(fields.detail)? },
            Kind::BusMaster => Self::BusMaster { enabled: flag },
            Kind::PowerState => Self::PowerState { state: fields.detail },
            Kind::BarMoved => Self::BarMoved { bar: fields.detail, address: flag.then_some(address), size: length },
            Kind::RegisterWrite => {
                Self::RegisterWrite { offset: address.try_into().ok()?, value: id, channel: optional_channel(channel) }
            }
            Kind::BadAccess => Self::BadAccess { bar: fields.detail, offset: address, width: length, write: flag },
            Kind::Mark => Self::Mark { value: id },
            Kind::ChannelEnabled => Self::ChannelEnabled {
                channel,
                ring: address,
                control_block: fields.second,
                commands: length,
                vector: id.try_into().ok()?,
            },
            Kind::ChannelDisabled => Self::ChannelDisabled { channel },
            Kind::ChannelReset => Self::ChannelReset { channel },
            Kind::ChannelError => Self::ChannelError {
                channel,
                error: ErrorCode::from_raw(fields.status)?,
                position: id.try_into().ok()?,
                entry: length.try_into().ok()?,
                address,
            },
            Kind::Doorbell => Self::Doorbell { channel, rings: length },
            Kind::CommandStart => Self::CommandStart {
                channel,
                engine,
                position: fields.second.try_into().ok()?,
                opcode: Opcode::from_raw(fields.detail)?,
                cause: Cause::from_raw(fields.cause)?,
                count: length.try_into().ok()?,
                list: address,
                fence: (fields.flags & FLAG_FENCE != 0).then_some(id),
                interrupt: fields.flags & FLAG_INTERRUPT != 0,
                tag,
            },
            Kind::CommandEnd => Self::CommandEnd {
                channel,
                engine,
                position: fields.second.try_into().ok()?,
                opcode: Opcode::from_raw(fields.detail)?,
                cause: Cause::from_raw(fields.cause)?,
                error: ErrorCode::from_raw(fields.status)?,
                bytes: length,
                tag,
            },
            Kind::Copy => {
                let (source, destination) = decode_apertures(fields.detail)?;
                Self::Copy {
                    channel,
                    engine,
                    cause: Cause::from_raw(fields.cause)?,
                    source: Location { aperture: source, address },
                    destination: Location { aperture: destination, address: fields.second },
                    length,
                    tag,
                }
            }
            Kind::Fill => {
                let (_, destination) = decode_apertures(fields.detail)?;
                Self::Fill {
                    channel,
                    engine,
                    cause: Cause::from_raw(fields.cause)?,
                    destination: Location { aperture: destination, address: fields.second },
                    length,
                    pattern: id,
                    tag,
                }
            }
            Kind::Digest => {
                let (source, destination) = decode_apertures(fields.detail)?;
                Self::Digest {
                    channel,
                    engine,
                    cause: Cause::from_raw(fields.cause)?,
                    source: Location { aperture: source, address },
                    destination: Location { aperture: destination, address: fields.second },
                    length,
                    digest: id.try_into().ok()?,
                    tag,
                }
            }
            Kind::Fence => Self::Fence { channel, engine, value: id, address },
            Kind::Interrupt => Self::Interrupt {
                vector: id.try_into().ok()?,
                channel: optional_channel(channel),
                outcome: InterruptOutcome::from_raw(fields.detail)?,
            },
            Kind::DmaMap => Self::DmaMap { address, length, writable: flag },
            Kind::DmaUnmap => Self::DmaUnmap { address, length },
        })
    }
}

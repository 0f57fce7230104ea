// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which field of an event stands where in a record.

mod mmu;
mod notification;
#[cfg(test)]
mod tests;

use ersatz_abi::command::{Aperture, Cause, Location, Opcode};
use ersatz_abi::error::ErrorCode;

use super::event::{Event, MmuEvent, NotificationEvent};
use super::kind::{InterruptOutcome, Kind, ResetSource};
use super::record::{Fields, NONE};

/// Flag of kinds that have one yes-or-no: `BusMaster`, `BarMoved` (decodes), `BadAccess` (write), `DmaMap` (writable).
const FLAG: u8 = 1;
/// Flag of `CommandStart`: there is a fence value.
const FLAG_FENCE: u8 = 1;
/// Flag of `CommandStart`: an interrupt is asked for.
const FLAG_INTERRUPT: u8 = 2;

/// `detail` and `flags` of a kind with two places: apertures and peers, those of the source in the low half.
#[inline]
const fn places(source: Location, destination: Location) -> (u8, u8) {
    (source.aperture as u8 | ((destination.aperture as u8) << 4), (source.peer & 0xf) | (destination.peer << 4))
}

/// The two places of an event.
fn decode_places(fields: &Fields) -> Option<(Location, Location)> {
    let place = |aperture, peer, address| Some(Location { aperture: Aperture::from_raw(aperture)?, peer, address });
    Some((
        place(fields.detail & 0xf, fields.flags & 0xf, fields.address)?,
        place(fields.detail >> 4, fields.flags >> 4, fields.second)?,
    ))
}

fn optional_channel(raw: u8) -> Option<u8> {
    (raw != NONE).then_some(raw)
}

impl Event {
    /// The fields of the record that stands for this event (the device number is the writer's to fill in).
    #[inline]
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
            Self::CommandStart { channel, engine, position, opcode, cause, count, address, fence, interrupt, tag } => {
                Fields {
                    detail: opcode as u8,
                    flags: (u8::from(fence.is_some()) * FLAG_FENCE) | (u8::from(interrupt) * FLAG_INTERRUPT),
                    cause: cause as u8,
                    channel,
                    engine,
                    address,
                    second: position.into(),
                    length: count,
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
            Self::Copy { channel, engine, cause, source, destination, length, tag } => {
                let (detail, flags) = places(source, destination);
                Fields {
                    detail,
                    flags,
                    cause: cause as u8,
                    channel,
                    engine,
                    address: source.address,
                    second: destination.address,
                    length,
                    tag,
                    ..base
                }
            }
            Self::Fill { channel, engine, cause, destination, length, pattern, tag } => {
                let (detail, flags) = places(destination, destination);
                Fields {
                    detail,
                    flags,
                    cause: cause as u8,
                    channel,
                    engine,
                    second: destination.address,
                    length,
                    id: pattern,
                    tag,
                    ..base
                }
            }
            Self::Digest { channel, engine, cause, source, destination, length, digest, tag } => {
                let (detail, flags) = places(source, destination);
                Fields {
                    detail,
                    flags,
                    cause: cause as u8,
                    channel,
                    engine,
                    address: source.address,
                    second: destination.address,
                    length,
                    id: digest.into(),
                    tag,
                    ..base
                }
            }
            Self::Fence { channel, engine, value, address } => Fields { channel, engine, address, id: value, ..base },
            Self::Interrupt { vector, channel, outcome } => {
                Fields { detail: outcome as u8, channel: channel.unwrap_or(NONE), id: vector.into(), ..base }
            }
            Self::DmaMap { address, length, writable } => {
                Fields { flags: u8::from(writable) * FLAG, address, length, ..base }
            }
            Self::DmaUnmap { address, length } => Fields { address, length, ..base },
            Self::Mmu(event) => event.to_fields(),
            Self::Notification(event) => event.to_fields(),
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
                count: length,
                address,
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
                let (source, destination) = decode_places(fields)?;
                Self::Copy { channel, engine, cause: Cause::from_raw(fields.cause)?, source, destination, length, tag }
            }
            Kind::Fill => {
                let (_, destination) = decode_places(fields)?;
                Self::Fill {
                    channel,
                    engine,
                    cause: Cause::from_raw(fields.cause)?,
                    destination,
                    length,
                    pattern: id,
                    tag,
                }
            }
            Kind::Digest => {
                let (source, destination) = decode_places(fields)?;
                Self::Digest {
                    channel,
                    engine,
                    cause: Cause::from_raw(fields.cause)?,
                    source,
                    destination,
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
            kind @ (Kind::AddressSpaceEnabled
            | Kind::AddressSpaceDisabled
            | Kind::Translation
            | Kind::Access
            | Kind::InvalidateRequested
            | Kind::InvalidateAcknowledged) => Self::Mmu(MmuEvent::from_fields(kind, fields)?),
            kind @ (Kind::FaultRecorded
            | Kind::FaultLost
            | Kind::Replay
            | Kind::FaultCancelled
            | Kind::HotRegion
            | Kind::HotRegionLost) => Self::Notification(NotificationEvent::from_fields(kind, fields)?),
        })
    }
}

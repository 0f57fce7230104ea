// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The records of events about virtual memory. The tag is the address space.

use ersatz_abi::command::{Aperture, Location};
use ersatz_abi::fault::AccessKind;
use ersatz_abi::mmu::{InvalidateTarget, Invalidation, PageSize};

use super::optional_channel;
use crate::trace::event::MmuEvent;
use crate::trace::kind::Kind;
use crate::trace::record::{Fields, NONE};

/// Flag of `Translation`: may be written. The upper half of the flags is the peer.
const FLAG_WRITE: u8 = 1;
/// Flag of `Translation`: may be the target of atomics.
const FLAG_ATOMIC: u8 = 2;

impl MmuEvent {
    pub(super) fn to_fields(self) -> Fields {
        let base = Fields::new(self.kind());
        match self {
            Self::AddressSpaceEnabled { asid, root, control } => {
                Fields { address: root, id: control.into(), tag: asid.into(), ..base }
            }
            Self::AddressSpaceDisabled { asid } => Fields { tag: asid.into(), ..base },
            Self::Translation { engine, asid, address, page, size, write, atomic } => Fields {
                detail: page.aperture as u8 | ((size as u8) << 4),
                flags: (u8::from(write) * FLAG_WRITE) | (u8::from(atomic) * FLAG_ATOMIC) | (page.peer << 4),
                engine,
                address,
                second: page.address,
                length: size.bytes(),
                tag: asid.into(),
                ..base
            },
            Self::Access { channel, engine, asid, kind, address, location, length } => Fields {
                detail: location.aperture as u8 | ((kind as u8) << 4),
                flags: location.peer << 4,
                channel,
                engine,
                address,
                second: location.address,
                length,
                tag: asid.into(),
                ..base
            },
            Self::InvalidateRequested { number, invalidation, channel } => {
                let (target, address, length) = invalidation.encode();
                Fields { channel: channel.unwrap_or(NONE), address, second: target.0, length, id: number, ..base }
            }
            Self::InvalidateAcknowledged { number } => Fields { id: number, ..base },
        }
    }

    pub(super) fn from_fields(kind: Kind, fields: &Fields) -> Option<Self> {
        let Fields { channel, engine, address, length, id, .. } = *fields;
        let place = || {
            let aperture = Aperture::from_raw(fields.detail & 0xf)?;
            Some(Location { aperture, peer: fields.flags >> 4, address: fields.second })
        };
        let asid = || u8::try_from(fields.tag).ok();
        Some(match kind {
            Kind::AddressSpaceEnabled => {
                Self::AddressSpaceEnabled { asid: asid()?, root: address, control: id.try_into().ok()? }
            }
            Kind::AddressSpaceDisabled => Self::AddressSpaceDisabled { asid: asid()? },
            Kind::Translation => Self::Translation {
                engine,
                asid: asid()?,
                address,
                page: place()?,
                size: PageSize::from_raw(fields.detail >> 4).filter(|size| size.bytes() == length)?,
                write: fields.flags & FLAG_WRITE != 0,
                atomic: fields.flags & FLAG_ATOMIC != 0,
            },
            Kind::Access => Self::Access {
                channel,
                engine,
                asid: asid()?,
                kind: AccessKind::from_raw(fields.detail >> 4)?,
                address,
                location: place()?,
                length,
            },
            Kind::InvalidateRequested => Self::InvalidateRequested {
                number: id,
                invalidation: Invalidation::decode(InvalidateTarget(fields.second), address, length)?,
                channel: optional_channel(channel),
            },
            Kind::InvalidateAcknowledged => Self::InvalidateAcknowledged { number: id },
            _ => return None,
        })
    }
}

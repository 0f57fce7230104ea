// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The records of events about faults and hot regions. The tag is the address space.

use ersatz_abi::access_counter::AccessRecord;
use ersatz_abi::command::Aperture;
use ersatz_abi::fault::{AccessKind, FaultKind, FaultRecord};

use crate::trace::event::NotificationEvent;
use crate::trace::kind::{Kind, Loss};
use crate::trace::record::Fields;

fn fault(base: Fields, record: FaultRecord) -> Fields {
    Fields {
        detail: record.access as u8 | ((record.kind as u8) << 4),
        flags: record.level,
        channel: record.channel,
        engine: record.engine,
        address: record.address,
        second: record.timestamp,
        id: record.number,
        tag: record.asid.into(),
        ..base
    }
}

fn decode_fault(fields: &Fields) -> Option<FaultRecord> {
    Some(FaultRecord {
        address: fields.address,
        asid: fields.tag.try_into().ok()?,
        channel: fields.channel,
        engine: fields.engine,
        access: AccessKind::from_raw(fields.detail & 0xf)?,
        kind: FaultKind::from_raw(fields.detail >> 4)?,
        level: fields.flags,
        timestamp: fields.second,
        number: fields.id,
    })
}

/// The count stands where the number of a fault does: the length is the position for both.
fn hot_region(base: Fields, record: AccessRecord) -> Fields {
    Fields {
        detail: record.aperture as u8,
        channel: record.channel,
        engine: record.engine,
        address: record.region,
        second: record.timestamp,
        id: record.count,
        tag: record.asid.into(),
        ..base
    }
}

fn decode_hot_region(fields: &Fields) -> Option<AccessRecord> {
    Some(AccessRecord {
        region: fields.address,
        asid: fields.tag.try_into().ok()?,
        channel: fields.channel,
        engine: fields.engine,
        aperture: Aperture::from_raw(fields.detail)?,
        timestamp: fields.second,
        count: fields.id,
    })
}

impl NotificationEvent {
    pub(super) fn to_fields(self) -> Fields {
        let base = Fields::new(self.kind());
        match self {
            Self::FaultRecorded { record, position } => Fields { length: position.into(), ..fault(base, record) },
            Self::FaultLost { record, loss } => Fields { status: loss as u8, ..fault(base, record) },
            Self::Replay { channels } => Fields { id: channels, ..base },
            Self::FaultCancelled { channel } => Fields { channel, ..base },
            Self::HotRegion { record, position } => Fields { length: position.into(), ..hot_region(base, record) },
            Self::HotRegionLost { record, loss } => Fields { status: loss as u8, ..hot_region(base, record) },
        }
    }

    pub(super) fn from_fields(kind: Kind, fields: &Fields) -> Option<Self> {
        let position = || u32::try_from(fields.length).ok();
        let loss = || Loss::from_raw(fields.status);
        Some(match kind {
            Kind::FaultRecorded => Self::FaultRecorded { record: decode_fault(fields)?, position: position()? },
            Kind::FaultLost => Self::FaultLost { record: decode_fault(fields)?, loss: loss()? },
            Kind::Replay => Self::Replay { channels: fields.id },
            Kind::FaultCancelled => Self::FaultCancelled { channel: fields.channel },
            Kind::HotRegion => Self::HotRegion { record: decode_hot_region(fields)?, position: position()? },
            Kind::HotRegionLost => Self::HotRegionLost { record: decode_hot_region(fields)?, loss: loss()? },
            _ => return None,
        })
    }
}

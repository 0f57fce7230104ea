// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device reports of its two notification rings: faults and what was done about them, and hot regions.

use ersatz_abi::access_counter::AccessRecord;
use ersatz_abi::fault::FaultRecord;

use super::Event;
use crate::trace::kind::{Kind, Loss};

/// One event of a notification ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotificationEvent {
    /// A fault is in the fault buffer.
    FaultRecorded {
        /// Its record.
        record: FaultRecord,
        /// Position in the ring.
        position: u32,
    },
    /// A fault is not in the fault buffer. Unless it is a prefetch fault, its channel waits all the same.
    FaultLost {
        /// The record that was not written.
        record: FaultRecord,
        /// Why.
        loss: Loss,
    },
    /// The driver asked for a replay: these channels try again.
    Replay {
        /// One bit a channel.
        channels: u64,
    },
    /// The driver cancelled the fault that a channel waited at.
    FaultCancelled {
        /// The channel.
        channel: u8,
    },
    /// A hot region is in the access counters' ring.
    HotRegion {
        /// Its record.
        record: AccessRecord,
        /// Position in the ring.
        position: u32,
    },
    /// A hot region is not in the access counters' ring.
    HotRegionLost {
        /// The record that was not written.
        record: AccessRecord,
        /// Why.
        loss: Loss,
    },
}

impl NotificationEvent {
    /// The kind of this event.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::FaultRecorded { .. } => Kind::FaultRecorded,
            Self::FaultLost { .. } => Kind::FaultLost,
            Self::Replay { .. } => Kind::Replay,
            Self::FaultCancelled { .. } => Kind::FaultCancelled,
            Self::HotRegion { .. } => Kind::HotRegion,
            Self::HotRegionLost { .. } => Kind::HotRegionLost,
        }
    }

    /// The channel this event is about.
    pub const fn channel(&self) -> Option<u8> {
        match *self {
            Self::FaultRecorded { record, .. } | Self::FaultLost { record, .. } => Some(record.channel),
            Self::HotRegion { record, .. } | Self::HotRegionLost { record, .. } => Some(record.channel),
            Self::FaultCancelled { channel } => Some(channel),
            Self::Replay { .. } => None,
        }
    }

    /// The address space this event is about.
    pub const fn asid(&self) -> Option<u8> {
        match *self {
            Self::FaultRecorded { record, .. } | Self::FaultLost { record, .. } => Some(record.asid),
            Self::HotRegion { record, .. } | Self::HotRegionLost { record, .. } => Some(record.asid),
            Self::FaultCancelled { .. } | Self::Replay { .. } => None,
        }
    }
}

impl From<NotificationEvent> for Event {
    fn from(event: NotificationEvent) -> Self {
        Self::Notification(event)
    }
}

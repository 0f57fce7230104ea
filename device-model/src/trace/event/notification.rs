// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table of events of the two notification rings: faults and their answers, and access notifications.

use ersatz_abi::access_counter::AccessRecord;
use ersatz_abi::fault::FaultRecord;

use super::place::*;
use super::value;
use crate::trace::enumeration::Loss;
use crate::trace::range::Range;

events! {
    /// One event of a notification ring.
    pub enum NotificationEvent {
        /// A fault was written to the fault buffer.
        FaultRecorded = 80, "fault-recorded" {
            /// Its record.
            record: FaultRecord => FAULT_RECORD, shown value::fault(record), about [Range::point(record.address)];
            /// Position in the ring.
            position: u32 => LENGTH, "record-position": number;
        }
        /// A fault was not written to the fault buffer. Unless it is a prefetch fault, its channel waits all the same.
        FaultDropped = 81, "fault-dropped" {
            /// Why.
            loss: Loss => STATUS, "loss": name;
            /// The record that was not written.
            record: FaultRecord => FAULT_RECORD, shown value::fault(record), about [Range::point(record.address)];
        }
        /// The driver requested a replay: these channels try again.
        Replay = 82, "replay" {
            /// One bit per channel.
            channels: u64 => ID, "channels": address;
        }
        /// The driver cancelled the fault that a channel waited for.
        FaultCancelled = 83, "fault-cancelled" {
            /// The channel.
            channel: u8 => CHANNEL;
            /// The virtual address that it waited at.
            address: u64 => ADDRESS, "address": address, covers 1;
            /// Ring position of its command.
            position: u32 => ID, "position": number;
        }
        /// An access notification was written to the access counters' ring: a region is hot. The event is found by the region's first
        /// address: the log does not have the size of regions.
        AccessNotification = 84, "access-notification" {
            /// Its record.
            record: AccessRecord => ACCESS_RECORD, shown value::access_record(record), about [Range::point(record.region)];
            /// Position in the ring.
            position: u32 => LENGTH, "record-position": number;
        }
        /// An access notification was not written to the access counters' ring.
        AccessNotificationDropped = 85, "access-notification-dropped" {
            /// Why.
            loss: Loss => STATUS, "loss": name;
            /// The record that was not written.
            record: AccessRecord => ACCESS_RECORD, shown value::access_record(record), about [Range::point(record.region)];
        }
    }
}

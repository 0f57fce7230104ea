// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The rule of faults: the driver answers every one of which it was told.
//!
//! An answer is a replay that the channel took part in, a cancellation, a reset, or whatever else let the channel's
//! command end. Prefetch faults need none, and of a lost fault the driver does not know.

use std::collections::BTreeMap;

use ersatz_abi::fault::AccessKind;

use super::{Rule, Site};
use crate::trace::event::{Event, NotificationEvent};

/// The faults of a channel that have no answer yet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// The record of the first.
    sequence: u64,
    /// Its number.
    number: u64,
    /// Its virtual address.
    address: u64,
    /// How many there are.
    faults: u64,
}

/// What the log has told of faults.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// By channel.
    waiting: BTreeMap<u8, Waiting>,
}

impl Faults {
    /// Looks at an event.
    pub(super) fn look(&mut self, event: &Event, site: &mut Site<'_>) {
        match *event {
            Event::Notification(NotificationEvent::FaultRecorded { record, .. })
                if record.access != AccessKind::Prefetch =>
            {
                let (sequence, number, address) = (site.sequence, record.number, record.address);
                let first = Waiting { sequence, number, address, faults: 0 };
                self.waiting.entry(record.channel).or_insert(first).faults += 1;
            }
            Event::Notification(NotificationEvent::Replay { channels }) => {
                self.waiting
                    .retain(|channel, _| channels.checked_shr((*channel).into()).is_none_or(|bit| bit & 1 == 0));
            }
            Event::Notification(NotificationEvent::FaultCancelled { channel })
            | Event::ChannelReset { channel }
            | Event::ChannelError { channel, .. }
            | Event::CommandEnd { channel, .. } => {
                self.waiting.remove(&channel);
            }
            Event::Reset { .. } => self.waiting.clear(),
            Event::DeviceDropped => {
                for (channel, Waiting { sequence, number, address, faults }) in std::mem::take(&mut self.waiting) {
                    let more = match faults {
                        1 => String::new(),
                        more => format!(", and {} more of that channel", more - 1),
                    };
                    site.report(
                        Rule::FaultAnswered,
                        format!(
                            "channel {channel}: fault {number} at {address:#x} (record {sequence}) was never replayed, \
                             cancelled or reset{more}"
                        ),
                    );
                }
            }
            _ => {}
        }
    }

    /// How many faults have no answer where the log ends.
    pub(super) fn unanswered(&self) -> u64 {
        self.waiting.values().map(|waiting| waiting.faults).sum()
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The rule of faults: the driver answers every fault that is reported to it.
//!
//! An answer is a replay that the channel took part in, a cancellation, a reset, or whatever else let the channel's
//! command end. Prefetch faults need none, and the driver does not see a lost fault.
//!
//! A driver may take its time, so an answer is missing only if the driver has left the device: it has taken bus mastering away,
//! as the unbinding of a driver does, and the log ends like that. If the device goes while its driver
//! works, as when a machine is switched off, faults without an answer are counted, like the commands under way, and break no rule.

use std::collections::{BTreeMap, BTreeSet};

use ersatz_abi::fault::AccessKind;

use super::{Rule, Site};
use crate::trace::enumeration::ResetSource;
use crate::trace::event::{Event, InjectionEvent, NotificationEvent};
use crate::trace::injection::ActionKind;

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

/// What the log says about faults.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// By channel.
    waiting: BTreeMap<u8, Waiting>,
    /// Channels that a rule has reported faults of at which they do not wait: their records do not say any more whether they do.
    made_up: BTreeSet<u8>,
    /// The device is bus master, or may be: its driver works.
    is_driven: bool,
}

impl Faults {
    /// Behind a hole in the log: a driver may be working.
    pub(super) fn unknown() -> Self {
        Self { is_driven: true, ..Self::default() }
    }

    /// Looks at an event.
    pub(super) fn look(&mut self, event: &Event, site: &mut Site<'_>) {
        match *event {
            Event::Notification(NotificationEvent::FaultRecorded { record, .. })
                if record.access != AccessKind::Prefetch && !self.made_up.contains(&record.channel) =>
            {
                let (sequence, number, address) = (site.sequence, record.number, record.address);
                let first = Waiting { sequence, number, address, faults: 0 };
                self.waiting.entry(record.channel).or_insert(first).faults += 1;
            }
            Event::Notification(NotificationEvent::Replay { channels }) => {
                self.waiting
                    .retain(|channel, _| channels.checked_shr((*channel).into()).is_none_or(|bit| bit & 1 == 0));
            }
            Event::Notification(NotificationEvent::FaultCancelled { channel, .. })
            | Event::ChannelReset { channel }
            | Event::ChannelError { channel, .. }
            | Event::CommandEnd { channel, .. } => {
                self.waiting.remove(&channel);
            }
            Event::Injection(InjectionEvent::RuleFired {
                action: ActionKind::Fault, channel: Some(channel), ..
            }) => {
                self.waiting.remove(&channel);
                self.made_up.insert(channel);
            }
            Event::BusMaster { enabled } => self.is_driven = enabled,
            Event::Reset { source } => {
                self.waiting.clear();
                // The register keeps config space, and with it the bus master bit.
                self.is_driven &= source == ResetSource::Register;
            }
            Event::DeviceDropped if !self.is_driven => {
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

    /// Returns the number of faults without an answer that break no rule.
    pub(super) fn unanswered(&self) -> u64 {
        self.waiting.values().map(|waiting| waiting.faults).sum()
    }
}

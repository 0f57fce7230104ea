// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a driver leaves the device, and whether it kept to the registers that there are. What is found here is a warning: a log does not
//! say whether a machine was switched off under its driver, or whether a bad access was a probe.

use std::collections::BTreeSet;

use super::{Rule, Site};
use crate::trace::enumeration::ResetSource;
use crate::trace::event::Event;

/// What the log says about the device's use so far.
#[derive(Debug, Default)]
pub(super) struct Leave {
    enabled: BTreeSet<u8>,
    is_master: bool,
    is_asleep: bool,
    bad_accesses: Option<BadAccesses>,
    is_gone: bool,
}

/// The bad accesses since the last reset.
#[derive(Debug)]
struct BadAccesses {
    count: u64,
    /// The first one: its record, and what it was.
    sequence: u64,
    first: String,
}

impl Leave {
    /// Looks at an event. `faults` is the number of faults that had no answer before it.
    pub(super) fn look(&mut self, event: &Event, faults: u64, site: &mut Site<'_>) {
        match *event {
            Event::ChannelEnabled { channel, .. } => {
                self.enabled.insert(channel);
            }
            Event::ChannelDisabled { channel }
            | Event::ChannelReset { channel }
            | Event::ChannelError { channel, .. } => {
                self.enabled.remove(&channel);
            }
            Event::PowerState { state } => self.is_asleep = state != 0,
            Event::BusMaster { enabled } => {
                self.is_master = enabled;
                if !enabled && !self.is_asleep {
                    self.warn_of_channels("bus mastering was switched off", site);
                }
            }
            Event::BadAccess { bar, offset, width, write } => {
                let verb = if write { "write" } else { "read" };
                let first = || format!("a {verb} of {width} bytes at {offset:#x} of BAR{bar}");
                let sequence = site.sequence;
                let seen = self.bad_accesses.get_or_insert_with(|| BadAccesses { count: 0, sequence, first: first() });
                seen.count += 1;
            }
            Event::Reset { source } => {
                // A reset by register is the way to leave.
                if source != ResetSource::Register {
                    self.warn_of_channels(&format!("the function was reset ({})", source.name()), site);
                }
                self.warn_of_faults("a reset came", faults, site);
                self.warn_of_bad_accesses(site);
                *self = Self { is_master: self.is_master && source == ResetSource::Register, ..Self::default() };
            }
            Event::DeviceDropped => {
                self.end("the device went away", faults, site);
                self.is_gone = true;
            }
            _ => {}
        }
    }

    /// The log ends.
    pub(super) fn finish(&mut self, faults: u64, site: &mut Site<'_>) {
        if !self.is_gone {
            self.end("the log ends", faults, site);
        }
    }

    fn end(&mut self, what: &str, faults: u64, site: &mut Site<'_>) {
        // One warning for both is enough.
        let only_masters = self.is_master && self.enabled.is_empty();
        self.warn_of_channels(what, site);
        if only_masters {
            site.warn(Rule::DriverLeaves, format!("{what} with bus mastering on"));
        }
        self.warn_of_faults(what, faults, site);
        self.warn_of_bad_accesses(site);
    }

    fn warn_of_channels(&mut self, what: &str, site: &mut Site<'_>) {
        let numbers: Vec<String> = std::mem::take(&mut self.enabled).iter().map(u8::to_string).collect();
        if !numbers.is_empty() {
            site.warn(Rule::DriverLeaves, format!("{what} with these channels enabled: {}", numbers.join(", ")));
        }
    }

    fn warn_of_faults(&self, what: &str, faults: u64, site: &mut Site<'_>) {
        if faults > 0 {
            site.warn(Rule::FaultAnswered, format!("{what} with {faults} faults without an answer"));
        }
    }

    fn warn_of_bad_accesses(&mut self, site: &mut Site<'_>) {
        if let Some(BadAccesses { count, sequence, first }) = self.bad_accesses.take() {
            let message = format!("{count} bad accesses to registers, first (record {sequence}) {first}");
            site.warn(Rule::BadAccess, message);
        }
    }
}

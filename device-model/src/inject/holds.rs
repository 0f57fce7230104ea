// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is held now.

use serde::Serialize;

use super::site::Site;
use crate::trace::Step;

/// Something that a breakpoint holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hold {
    /// The hold's own number.
    pub number: u64,
    /// The number of the breakpoint.
    pub breakpoint: u64,
    /// The name of the breakpoint.
    pub name: String,
    /// Where it holds.
    #[serde(serialize_with = "step_name")]
    pub step: Step,
    /// The channel that is held; `None` for the acknowledgement of an invalidation that a register requested.
    pub channel: Option<u8>,
    /// The engine of the channel.
    pub engine: Option<u8>,
    /// The address space.
    pub asid: Option<u8>,
    /// The address that the step is about.
    pub address: Option<u64>,
    /// When it began, in nanoseconds of the device's clock.
    pub since_ns: u64,
    /// When it ends at the latest, likewise.
    pub deadline_ns: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn step_name<S: serde::Serializer>(step: &Step, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(step.name())
}

/// A hold, and whether it has begun.
#[derive(Debug)]
struct Entry {
    hold: Hold,
    /// What is held is kept where it waits. Until then a hold is not shown, and cannot be resumed.
    has_begun: bool,
    /// How long it lasts at most, in nanoseconds.
    lasts_ns: u64,
}

/// All holds.
#[derive(Debug, Default)]
pub(super) struct Holds {
    entries: Vec<Entry>,
    /// Number of the last one.
    last: u64,
}

impl Holds {
    /// Adds a hold that has not begun; returns its number.
    pub(super) fn add(&mut self, (breakpoint, name): (u64, &str), site: &Site, lasts_ns: u64) -> u64 {
        self.last += 1;
        let hold = Hold {
            number: self.last,
            breakpoint,
            name: name.to_owned(),
            step: site.step,
            channel: site.subject.channel,
            engine: site.subject.engine,
            asid: site.subject.asid,
            address: site.address,
            since_ns: 0,
            deadline_ns: 0,
        };
        self.entries.push(Entry { hold, has_begun: false, lasts_ns });
        self.last
    }

    /// The number of a hold that is kept elsewhere.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// A hold begins; returns it.
    pub(super) fn begin(&mut self, number: u64, now: u64) -> Option<&Hold> {
        let entry = self.entries.iter_mut().find(|entry| entry.hold.number == number)?;
        entry.has_begun = true;
        entry.hold.since_ns = now;
        entry.hold.deadline_ns = now.saturating_add(entry.lasts_ns);
        Some(&entry.hold)
    }

    /// Removes the hold of this number that has begun.
    pub(super) fn end(&mut self, number: u64) -> Option<Hold> {
        let index = self.entries.iter().position(|entry| entry.has_begun && entry.hold.number == number)?;
        Some(self.entries.remove(index).hold)
    }

    /// Removes the holds that have begun and that `is_wanted` wants.
    pub(super) fn end_all(&mut self, is_wanted: impl Fn(&Hold) -> bool) -> Vec<Hold> {
        let is_ended = |entry: &Entry| entry.has_begun && is_wanted(&entry.hold);
        let (ended, left) = std::mem::take(&mut self.entries).into_iter().partition(is_ended);
        self.entries = left;
        ended.into_iter().map(|entry: Entry| entry.hold).collect()
    }

    /// Removes a hold that never began.
    pub(super) fn forget(&mut self, number: u64) {
        self.entries.retain(|entry| entry.hold.number != number);
    }

    /// Whether there is a hold of this number.
    pub(super) fn has(&self, number: u64) -> bool {
        self.entries.iter().any(|entry| entry.hold.number == number)
    }

    /// The holds that have begun, the oldest first.
    pub(super) fn begun(&self) -> impl Iterator<Item = &Hold> {
        self.entries.iter().filter(|entry| entry.has_begun).map(|entry| &entry.hold)
    }

    /// When the next of them ends by itself.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.begun().map(|hold| hold.deadline_ns).min()
    }
}

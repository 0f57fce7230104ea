// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device has to do outside of its own work, now or later.

use ersatz_abi::access_counter::AccessRecord;
use ersatz_abi::fault::FaultRecord;

use super::holds::Hold;
use super::memory::{MemoryDemand, MemoryLimit, MemoryReturn};
use crate::interrupt::InterruptCause;
use crate::notification::state::Claim;

/// Something for a thread of the device to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// What was held goes on.
    GoOn(Hold),
    /// An acknowledgement was late for long enough: the hold of this number, which was never shown, has ended.
    Acknowledge(u64),
    /// Raises an interrupt.
    Interrupt {
        /// MSI-X vector.
        vector: u16,
        /// Its cause, if it has one.
        cause: Option<InterruptCause>,
    },
    /// Writes the record of a fault, with a number and a time of its own.
    Record(FaultRecord),
    /// Writes the record of a fault that has its place in the fault buffer.
    Fill {
        /// The place.
        claim: Claim,
        /// The record.
        record: FaultRecord,
    },
    /// Writes the record of a hot region, with a time of its own.
    ReportHot(AccessRecord),
    /// Reports faults that no channel has.
    Faults {
        /// The record of the first, but for its number and its time.
        first: FaultRecord,
        /// The number of pages.
        count: u16,
    },
    /// Poisons pages of VRAM.
    Poison {
        /// The offset of the first.
        offset: u64,
        /// The number of pages.
        pages: u16,
    },
    /// Demands memory from the driver.
    DemandMemory(MemoryDemand),
    /// Returns memory to the driver.
    ReturnMemory(MemoryReturn),
    /// Limits the memory that the driver has: what is beyond is demanded, what is missing is returned.
    LimitMemory(MemoryLimit),
    /// The demand of this number has come to its deadline.
    ExpireDemand(u64),
    /// Resets the function.
    Reset,
    /// Takes the function away.
    Vanish,
}

impl Work {
    /// Whether a reset of the device leaves nothing of it.
    fn is_reset(&self) -> bool {
        matches!(
            self,
            Self::Acknowledge(_)
                | Self::Interrupt { .. }
                | Self::Record(_)
                | Self::Fill { .. }
                | Self::ReportHot(_)
                | Self::Faults { .. }
        )
    }

    /// Whether it is on behalf of this channel, whose reset leaves nothing of it.
    fn is_of(&self, channel: u8) -> bool {
        match self {
            Self::Interrupt { cause, .. } => cause.is_some_and(|cause| cause.channel() == Some(channel)),
            Self::Record(record) => record.channel == channel,
            // A place in the buffer is written to, and memory was accessed, whatever becomes of the channel.
            Self::Fill { .. }
            | Self::ReportHot(_)
            | Self::Faults { .. }
            | Self::GoOn(_)
            | Self::Acknowledge(_)
            | Self::Poison { .. }
            | Self::DemandMemory(_)
            | Self::ReturnMemory(_)
            | Self::LimitMemory(_)
            | Self::ExpireDemand(_)
            | Self::Reset
            | Self::Vanish => false,
        }
    }
}

/// What comes one after the other, so that something of it can be overtaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Interrupts.
    Interrupts,
    /// Records of faults.
    Faults,
    /// Records of hot regions.
    HotRegions,
}

/// Something to do.
#[derive(Debug)]
struct Item {
    /// When, in nanoseconds; at the latest, if it is overtaken.
    time: u64,
    /// What it comes behind.
    behind: Option<Stream>,
    work: Work,
}

/// What is to be done, by the times at which it is.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    items: Vec<Item>,
    /// How often the device was reset.
    pub(super) resets: u64,
}

impl Agenda {
    /// Adds something to do at this time, in nanoseconds; behind what is to be done at the same time.
    pub(super) fn add(&mut self, time: u64, work: Work) {
        self.items.push(Item { time, behind: None, work });
    }

    /// As [`Self::add`]; earlier, once something of a stream has come.
    pub(super) fn add_overtaken(&mut self, stream: Stream, time: u64, work: Work) {
        self.items.push(Item { time, behind: Some(stream), work });
    }

    /// Something of a stream has come: what comes behind it is to be done now. Returns whether anything is left that comes behind another.
    pub(super) fn overtake(&mut self, stream: Stream, now: u64) -> bool {
        for item in self.items.iter_mut().filter(|item| item.behind == Some(stream)) {
            item.behind = None;
            item.time = item.time.min(now);
        }
        self.items.iter().any(|item| item.behind.is_some())
    }

    /// When there is something to do.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.items.iter().map(|item| item.time).min()
    }

    /// Takes out what is to be done by now, in the order of the times.
    pub(super) fn take(&mut self, now: u64) -> Vec<Work> {
        // The sort is stable.
        self.items.sort_by_key(|item| item.time);
        let due = self.items.partition_point(|item| item.time <= now);
        self.items.drain(..due).map(|item| item.work).collect()
    }

    /// Takes out what is not to be done.
    pub(super) fn call_off(&mut self, work: &Work) {
        self.items.retain(|item| item.work != *work);
    }

    /// The device was reset.
    pub(super) fn reset(&mut self) {
        self.items.retain(|item| !item.work.is_reset());
        self.resets = self.resets.wrapping_add(1);
    }

    /// A channel was reset.
    pub(super) fn reset_channel(&mut self, channel: u8) {
        self.items.retain(|item| !item.work.is_of(channel));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_in_the_order_of_its_times_and_a_reset_drops_it() {
        let interrupt = |vector| Work::Interrupt { vector, cause: Some(InterruptCause::CommandComplete(vector as u8)) };
        let mut agenda = Agenda::default();
        for (time, vector) in [(5, 1), (3, 2), (5, 3), (9, 4), (9, 5)] {
            agenda.add(time, interrupt(vector));
        }
        agenda.add(9, Work::Reset);
        assert_eq!((agenda.deadline(), agenda.take(2)), (Some(3), vec![]));
        assert_eq!(agenda.take(5), [2, 1, 3].map(interrupt));
        agenda.reset_channel(4);
        assert_eq!(agenda.take(9), [interrupt(5), Work::Reset]);
        agenda.add(9, interrupt(6));
        agenda.add(9, Work::Vanish);
        agenda.reset();
        assert_eq!((agenda.take(9), agenda.resets, agenda.deadline()), (vec![Work::Vanish], 1, None));
    }

    #[test]
    fn what_is_overtaken_comes_behind_the_next_of_its_stream_or_at_its_time() {
        let mut agenda = Agenda::default();
        agenda.add_overtaken(Stream::Faults, 9, Work::Reset);
        agenda.add_overtaken(Stream::Interrupts, 7, Work::Vanish);
        assert_eq!((agenda.take(5), agenda.overtake(Stream::HotRegions, 5)), (vec![], true));
        assert_eq!((agenda.overtake(Stream::Faults, 5), agenda.take(5)), (true, vec![Work::Reset]));
        assert_eq!((agenda.take(7), agenda.overtake(Stream::Interrupts, 8)), (vec![Work::Vanish], false));
    }
}

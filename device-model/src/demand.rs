// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Demands for memory: what the host wants back of VRAM, one after the other.
//!
//! One demand at a time is made of the driver. It ends when the driver answers it or its deadline passes, and the next one is made then.

use std::collections::VecDeque;
use std::ops::Range;

/// Most demands that wait for the one before them to end; those beyond are not made.
pub(crate) const MAX_WAITING: usize = 256;

/// What the host wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// As many pages of a range as these, besides those that are handed over.
    More {
        /// Pages of VRAM; those that do not exist are left out.
        within: Range<u64>,
        /// The number of pages.
        pages: u64,
    },
    /// The driver is to keep no more than this many pages.
    Limit(u64),
}

/// A demand that was made of the driver, and waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Counted from 1.
    pub(crate) number: u64,
    /// The pages of VRAM in which memory is demanded.
    pub(crate) within: Range<u64>,
    /// How many pages of those are.
    pub(crate) pages: u64,
    /// How many were handed over since.
    pub(crate) given: u64,
    /// When it was made, in nanoseconds of the device's clock.
    pub(crate) since: u64,
    /// When it ends without an answer, likewise.
    pub(crate) deadline: u64,
}

impl Demand {
    /// How many pages are still to be handed over.
    pub(crate) fn left(&self) -> u64 {
        self.pages.saturating_sub(self.given)
    }
}

/// The demands of a device.
#[derive(Debug, Default)]
pub(crate) struct Demands {
    /// The one that the driver is to answer.
    pub(crate) current: Option<Demand>,
    /// What is wanted once that has ended, each with how long the driver has for an answer.
    waiting: VecDeque<(Want, u64)>,
    /// The number of the last one that was made.
    last: u64,
    /// How many were answered.
    pub(crate) answered: u64,
    /// How many had no answer by their deadlines.
    pub(crate) expired: u64,
}

impl Demands {
    /// Adds what the host wants; the driver has `lasts` nanoseconds for its answer. Returns whether there was room for it.
    pub(crate) fn add(&mut self, want: Want, lasts: u64) -> bool {
        let has_room = self.waiting.len() < MAX_WAITING;
        if has_room {
            self.waiting.push_back((want, lasts));
        }
        has_room
    }

    /// Takes what is wanted next, if no demand is made of the driver.
    pub(crate) fn take_next(&mut self) -> Option<(Want, u64)> {
        if self.current.is_some() { None } else { self.waiting.pop_front() }
    }

    /// Makes a demand of the driver, now and for `lasts` nanoseconds.
    pub(crate) fn make(&mut self, within: Range<u64>, pages: u64, now: u64, lasts: u64) -> &Demand {
        self.last += 1;
        let (number, deadline) = (self.last, now.saturating_add(lasts));
        self.current.insert(Demand { number, within, pages, given: 0, since: now, deadline })
    }

    /// Ends the demand of this number, if that is the one of now.
    pub(crate) fn end(&mut self, number: u64) -> Option<Demand> {
        self.current.take_if(|demand| demand.number == number)
    }

    /// Whether a demand of this number was ever made.
    pub(crate) fn has_made(&self, number: u64) -> bool {
        (1..=self.last).contains(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_made_at_a_time() {
        let mut demands = Demands::default();
        assert!(demands.add(Want::Limit(1), 5) && demands.add(Want::More { within: 0..9, pages: 4 }, 6));
        assert_eq!(demands.take_next(), Some((Want::Limit(1), 5)));
        assert_eq!(demands.make(0..9, 8, 100, 5).deadline, 105);
        assert_eq!(
            (demands.take_next(), demands.end(2), demands.has_made(1), demands.has_made(2)),
            (None, None, true, false)
        );
        assert_eq!(demands.end(1).map(|demand| demand.left()), Some(8));
        assert_eq!(demands.take_next(), Some((Want::More { within: 0..9, pages: 4 }, 6)));
        assert_eq!(demands.make(0..9, 4, u64::MAX, 6).number, 2);
    }

    #[test]
    fn no_more_wait_than_promised() {
        let mut demands = Demands::default();
        let added = (0..MAX_WAITING as u64 + 3).filter(|pages| demands.add(Want::Limit(*pages), 0)).count();
        assert_eq!(added, MAX_WAITING);
    }
}

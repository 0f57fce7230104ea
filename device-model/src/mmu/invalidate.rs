// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Invalidations: requested without waiting, carried out by a thread, acknowledged by number.
//!
//! [`serve`] carries out all that was asked for since the last time. For each engine it takes the lock under which that engine
//! translates *and* accesses, so what it has passed neither uses an old translation nor will. Only when it has passed
//! all engines are the numbers acknowledged, and then not before a delay, if one is set, is over.

use std::collections::VecDeque;
use std::mem;
use std::ops::RangeInclusive;

use ersatz_abi::mmu::Invalidation;

use super::tlb::Tlb;
use crate::sync::Lock;

/// Invalidations that may be pending. Beyond that, all of them become a single one of everything, which is more than was asked
/// for, and never wrong.
const CAPACITY: usize = 64;

/// What was asked for, and how much of it is done. Numbers count from 1.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pending: Vec<Invalidation>,
    requested: u64,
    acknowledged: u64,
    /// One of those pending is a command's.
    awaited: bool,
    /// Carried out and not acknowledged, each with the time at which it is; in the order of their numbers.
    unacknowledged: VecDeque<(Batch, u64)>,
    /// Acknowledgements that are held, in the order of their numbers.
    held: VecDeque<Held>,
    /// How long acknowledgements are held back, in nanoseconds.
    pub(super) delay: u64,
    /// How often this was reset.
    generation: u64,
    /// The thread that serves them is to end.
    pub(super) leaving: bool,
}

/// Invalidations to carry out.
#[derive(Debug)]
struct Batch {
    invalidations: Vec<Invalidation>,
    /// Number of the last one.
    last: u64,
    awaited: bool,
    generation: u64,
}

/// An acknowledgement that waits for the end of a hold.
#[derive(Debug)]
struct Held {
    /// Number of the invalidation.
    number: u64,
    /// Number of the hold.
    hold: u64,
    state: HoldState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HoldState {
    /// The invalidation is not carried out yet, or one before it is not acknowledged.
    Ahead,
    /// Nothing but the hold is in the way of the acknowledgement, from now on.
    Reached,
    /// The hold has begun.
    Begun,
}

/// What is acknowledged at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Done {
    /// The numbers.
    pub(super) numbers: RangeInclusive<u64>,
    /// A command waits for one of them.
    pub(super) awaited: bool,
}

impl Requests {
    /// Adds an invalidation; `awaited` if a command waits for it. Returns its number.
    pub(super) fn add(&mut self, invalidation: Invalidation, awaited: bool) -> u64 {
        let covered = self.pending.last() == Some(&Invalidation::All);
        if invalidation == Invalidation::All || self.pending.len() >= CAPACITY {
            self.pending.clear();
            self.pending.push(Invalidation::All);
        } else if !covered {
            self.pending.push(invalidation);
        }
        self.awaited |= awaited;
        self.requested += 1;
        self.requested
    }

    /// Whether there is something to carry out or to acknowledge now.
    pub(super) fn is_due(&self, now: u64) -> bool {
        !self.pending.is_empty() || self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// When there is something to acknowledge.
    pub(super) fn deadline(&self) -> Option<u64> {
        let is_held = self.held.front().is_some_and(|held| held.state != HoldState::Ahead);
        self.unacknowledged.front().filter(|_| !is_held).map(|(_, deadline)| *deadline)
    }

    /// The acknowledgement of the last invalidation waits for the end of a hold.
    pub(super) fn hold(&mut self, number: u64, hold: u64) {
        self.held.push_back(Held { number, hold, state: HoldState::Ahead });
    }

    /// Calls `begin` for a hold that is all that is in the way of an acknowledgement now.
    pub(super) fn begin_holds(&mut self, begin: impl FnOnce(u64)) {
        if let Some(held) = self.held.front_mut().filter(|held| held.state == HoldState::Reached) {
            held.state = HoldState::Begun;
            begin(held.hold);
        }
    }

    /// A hold has ended.
    pub(super) fn release(&mut self, hold: u64) {
        self.held.retain(|held| held.hold != hold);
    }

    /// All invalidations up to this number are complete.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Forgets everything; what is being carried out is not acknowledged. Calls `drop_hold` for each hold.
    pub(super) fn reset(&mut self, drop_hold: impl FnMut(u64)) {
        self.held.iter().map(|held| held.hold).for_each(drop_hold);
        let generation = self.generation.wrapping_add(1);
        *self = Self { generation, leaving: self.leaving, delay: self.delay, ..Self::default() };
    }

    fn take(&mut self) -> Option<Batch> {
        if self.pending.is_empty() {
            return None;
        }
        let (invalidations, awaited) = (mem::take(&mut self.pending), mem::take(&mut self.awaited));
        Some(Batch { invalidations, last: self.requested, awaited, generation: self.generation })
    }

    /// Schedules the acknowledgement of a batch that was carried out, unless there was a reset.
    fn carried_out(&mut self, batch: Batch, now: u64) {
        if batch.generation == self.generation {
            self.unacknowledged.push_back((batch, now.saturating_add(self.delay)));
        }
    }

    /// Acknowledges what is due.
    fn acknowledge(&mut self, now: u64, announce: impl FnOnce(&Done)) -> Option<Done> {
        let (mut last, mut awaited) = (self.acknowledged, false);
        while self.deadline().is_some_and(|deadline| deadline <= now)
            && let Some((batch, _)) = self.unacknowledged.front()
        {
            awaited |= batch.awaited;
            // Those before one that is held are not.
            if let Some(held) = self.held.front_mut().filter(|held| held.number <= batch.last) {
                held.state = HoldState::Reached;
                last = held.number - 1;
                break;
            }
            last = batch.last;
            self.unacknowledged.pop_front();
        }
        if last == self.acknowledged {
            return None;
        }
        let done = Done { numbers: self.acknowledged + 1..=last, awaited };
        announce(&done);
        self.acknowledged = last;
        Some(done)
    }
}

/// Carries out what is pending and acknowledges what is due. Calls `announce` with what it acknowledges, before another thread
/// can see that, and returns the same; `None` if there was nothing to acknowledge, or a reset came in between.
pub(super) fn serve<T: Lock<Tlb>>(
    requests: &impl Lock<Requests>,
    tlbs: &[T],
    now: u64,
    announce: impl FnOnce(&Done),
) -> Option<Done> {
    let batch = requests.with(Requests::take);
    if let Some(batch) = &batch {
        for tlb in tlbs {
            tlb.with(|tlb| batch.invalidations.iter().for_each(|invalidation| tlb.forget(invalidation)));
        }
    }
    requests.with(|requests| {
        if let Some(batch) = batch {
            requests.carried_out(batch, now);
        }
        requests.acknowledge(now, announce)
    })
}

#[cfg(test)]
mod tests;

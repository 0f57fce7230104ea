// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Invalidations: asked for without waiting, carried out by a thread, acknowledged by number.
//!
//! [`serve`] carries out all that was asked for since the last time. For each engine it takes the lock under which that engine
//! translates *and* accesses, so what it has passed neither uses an old translation nor will. Only when it has passed
//! all engines are the numbers acknowledged.

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
    /// How often this was reset.
    generation: u64,
    /// Nobody is to wait for more.
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

/// What is acknowledged at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Done {
    /// The numbers.
    pub(super) numbers: RangeInclusive<u64>,
    /// A command waits for one of them.
    pub(super) awaited: bool,
}

impl Requests {
    /// Adds an invalidation, for which a command waits or nobody does; returns its number.
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

    /// Whether there is nothing to carry out.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// All invalidations up to this number are complete.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Forgets everything; what is being carried out is not acknowledged.
    pub(super) fn reset(&mut self) {
        let generation = self.generation.wrapping_add(1);
        *self = Self { generation, leaving: self.leaving, ..Self::default() };
    }

    fn take(&mut self) -> Option<Batch> {
        if self.pending.is_empty() {
            return None;
        }
        let (invalidations, awaited) = (mem::take(&mut self.pending), mem::take(&mut self.awaited));
        Some(Batch { invalidations, last: self.requested, awaited, generation: self.generation })
    }

    /// Acknowledges a batch, unless there was a reset.
    fn complete(&mut self, batch: &Batch, announce: impl FnOnce(&Done)) -> Option<Done> {
        if batch.generation != self.generation {
            return None;
        }
        let done = Done { numbers: self.acknowledged + 1..=batch.last, awaited: batch.awaited };
        announce(&done);
        self.acknowledged = batch.last;
        Some(done)
    }
}

/// Carries out what is pending. Calls `announce` with what it acknowledges, before anybody can see that, and returns the same;
/// `None` if there was nothing to do, or a reset came in between.
pub(super) fn serve<T: Lock<Tlb>>(
    requests: &impl Lock<Requests>,
    tlbs: &[T],
    announce: impl FnOnce(&Done),
) -> Option<Done> {
    let batch = requests.with(Requests::take)?;
    for tlb in tlbs {
        tlb.with(|tlb| batch.invalidations.iter().for_each(|invalidation| tlb.forget(invalidation)));
    }
    requests.with(|requests| requests.complete(&batch, announce))
}

#[cfg(test)]
mod tests;

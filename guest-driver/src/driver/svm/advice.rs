// SPDX-License-Identifier: GPL-2.0
//! Where a process wants its memory to be.

use crate::uapi::Advice;
use core::{cmp, ops::Range};
use kernel::prelude::*;

/// Whether the device is to have mappings of memory with some advice, wherever that is, before it accesses it.
pub(crate) fn is_lasting(advice: Advice) -> bool {
    matches!(advice, Advice::AccessedBy | Advice::ReadMostly)
}

/// Most ranges with advice of an address space.
const MAX_RANGES: usize = 1024;

/// A range, and the advice for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advised {
    /// The addresses.
    pub(crate) range: Range<usize>,
    /// Where they are wanted.
    pub(crate) advice: Advice,
}

/// The ranges of an address space with other advice than [`Advice::None`], in order, none of which overlap.
pub(crate) struct Advices(KVec<Advised>);

impl Advices {
    /// No advice.
    pub(crate) const fn new() -> Self {
        Self(KVec::new())
    }

    /// Gives a range other advice than it had.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENOSPC` if there were more than [`MAX_RANGES`] ranges then. Nothing changes.
    pub(crate) fn set(&mut self, range: Range<usize>, advice: Advice) -> Result {
        let mut ranges = KVec::with_capacity(self.0.len() + 2, GFP_KERNEL)?;
        for old in self.before(range.start) {
            append(&mut ranges, old)?;
        }
        append(&mut ranges, Advised { range: range.clone(), advice })?;
        for old in self.behind(range.end) {
            append(&mut ranges, old)?;
        }
        if ranges.len() > MAX_RANGES {
            return Err(ENOSPC);
        }
        self.0 = ranges;
        Ok(())
    }

    fn before(&self, end: usize) -> impl Iterator<Item = Advised> + '_ {
        self.0
            .iter()
            .map(move |old| Advised { range: old.range.start..cmp::min(old.range.end, end), advice: old.advice })
    }

    fn behind(&self, start: usize) -> impl Iterator<Item = Advised> + '_ {
        self.0
            .iter()
            .map(move |old| Advised { range: cmp::max(old.range.start, start)..old.range.end, advice: old.advice })
    }

    /// The advice for an address, and the range around it that has the same.
    pub(crate) fn at(&self, address: usize) -> Advised {
        let mut free = 0..usize::MAX;
        for advised in self.0.iter() {
            if advised.range.contains(&address) {
                return advised.clone();
            }
            if advised.range.start > address {
                free.end = advised.range.start;
                break;
            }
            free.start = advised.range.end;
        }
        Advised { range: free, advice: Advice::None }
    }

    /// The first part of a range that has advice of some kind.
    pub(crate) fn first_in(&self, range: &Range<usize>, is_meant: impl Fn(Advice) -> bool) -> Option<Advised> {
        let overlap = |advised: &Advised| {
            let overlap = cmp::max(advised.range.start, range.start)..cmp::min(advised.range.end, range.end);
            let advice = advised.advice;
            (is_meant(advice) && !overlap.is_empty()).then_some(Advised { range: overlap, advice })
        };
        self.0.iter().find_map(overlap)
    }

    /// Whether any range has advice of some kind.
    pub(crate) fn has_any(&self, is_meant: impl Fn(Advice) -> bool) -> bool {
        self.0.iter().any(|advised| is_meant(advised.advice))
    }
}

/// Appends a range, unless it is empty or has no advice; it becomes part of the last one where that goes.
fn append(ranges: &mut KVec<Advised>, next: Advised) -> Result {
    if next.range.is_empty() || next.advice == Advice::None {
        return Ok(());
    }
    match ranges.last_mut() {
        Some(last) if last.advice == next.advice && last.range.end == next.range.start => {
            last.range.end = next.range.end
        }
        _ => ranges.push(next, GFP_KERNEL)?,
    }
    Ok(())
}

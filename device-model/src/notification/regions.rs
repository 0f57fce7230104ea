// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The counts of a bounded number of regions: a further one takes the place of the one that was accessed least recently.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use ersatz_abi::access_counter::MAX_COUNTED_REGIONS;

/// A region of an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Region {
    pub(super) asid: u8,
    /// First virtual address.
    pub(super) address: u64,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    count: u64,
    /// The threshold was reached since the count was zero.
    is_hot: bool,
    /// When it was accessed last: its key in `by_use`.
    used: u64,
}

/// The regions that are counted.
#[derive(Debug, Default)]
pub(super) struct Regions {
    counts: HashMap<Region, Count>,
    /// The least recently accessed region first.
    by_use: BTreeMap<u64, Region>,
    /// Accesses so far.
    now: u64,
}

impl Regions {
    /// Counts an access; what has been counted, if the region became hot by it.
    pub(super) fn add(&mut self, region: Region, amount: u64, threshold: u64) -> Option<u64> {
        self.now += 1;
        let used = self.now;
        if !self.counts.contains_key(&region) && self.counts.len() >= MAX_COUNTED_REGIONS {
            if let Some((_, least)) = self.by_use.pop_first() {
                self.counts.remove(&least);
            }
        }
        let count = match self.counts.entry(region) {
            Entry::Occupied(entry) => {
                let count = entry.into_mut();
                self.by_use.remove(&count.used);
                count.used = used;
                count
            }
            Entry::Vacant(entry) => entry.insert(Count { count: 0, is_hot: false, used }),
        };
        self.by_use.insert(used, region);
        count.count = count.count.saturating_add(amount);
        if count.is_hot || count.count < threshold {
            return None;
        }
        count.is_hot = true;
        Some(count.count)
    }

    /// Forgets a region: its count is zero again.
    pub(super) fn clear(&mut self, region: Region) {
        if let Some(count) = self.counts.remove(&region) {
            self.by_use.remove(&count.used);
        }
    }

    /// Forgets every region.
    pub(super) fn clear_all(&mut self) {
        self.counts.clear();
        self.by_use.clear();
    }
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The translation lookaside buffer of one engine.
//!
//! For each size of pages there is a set-associative cache, keyed by address space and page. It holds what a walk found until
//! an invalidation drops it, or its place is needed, whatever the page tables say meanwhile. What a walk did *not* find is never
//! held.

use ersatz_abi::mmu::{Invalidation, Page, PageSize};

use super::walk::Walked;

/// Translations that share a set.
pub const WAYS: usize = 4;

/// Number of sets for pages of a size: a power of two.
pub const fn sets(size: PageSize) -> usize {
    match size {
        PageSize::Small => 256,
        PageSize::Big | PageSize::Huge => 64,
    }
}

/// Which page of which address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    asid: u8,
    /// Its address divided by its size.
    page: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Set {
    ways: [Option<(Key, Walked)>; WAYS],
    /// The way that goes when all are taken.
    next: usize,
}

/// The cache for pages of one size.
#[derive(Debug)]
struct Cache {
    size: PageSize,
    sets: Box<[Set]>,
}

impl Cache {
    fn new(size: PageSize) -> Self {
        Self { size, sets: vec![Set::default(); sets(size)].into() }
    }

    /// The key of a page, and the set for it: neighbouring pages are in different ones, and so is the same page of
    /// neighbouring address spaces.
    fn place(&mut self, asid: u8, address: u64) -> (Key, &mut Set) {
        let page = address >> self.size.order();
        let index = (page ^ u64::from(asid)) % self.sets.len() as u64;
        (Key { asid, page }, &mut self.sets[index as usize])
    }

    fn find(&mut self, asid: u8, address: u64) -> Option<Walked> {
        let (key, set) = self.place(asid, address);
        set.ways.iter().flatten().find(|(held, _)| *held == key).map(|(_, walked)| *walked)
    }

    fn insert(&mut self, asid: u8, address: u64, walked: Walked) {
        let (key, set) = self.place(asid, address);
        let way = set.ways.iter().position(Option::is_none).unwrap_or_else(|| {
            let oldest = set.next;
            set.next = (set.next + 1) % WAYS;
            oldest
        });
        set.ways[way] = Some((key, walked));
    }

    fn remove(&mut self, asid: u8, address: u64) {
        let (key, set) = self.place(asid, address);
        for way in &mut set.ways {
            way.take_if(|(held, _)| *held == key);
        }
    }

    fn forget(&mut self, invalidation: &Invalidation) {
        let order = self.size.order();
        for way in self.sets.iter_mut().flat_map(|set| &mut set.ways) {
            way.take_if(|(key, _)| covers(invalidation, *key, order));
        }
    }
}

/// Whether an invalidation means a page of this size.
fn covers(invalidation: &Invalidation, key: Key, order: u32) -> bool {
    match *invalidation {
        Invalidation::All => true,
        Invalidation::AddressSpace(asid) => key.asid == asid,
        Invalidation::Range { asid, address, length } => {
            let last = address.saturating_add(length.saturating_sub(1));
            key.asid == asid && (address >> order..=last >> order).contains(&key.page)
        }
    }
}

/// The translations that one engine has cached.
#[derive(Debug)]
pub struct Tlb([Cache; PageSize::ALL.len()]);

impl Default for Tlb {
    fn default() -> Self {
        Self::new()
    }
}

impl Tlb {
    /// Empty.
    pub fn new() -> Self {
        Self([PageSize::Small, PageSize::Big, PageSize::Huge].map(Cache::new))
    }

    /// What is held for an address.
    pub fn find(&mut self, asid: u8, address: u64) -> Option<Walked> {
        self.0.iter_mut().find_map(|cache| cache.find(asid, address))
    }

    /// Holds what a walk found for an address, for which nothing is held now. If there is no room, an older translation goes.
    pub fn insert(&mut self, asid: u8, address: u64, walked: Walked) {
        self.0[walked.page.size as usize].insert(asid, address, walked);
    }

    /// Holds nothing for an address any more.
    pub fn remove(&mut self, asid: u8, address: u64) {
        for cache in &mut self.0 {
            cache.remove(asid, address);
        }
    }

    /// All that is held: the address spaces, the first addresses of the pages, and where they lead.
    pub fn entries(&self) -> impl Iterator<Item = (u8, u64, Page)> {
        self.0.iter().flat_map(|cache| {
            let held = cache.sets.iter().flat_map(|set| &set.ways).flatten();
            held.map(|(key, walked)| (key.asid, key.page << cache.size.order(), walked.page))
        })
    }

    /// Holds nothing any more of what an invalidation means: of a range, every page that has a byte in it.
    pub fn forget(&mut self, invalidation: &Invalidation) {
        for cache in &mut self.0 {
            cache.forget(invalidation);
        }
    }
}

#[cfg(test)]
mod tests;

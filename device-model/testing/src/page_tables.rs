// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Page tables as a driver keeps them: it knows where each table is, and writes entries through a function of the caller's.

use std::collections::BTreeMap;

use ersatz_abi::list::Location;
use ersatz_abi::mmu::{Page, PageSize, PageTableEntry, ROOT_LEVEL_48, ROOT_LEVEL_57, table_index};

/// The page tables of one address space.
pub struct PageTables<A> {
    root_level: u8,
    root: Location,
    /// By level, and by what all addresses have in common that go through the table.
    tables: BTreeMap<(u8, u64), Location>,
    allocate: A,
}

/// The level of the table that has the entries of a page.
pub fn leaf_level(size: PageSize) -> u8 {
    if size == PageSize::Huge { 1 } else { 0 }
}

impl<A: FnMut() -> Location> PageTables<A> {
    /// An empty root table. `allocate` gives a zeroed page for a table.
    pub fn new(five_levels: bool, mut allocate: A) -> Self {
        let root_level = if five_levels { ROOT_LEVEL_57 } else { ROOT_LEVEL_48 };
        Self { root_level, root: allocate(), tables: BTreeMap::new(), allocate }
    }

    /// What goes into the root register.
    pub fn root(&self) -> PageTableEntry {
        PageTableEntry::table(self.root)
    }

    /// Maps a page at a virtual address that is aligned to its size. What smaller pages are there are gone, and so is the
    /// larger one that they replace.
    pub fn map(&mut self, address: u64, page: Page, store: &mut impl FnMut(Location, u64)) {
        self.set(address, page.size, PageTableEntry::page(page), store);
    }

    /// Unmaps a page.
    pub fn unmap(&mut self, address: u64, size: PageSize, store: &mut impl FnMut(Location, u64)) {
        self.set(address, size, PageTableEntry(0), store);
    }

    /// Where the entries of a page are: sixteen for one of 64 KiB, one for each other; none if there is no table for them.
    pub fn entries(&self, address: u64, size: PageSize) -> Vec<Location> {
        let level = leaf_level(size);
        let Some(table) = self.table(level, address) else { return Vec::new() };
        let count = if size == PageSize::Big { 16 } else { 1 };
        (0..count).map(|number| entry(table, level, address + number * PageSize::Small.bytes())).collect()
    }

    /// The entries that a walk goes through, as far as there are tables, each with its level.
    pub fn path(&self, address: u64) -> Vec<(u8, Location)> {
        let levels = (0..=self.root_level).rev();
        levels.map_while(|level| Some((level, entry(self.table(level, address)?, level, address)))).collect()
    }

    fn set(&mut self, address: u64, size: PageSize, value: PageTableEntry, store: &mut impl FnMut(Location, u64)) {
        assert_eq!(address % size.bytes(), 0, "{address:#x} is no place for a page of {}", size.name());
        let level = leaf_level(size);
        self.make_table(level, address, store);
        for at in self.entries(address, size) {
            store(at, value.0);
        }
        if level > 0 {
            self.tables.remove(&(level - 1, prefix(address, level - 1)));
        }
    }

    fn table(&self, level: u8, address: u64) -> Option<Location> {
        if level == self.root_level {
            return Some(self.root);
        }
        self.tables.get(&(level, prefix(address, level))).copied()
    }

    fn make_table(&mut self, level: u8, address: u64, store: &mut impl FnMut(Location, u64)) -> Location {
        if let Some(table) = self.table(level, address) {
            return table;
        }
        let above = self.make_table(level + 1, address, store);
        let table = (self.allocate)();
        self.tables.insert((level, prefix(address, level)), table);
        store(entry(above, level + 1, address), PageTableEntry::table(table).0);
        table
    }
}

fn entry(table: Location, level: u8, address: u64) -> Location {
    Location { address: table.address + table_index(address, level) * 8, ..table }
}

/// What all addresses have in common that go through one table.
fn prefix(address: u64, level: u8) -> u64 {
    address >> (12 + 9 * (u32::from(level) + 1))
}

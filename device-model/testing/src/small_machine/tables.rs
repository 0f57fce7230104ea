// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Page tables of a small guest: four in a row, for the first 2 MiB of virtual addresses page by page, and for a page
//! of 2 MiB or two behind those.

use ersatz_abi::list::Location;
use ersatz_abi::mmu::{Page, PageSize, PageTableEntry, TABLE_BYTES};

use crate::small_machine::{Machine, PEER, RAM};

/// Where [`build`] puts them, the root first.
pub const TABLES: u64 = 0x8000;
/// Number of tables.
pub const LEVELS: u64 = 4;

/// An entry of a table, counted from the root.
pub fn entry(table: u64, index: u64) -> Location {
    Location::system(TABLES + table % LEVELS * TABLE_BYTES + index % 512 * 8)
}

/// The entry of a page that permits everything.
pub fn page(location: Location, size: PageSize) -> u64 {
    PageTableEntry::page(Page { location, size, write: true, atomic: true }).0
}

/// Writes the tables, and returns what goes into the root register. Of sixteen pages each, the upper half of RAM, VRAM,
/// and the peer's; then 64 KiB of VRAM in one; then nothing. At 2 MiB all of VRAM, at 4 MiB all of the peer's.
pub fn build(machine: &Machine) -> u64 {
    machine.store_words(TABLES, &[0; (LEVELS * TABLE_BYTES / 8) as usize]);
    for level in 0..LEVELS - 1 {
        let below = Location::system(TABLES + (level + 1) * TABLE_BYTES);
        machine.store(entry(level, 0), PageTableEntry::table(below).0);
    }
    for index in 0..16 {
        let offset = index * TABLE_BYTES;
        for (first, location) in
            [(0, Location::system(RAM / 2 + offset)), (16, Location::vram(offset)), (32, Location::peer(PEER, offset))]
        {
            machine.store(entry(3, first + index), page(location, PageSize::Small));
        }
        machine.store(entry(3, 48 + index), page(Location::vram(1 << 16), PageSize::Big));
    }
    machine.store(entry(2, 1), page(Location::vram(0), PageSize::Huge));
    machine.store(entry(2, 2), page(Location::peer(PEER, 0), PageSize::Huge));
    PageTableEntry::table(Location::system(TABLES)).0
}

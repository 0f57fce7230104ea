// SPDX-License-Identifier: GPL-2.0
//! The device's page tables of an address space of 48 bits, in system memory, with the pages that they map.
//!
//! Pages are mapped singly. A table stays until its address space ends.

use crate::{
    abi::{
        location::{Aperture, Location},
        mmu::{table_index, Page, PageSize, PageTableEntry, TABLE_ENTRIES},
    },
    kernel_ext::{
        dma::MappedPage,
        shared_words::{dma_write_barrier, SharedWords},
    },
    zone_device::interval_notifier::Wanted,
};
use core::ops::Range;
use kernel::{
    device::{Bound, Device},
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    rbtree::{RBTree, RBTreeNode},
};

const ENTRIES: usize = TABLE_ENTRIES as usize;
/// Base-2 logarithms of what a table of level 0, 1 and 2 covers.
const SHIFTS: [u32; 3] = [21, 30, 39];
/// What a table of level 0 covers.
const LEAF_BYTES: usize = 1 << SHIFTS[0];

/// A table of level 0, and the pages of the system that it maps.
struct Leaf {
    table: SharedWords,
    pages: KVVec<Option<Held>>,
}

/// A page of the system that an entry maps.
struct Held {
    page: MappedPage,
    /// Whether no CPU may access it.
    is_exclusive: bool,
}

impl Leaf {
    fn entry(&self, index: usize) -> PageTableEntry {
        PageTableEntry(self.table.read(index).unwrap_or(0))
    }

    fn write(&self, index: usize, entry: PageTableEntry) {
        // The index is below the table's length.
        let _ = self.table.write(index, &[entry.0]);
    }
}

/// Tables for the way to an address.
pub(crate) struct SpareTables {
    leaf: Option<RBTreeNode<usize, Leaf>>,
    /// Of level 1 and of level 2.
    upper: [Option<RBTreeNode<usize, SharedWords>>; 2],
}

/// What to map at an address.
pub(crate) enum Target {
    /// A page of the system.
    System(MappedPage),
    /// A page of the system that no CPU may access.
    Exclusive(MappedPage),
    /// A page of the device: its offset in VRAM.
    Vram(u64),
}

/// The page tables.
pub(crate) struct PageTables {
    root: SharedWords,
    /// The tables of level 1 and of level 2, by address divided by what they cover.
    upper: [RBTree<usize, SharedWords>; 2],
    leaves: RBTree<usize, Leaf>,
}

/// Which table of a level an address goes through.
fn key(address: usize, level: usize) -> usize {
    SHIFTS.get(level).map_or(0, |shift| address >> shift)
}

impl PageTables {
    /// Maps nothing.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(dev: &Device<Bound>) -> Result<Self> {
        let root = SharedWords::zeroed(dev, ENTRIES)?;
        Ok(Self { root, upper: [RBTree::new(), RBTree::new()], leaves: RBTree::new() })
    }

    /// The entry for the root register.
    pub(crate) fn root(&self) -> PageTableEntry {
        PageTableEntry::table(Location::system(self.root.dma_address()))
    }

    /// Whether all tables on the way to an address are there.
    pub(crate) fn has_tables(&self, address: usize) -> bool {
        self.leaves.get(&key(address, 0)).is_some()
    }

    /// Allocates the tables on the way to an address.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn allocate(dev: &Device<Bound>, address: usize) -> Result<SpareTables> {
        let table = || SharedWords::zeroed(dev, ENTRIES);
        let mut pages = KVVec::with_capacity(ENTRIES, GFP_KERNEL)?;
        for _ in 0..ENTRIES {
            pages.push(None, GFP_KERNEL)?;
        }
        Ok(SpareTables {
            leaf: Some(RBTreeNode::new(key(address, 0), Leaf { table: table()?, pages }, GFP_KERNEL)?),
            upper: [
                Some(RBTreeNode::new(key(address, 1), table()?, GFP_KERNEL)?),
                Some(RBTreeNode::new(key(address, 2), table()?, GFP_KERNEL)?),
            ],
        })
    }

    /// Adds the tables on the way to `address` that are missing. What is left in `spare` is not needed, and to be freed where there are no
    /// locks.
    pub(crate) fn attach(&mut self, address: usize, spare: &mut SpareTables) -> Result {
        if self.has_tables(address) {
            // Another thread was quicker.
            return Ok(());
        }
        let [tables1, tables2] = &mut self.upper;
        let [spare1, spare2] = &mut spare.upper;
        insert_missing(tables2, key(address, 2), spare2);
        insert_missing(tables1, key(address, 1), spare1);
        insert_missing(&mut self.leaves, key(address, 0), &mut spare.leaf);
        let table2 = tables2.get(&key(address, 2)).ok_or(EINVAL)?;
        let table1 = tables1.get(&key(address, 1)).ok_or(EINVAL)?;
        let leaf = self.leaves.get(&key(address, 0)).ok_or(EINVAL)?;
        // From the pages up, each table cleared before an entry points to it.
        dma_write_barrier();
        link(table1, address, 1, &leaf.table)?;
        dma_write_barrier();
        link(table2, address, 2, table1)?;
        dma_write_barrier();
        link(&self.root, address, 3, table2)
    }

    /// Whether a page is mapped, and may be written if `write` says so.
    pub(crate) fn permits(&self, address: usize, write: bool) -> bool {
        self.entry(address).is_some_and(|entry| entry.valid() && (entry.write() || !write))
    }

    /// Whether all pages are mapped as they are wanted.
    pub(crate) fn permits_all(&self, wanted: &Wanted) -> bool {
        wanted.pages.clone().step_by(PAGE_SIZE).all(|page| self.permits(page, wanted.write))
    }

    /// Whether a page is mapped.
    pub(crate) fn is_mapped(&self, address: usize) -> bool {
        self.entry(address).is_some_and(|entry| entry.valid())
    }

    fn entry(&self, address: usize) -> Option<PageTableEntry> {
        let leaf = self.leaves.get(&key(address, 0))?;
        Some(leaf.entry(table_index(address as u64, 0) as usize))
    }

    /// Maps a page where none is mapped. The tables on the way must be there.
    ///
    /// # Errors
    ///
    /// `EINVAL` if they are not, or a page is.
    pub(crate) fn map(&mut self, address: usize, target: Target, write: bool) -> Result {
        let leaf = self.leaves.get_mut(&key(address, 0)).ok_or(EINVAL)?;
        let index = table_index(address as u64, 0) as usize;
        let slot = leaf.pages.get_mut(index).ok_or(EINVAL)?;
        if slot.is_some() {
            return Err(EINVAL);
        }
        let (location, held) = match target {
            Target::System(page) => (Location::system(page.address()), Some(Held { page, is_exclusive: false })),
            Target::Exclusive(page) => (Location::system(page.address()), Some(Held { page, is_exclusive: true })),
            Target::Vram(offset) => (Location::vram(offset), None),
        };
        *slot = held;
        leaf.write(index, PageTableEntry::page(Page { location, size: PageSize::Small, write, atomic: write }));
        Ok(())
    }

    /// Makes the entries of a range invalid. Returns the range between the first and the last that were valid.
    ///
    /// The pages are still recorded: [`PageTables::release`] is to follow when the device has forgotten its translations.
    pub(crate) fn clear(&mut self, range: Range<usize>) -> Option<Range<usize>> {
        let mut cleared: Option<Range<usize>> = None;
        self.for_each_leaf(range, |base, leaf, indices| {
            for index in indices {
                let entry = leaf.entry(index);
                if entry.valid() {
                    // The other bits mean nothing to the device now, and say to `release` what the entry was.
                    leaf.write(index, entry.with_valid(false));
                    let address = base + (index << PAGE_SHIFT);
                    let start = cleared.as_ref().map_or(address, |cleared| cleared.start);
                    cleared = Some(start..address + PAGE_SIZE);
                }
            }
        });
        cleared
    }

    /// Forgets the pages of entries that were cleared. Those of the system that the device may have written are marked as dirty.
    pub(crate) fn release(&mut self, range: Range<usize>) {
        self.for_each_leaf(range, |_, leaf, indices| {
            for index in indices {
                let entry = leaf.entry(index);
                if entry.0 == 0 || entry.valid() {
                    continue;
                }
                let held = leaf.pages.get_mut(index).and_then(Option::take);
                if let Some(held) = held.filter(|_| entry.write() && entry.raw_aperture() == Aperture::System as u64) {
                    held.page.mark_dirty();
                }
                leaf.write(index, PageTableEntry(0));
            }
        });
    }

    /// Whether a page of a range is mapped that no CPU may access.
    pub(crate) fn has_exclusive(&mut self, range: Range<usize>) -> bool {
        let mut any = false;
        self.for_each_leaf(range, |_, leaf, indices| {
            let held = leaf.pages.get(indices).unwrap_or_default();
            any = any || held.iter().flatten().any(|held| held.is_exclusive);
        });
        any
    }

    /// Whether an entry of a range is valid.
    pub(crate) fn maps_any(&mut self, range: Range<usize>) -> bool {
        let mut any = false;
        self.for_each_leaf(range, |_, leaf, mut indices| any = any || indices.any(|index| leaf.entry(index).valid()));
        any
    }

    /// Calls `visit` with the address where each table of level 0 begins, the table, and the indices of those of its entries that lie in a
    /// range.
    fn for_each_leaf(&mut self, range: Range<usize>, mut visit: impl FnMut(usize, &mut Leaf, Range<usize>)) {
        let mut cursor = self.leaves.cursor_lower_bound_mut(&key(range.start, 0));
        while let Some(mut current) = cursor {
            let (&key, leaf) = current.current_mut();
            let base = key << SHIFTS[0];
            if base >= range.end {
                break;
            }
            let first = range.start.saturating_sub(base) >> PAGE_SHIFT;
            let last = (range.end - base).min(LEAF_BYTES).div_ceil(PAGE_SIZE);
            visit(base, leaf, first..last);
            cursor = current.move_next();
        }
    }
}

/// Moves a node to a tree that has none of its key.
fn insert_missing<T>(tree: &mut RBTree<usize, T>, key: usize, spare: &mut Option<RBTreeNode<usize, T>>) {
    if tree.get(&key).is_none() {
        if let Some(node) = spare.take() {
            tree.insert(node);
        }
    }
}

/// Enters the table below in a table of `level`.
fn link(table: &SharedWords, address: usize, level: u8, below: &SharedWords) -> Result {
    let entry = PageTableEntry::table(Location::system(below.dma_address()));
    table.write(table_index(address as u64, level) as usize, &[entry.0])
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A walk through page tables: from a virtual address to the page, or to a fault.
//!
//! The tables are read as they are at the moment, while others change them. A walk that has to set an accessed or dirty bit
//! does so only in the very entry it read: if that has changed, it starts again at the root.

use ersatz_abi::fault::{AccessKind, FaultKind};
use ersatz_abi::list::{Aperture, Location};
use ersatz_abi::mmu::{Page, PageTableEntry, Step, TableError, address_bits, table_index};

use super::memory::TableMemory;
use super::space::AddressSpace;

/// Walks for one translation, when entries change under them, before that is a fault.
const ATTEMPTS: u32 = 16;

/// An access that the MMU refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// The virtual address.
    pub address: u64,
    /// What was to be done there.
    pub access: AccessKind,
    /// Why it is refused.
    pub kind: FaultKind,
    /// Level of the table whose entry ended the walk; one above the root table's if that is the root.
    pub level: u8,
}

/// What a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// The page.
    pub page: Page,
    /// The dirty bit is clear, and has to be set before this is written through.
    pub clean: bool,
}

/// The entry a walk came to.
struct Leaf {
    entry: PageTableEntry,
    at: Location,
    page: Page,
    level: u8,
}

/// Walks an enabled address space, sets the accessed and dirty bits if it asks for that, and returns the page.
///
/// # Errors
///
/// The fault.
pub fn walk(
    memory: &impl TableMemory,
    space: AddressSpace,
    address: u64,
    access: AccessKind,
) -> Result<Walked, PageFault> {
    let root_level = space.control.root_level();
    let refuse = |(kind, level)| Err(PageFault { address, access, kind, level });
    if address >> address_bits(root_level) != 0 {
        return refuse((FaultKind::BadAddress, root_level));
    }
    let track = space.control.track();
    let mut level = 0;
    for _ in 0..ATTEMPTS {
        let leaf = match descend(memory, space.root, root_level, address) {
            Ok(leaf) => leaf,
            Err(reason) => return refuse(reason),
        };
        let page = leaf.page;
        if let Some(kind) = denied(&page, access) {
            return refuse((kind, leaf.level));
        }
        if !track {
            return Ok(Walked { page, clean: false });
        }
        let dirty = leaf.entry.dirty() || modifies(access);
        let marked = leaf.entry.with_accessed(true).with_dirty(dirty);
        if marked == leaf.entry {
            return Ok(Walked { page, clean: !dirty });
        }
        match memory.compare_exchange_u64(leaf.at, leaf.entry.0, marked.0) {
            Some(Ok(_)) => return Ok(Walked { page, clean: !dirty }),
            Some(Err(_)) => level = leaf.level,
            None => return refuse((FaultKind::BadTable, leaf.level)),
        }
    }
    // A driver that keeps changing the entry gets the fault of an entry that is not there.
    refuse((FaultKind::NotPresent, level))
}

/// Goes from the root to the entry that maps the address. The error is what is wrong with the entry at a level.
fn descend(
    memory: &impl TableMemory,
    root: PageTableEntry,
    root_level: u8,
    address: u64,
) -> Result<Leaf, (FaultKind, u8)> {
    let (mut entry, mut level) = (root, root_level + 1);
    let mut at = None;
    loop {
        let fault = |kind| Err((kind, level));
        let table = match (entry.decode(level), at) {
            (Ok(Step::Table(table)), _) => table,
            (Ok(Step::Page(page)), Some(at)) => {
                if page.location.aperture == Aperture::Peer && !memory.has_peer(page.location.peer) {
                    return fault(FaultKind::BadAperture);
                }
                return Ok(Leaf { entry, at, page, level });
            }
            (Ok(Step::NotPresent), _) => return fault(FaultKind::NotPresent),
            (Err(TableError::Aperture), _) => return fault(FaultKind::BadAperture),
            (Err(TableError::Malformed) | Ok(Step::Page(_)), _) => return fault(FaultKind::BadTable),
        };
        // An entry of level 0 is never a table.
        let Some(below) = level.checked_sub(1) else { return fault(FaultKind::BadTable) };
        // A frame has 40 bits, so nothing overflows.
        let entry_at = Location { address: table.address + table_index(address, below) * 8, ..table };
        let Some(word) = memory.load_u64(entry_at) else { return fault(FaultKind::BadTable) };
        (entry, level, at) = (PageTableEntry(word), below, Some(entry_at));
    }
}

/// Whether an access changes memory.
pub(super) fn modifies(access: AccessKind) -> bool {
    matches!(access, AccessKind::Write | AccessKind::Atomic)
}

/// Why a page does not permit an access, if it does not.
pub(super) fn denied(page: &Page, access: AccessKind) -> Option<FaultKind> {
    match access {
        AccessKind::Write | AccessKind::Atomic if !page.write => Some(FaultKind::WriteProtect),
        AccessKind::Atomic if !page.atomic => Some(FaultKind::AtomicDenied),
        AccessKind::Read | AccessKind::Write | AccessKind::Atomic | AccessKind::Prefetch => None,
    }
}

#[cfg(test)]
mod tests;

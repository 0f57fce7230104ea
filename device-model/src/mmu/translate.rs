// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How an engine translates: by what its TLB holds, else by a walk, whose result the TLB then holds.

use std::sync::MutexGuard;

use ersatz_abi::counter::Counter;
use ersatz_abi::fault::AccessKind;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{Page, PageSize};

use super::Mmu;
use super::memory::TableMemory;
use super::space::AddressSpace;
use super::tlb::Tlb;
use super::walk::{PageFault, Walked, denied, modifies, walk};
use crate::trace::MmuEvent;

/// Where a virtual address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The byte it means: in VRAM, in system memory, or in a peer's VRAM. Whether there is such memory is for the access to
    /// find out.
    pub location: Location,
    /// Bytes from there to the end of the page: all that may be accessed by this translation.
    pub length: u64,
    /// The size of the page.
    pub size: PageSize,
}

impl Translation {
    fn new(page: &Page, address: u64) -> Self {
        let offset = address % page.size.bytes();
        let location = Location { address: page.location.address + offset, ..page.location };
        Self { location, length: page.size.bytes() - offset, size: page.size }
    }
}

/// Why a virtual address leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TranslateError {
    /// The address space is not enabled.
    SpaceDisabled,
    /// The access faults.
    PageFault(PageFault),
}

/// What an engine translates with.
pub struct Translator<'a> {
    pub(super) mmu: &'a Mmu,
    pub(super) engine: u8,
    pub(super) tlb: MutexGuard<'a, Tlb>,
    /// What is counted when this is dropped.
    pub(super) hits: u64,
    pub(super) misses: u64,
}

impl Drop for Translator<'_> {
    fn drop(&mut self) {
        let Mmu { counters, .. } = self.mmu;
        counters.add(Counter::TlbHits, self.hits);
        counters.add(Counter::TlbMisses, self.misses);
    }
}

impl Translator<'_> {
    /// Where a virtual address leads. What was translated before remains good until this is dropped.
    ///
    /// # Errors
    ///
    /// See [`TranslateError`].
    pub fn translate(
        &mut self,
        memory: &impl TableMemory,
        asid: u8,
        address: u64,
        access: AccessKind,
    ) -> Result<Translation, TranslateError> {
        let Mmu { tracer, spaces, .. } = self.mmu;
        let page = match look_up(&mut self.tlb, asid, address, access) {
            Some(held) => {
                self.hits += 1;
                held.map_err(TranslateError::PageFault)?
            }
            None => {
                let space = spaces.enabled(asid).ok_or(TranslateError::SpaceDisabled)?;
                self.misses += 1;
                let page =
                    fill(&mut self.tlb, memory, space, asid, address, access).map_err(TranslateError::PageFault)?;
                let Page { location, size, write, atomic } = page;
                let (engine, first) = (self.engine, address - address % size.bytes());
                let event = MmuEvent::TlbFill { engine, asid, address: first, page: location, size, write, atomic };
                tracer.emit(event.into());
                page
            }
        };
        Ok(Translation::new(&page, address))
    }
}

/// Returns what an access gets by what the TLB holds, or `None` if that takes a walk.
pub(super) fn look_up(tlb: &mut Tlb, asid: u8, address: u64, access: AccessKind) -> Option<Result<Page, PageFault>> {
    let Walked { page, clean } = tlb.find(asid, address)?;
    match denied(&page, access) {
        Some(kind) => Some(Err(PageFault { address, access, kind, level: level_of(page.size) })),
        // The dirty bit is to be set in the entry that is there now, whatever that says.
        None if clean && modifies(access) => None,
        None => Some(Ok(page)),
    }
}

/// Walks, and keeps in the TLB what was found.
pub(super) fn fill(
    tlb: &mut Tlb,
    memory: &impl TableMemory,
    space: AddressSpace,
    asid: u8,
    address: u64,
    access: AccessKind,
) -> Result<Page, PageFault> {
    // A walk to set a dirty bit replaces what is held, even by nothing.
    tlb.remove(asid, address);
    let walked = walk(memory, space, address, access)?;
    tlb.insert(asid, address, walked);
    Ok(walked.page)
}

/// The level of the tables whose entries map pages of a size.
fn level_of(size: PageSize) -> u8 {
    match size {
        PageSize::Small | PageSize::Big => 0,
        PageSize::Huge => 1,
    }
}

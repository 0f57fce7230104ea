// SPDX-License-Identifier: GPL-2.0
//! A map with the proof that its pages are registered: what may be done with the pages.

use super::{
    super::fault::CpuFault,
    super::folio::{LockedFolio, Pfn, HUGE_ORDER},
    super::frames::BLOCK_PAGES,
    super::homes::Node,
    DeviceMemory, Kind, PageMap,
};
use crate::bindings;
use core::{ops::Range, ptr::NonNull};
use kernel::{
    device::{Bound, Device},
    prelude::*,
};

/// A map whose pages are registered for `'a`, and whose device is bound.
///
/// # Invariants
///
/// As said; `dev` is the map's device.
pub(crate) struct BoundMap<'a, T: DeviceMemory> {
    map: &'a PageMap<T>,
    dev: &'a Device<Bound>,
}

impl<T: DeviceMemory> PageMap<T> {
    /// # Safety
    ///
    /// The pages are registered for `'a`.
    pub(super) unsafe fn bound(&self) -> BoundMap<'_, T> {
        // SAFETY: Pages that are registered belong to a device that is bound, by `PageMap::register`.
        let dev = unsafe { self.dev.as_bound() };
        BoundMap { map: self, dev }
    }
}

impl<T: DeviceMemory> Clone for BoundMap<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: DeviceMemory> Copy for BoundMap<'_, T> {}

impl<T: DeviceMemory> core::ops::Deref for BoundMap<'_, T> {
    type Target = PageMap<T>;

    fn deref(&self) -> &PageMap<T> {
        self.map
    }
}

impl<'a, T: DeviceMemory> BoundMap<'a, T> {
    /// The device.
    pub(crate) fn dev(self) -> &'a Device<Bound> {
        self.dev
    }

    /// The map, for as long as its pages are registered.
    pub(crate) fn map(self) -> &'a PageMap<T> {
        self.map
    }

    /// Takes free frames into use as a folio of order 0 or [`HUGE_ORDER`]: locked, referenced, with whatever content the memory has.
    /// `None` if too few are free, or not in one piece.
    pub(crate) fn allocate(self, order: u32) -> Option<LockedFolio> {
        let index = match order {
            0 => self.map.frames.take_page(),
            HUGE_ORDER => self.map.frames.take_block(),
            _ => None,
        }?;
        // SAFETY: By the type invariants the pages of the region are registered, so this pfn has a page. The page is
        // free, so it must not be taken for part of a folio: it is cast, not looked up.
        let page = unsafe { bindings::ersatz_pfn_to_page(self.pfn(index)) };
        // SAFETY: The pages are this map's; their reference counts are zero since they were marked free, and only this thread
        // took the marks away.
        unsafe { bindings::zone_device_page_init(page, self.map.raw.get(), order) };
        let page = NonNull::new(page)?;
        // SAFETY: The folio was initialised with one reference and its lock held, both for the caller.
        Some(unsafe { LockedFolio::from_raw(page, order, T::SIDE) })
    }

    /// The page frame of page `index` of the memory, which must be below [`PageMap::pages`].
    pub(crate) fn pfn(self, index: usize) -> Pfn {
        self.map.region.first_pfn() + index
    }

    /// The block in use that was used longest ago within `stamps`, with its stamp.
    pub(crate) fn oldest_block_within(self, stamps: Range<u64>) -> Option<(usize, u64)> {
        self.map.frames.oldest_within(stamps)
    }

    /// A stamp newer than those of all blocks.
    pub(crate) fn newest_stamp(self) -> u64 {
        self.map.frames.now()
    }

    /// Notes that a page's block was used just now.
    pub(crate) fn touch(self, pfn: Pfn) {
        if let Some(index) = self.map.index(pfn) {
            self.map.frames.touch(index / BLOCK_PAGES);
        }
    }

    /// Notes to which node of the system pages from `pfn` on belong. Pages that are not this map's are left out.
    pub(in super::super) fn set_home(self, pfn: Pfn, pages: usize, node: Option<Node>) {
        if let Some(first) = self.map.index(pfn) {
            self.map.homes.set(first..first.saturating_add(pages), node);
        }
    }

    /// The node of the system that a page belongs to, if it is known.
    pub(crate) fn home(self, pfn: Pfn) -> Option<Node> {
        self.map.homes.of(self.map.index(pfn)?)
    }

    /// Number of blocks.
    pub(crate) fn blocks(self) -> usize {
        self.map.frames.blocks()
    }

    /// The pages of a block that something maps. A page that is in use but not mapped is on its way to or from the device, or in
    /// limbo: its process is gone and a CPU's list has a reference to it. Migrating the latter would follow a stale reverse map.
    ///
    /// Poisoned pages are left out.
    pub(crate) fn mapped_pages_of_block(self, block: usize) -> impl Iterator<Item = usize> + 'a {
        self.mapped_pages(block).filter(move |&index| !self.map.is_poisoned(index))
    }

    /// As [`BoundMap::mapped_pages_of_block`], but poisoned pages alone.
    pub(crate) fn mapped_poisoned_pages_of_block(self, block: usize) -> impl Iterator<Item = usize> + 'a {
        self.mapped_pages(block).filter(move |&index| self.map.is_poisoned(index))
    }

    /// As [`BoundMap::mapped_pages_of_block`], with poisoned pages.
    pub(crate) fn mapped_pages(self, block: usize) -> impl Iterator<Item = usize> + 'a {
        let frames = &self.map.frames;
        let end = block.saturating_add(1).saturating_mul(BLOCK_PAGES).min(frames.len());
        let used = core::iter::successors(frames.next_used(block.saturating_mul(BLOCK_PAGES)), |&index| {
            frames.next_used(index + 1)
        });
        used.take_while(move |&index| index < end)
            .filter(move |&index| !self.map.withheld.is_withheld(index) && self.is_mapped(index))
    }

    fn is_mapped(self, index: usize) -> bool {
        // SAFETY: By the type invariants the page is registered.
        let page = unsafe { bindings::ersatz_pfn_to_page(self.pfn(index)) };
        // SAFETY: `page` is valid.
        unsafe { bindings::ersatz_page_is_mapped(page) }
    }

    /// Whether one of some pages lost its content.
    pub(in super::super) fn has_poison(self, pfn: Pfn, pages: usize) -> bool {
        let Some(first) = self.map.index(pfn) else { return false };
        self.map.poisoned.count() > 0 && (first..first + pages).any(|index| self.map.poisoned.has(index))
    }

    /// Whether the page that was touched is known to have lost its content.
    pub(crate) fn has_lost(self, fault: &CpuFault<'_>) -> bool {
        self.has_poison(fault.pfn(), 1)
    }

    /// Takes page `index` out of use for good. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such page; those of [`DeviceMemory::memory_failure`].
    pub(crate) fn poison(self, index: usize) -> Result {
        if index >= self.map.pages() {
            return Err(EINVAL);
        }
        // INVARIANT: From here on a frame that is freed is not marked as free; one that is free already is taken.
        if !self.map.poisoned.add(index) {
            return Ok(());
        }
        if self.map.kind() == Kind::Coherent {
            // SAFETY: By the type invariants the page is registered.
            let page = unsafe { bindings::ersatz_pfn_to_page(self.pfn(index)) };
            // SAFETY: `page` is valid; the flag is set atomically.
            unsafe { bindings::ersatz_page_set_poisoned(page) };
        }
        T::poisoned(self, index);
        // Nobody uses it if it is free, or withheld.
        if self.map.withheld.release(index) || self.map.frames.take(index) {
            return Ok(());
        }
        T::memory_failure(self, index)
    }
}

// SPDX-License-Identifier: GPL-2.0
//! Moving pages to a device's memory and back.
//!
//! A migration goes through two states, and each ends well wherever it is dropped:
//!
//! 1. [`Isolated`]: the pages that can move are unmapped everywhere and locked; touching them waits. The driver gives each
//!    a destination and copies the content. Dropped here, every page goes back to where it was.
//! 2. [`Committed`], by [`Isolated::commit`]: the destinations have taken the place of their sources, save those that
//!    something held on to at the last moment. Dropped here, the process sees the new pages.
//!
//! All pages are of order 0: larger folios of the system are split as they are isolated.

use super::{
    page::{LockedPage, Pfn, Side},
    pagemap::{CpuFault, DeviceMemory, Kind, Owner, PageMap},
};
use crate::{bindings, kernel_ext::dma::PageMapping};
use core::{marker::PhantomData, ops::Range, ptr::NonNull};
use kernel::{
    device::{Bound, Device},
    dma::DataDirection,
    mm::virt::VmaRef,
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
};

// `MIGRATE_PFN_*` of linux/migrate.h, which are macros that bindgen cannot evaluate.
const PFN_VALID: usize = 1 << 0;
const PFN_MIGRATE: usize = 1 << 1;
const PFN_SHIFT: usize = 6;

/// The room a migration needs: two words a page.
pub(crate) struct Entries<'a> {
    src: &'a mut [usize],
    dst: &'a mut [usize],
}

impl<'a> Entries<'a> {
    /// Room for as many pages as both slices have elements. Their content means nothing.
    pub(crate) fn new(src: &'a mut [usize], dst: &'a mut [usize]) -> Self {
        Self { src, dst }
    }

    /// The number of pages there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.src.len().min(self.dst.len())
    }
}

/// What is at a place that can migrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// No page, or the zero page: the destination is to be cleared.
    Hole,
    /// A page, isolated.
    Page(Pfn),
}

enum Origin {
    Vma(bindings::migrate_vma),
    Device,
}

/// # Invariants
///
/// - `src` and `dst` are arrays of `len` elements, exclusively this value's for `'a`.
/// - `src` is as the memory manager's isolating function left it (and its committing function, if `committed`); no
///   finalizing function has been called.
/// - Unless `committed`, each non-zero element of `dst` stands for a page whose lock and reference are this value's; it is
///   on the other side than `from`.
struct Migration<'a> {
    src: *mut usize,
    dst: *mut usize,
    len: usize,
    origin: Origin,
    from: Side,
    committed: bool,
    _borrowed: PhantomData<&'a mut [usize]>,
}

impl Migration<'_> {
    fn src(&self, index: usize) -> usize {
        if index >= self.len {
            return 0;
        }
        // SAFETY: The index is in the array, which is this value's by the type invariants.
        unsafe { *self.src.add(index) }
    }

    fn dst(&self, index: usize) -> usize {
        if index >= self.len {
            return 0;
        }
        // SAFETY: As in `src`.
        unsafe { *self.dst.add(index) }
    }

    /// Takes a destination page back.
    fn take_destination(&mut self, index: usize) -> Option<LockedPage> {
        let entry = self.dst(index);
        if self.committed || entry & PFN_VALID == 0 {
            return None;
        }
        // SAFETY: The index is in the array, or the entry would be zero.
        unsafe { *self.dst.add(index) = 0 };
        // SAFETY: By the type invariants the entry stands for a page.
        let page = NonNull::new(unsafe { bindings::ersatz_pfn_to_page(entry >> PFN_SHIFT) })?;
        let side = if self.from == Side::System { Side::Device } else { Side::System };
        // SAFETY: By the type invariants lock and reference are ours, and the entry that stood for them is gone.
        Some(unsafe { LockedPage::from_raw(page, side) })
    }
}

impl Drop for Migration<'_> {
    fn drop(&mut self) {
        if !self.committed {
            // Finalizing takes any destination as the place to go for a page still marked as migrating.
            for index in 0..self.len {
                drop(self.take_destination(index));
            }
        }
        match &mut self.origin {
            // SAFETY: The arguments are those of `migrate_vma_setup()`, and this is called once.
            Origin::Vma(args) => unsafe { bindings::migrate_vma_finalize(args) },
            // SAFETY: By the type invariants the arrays are as the functions before left them; this is called once.
            Origin::Device => unsafe { bindings::migrate_device_finalize(self.src, self.dst, self.len) },
        }
    }
}

/// Pages that are on hold, to be copied.
pub(crate) struct Isolated<'a>(Migration<'a>);

impl<'a> Isolated<'a> {
    /// Isolates the pages of `range`, as many as `entries` has room for, that are on side `from` (of the device's own pages
    /// alone, if that is the device), and the range's holes.
    ///
    /// A page that is in use otherwise (pinned, locked) is left where it is, and has no [`Source`].
    ///
    /// # Errors
    ///
    /// `EINVAL` for a VMA whose pages cannot migrate (huge pages of hugetlbfs, device mappings, DAX), and for a range that
    /// is empty or not within the VMA.
    pub(crate) fn of_vma(
        vma: &'a VmaRef,
        range: Range<usize>,
        from: Side,
        owner: Owner<'a>,
        entries: Entries<'a>,
    ) -> Result<Self> {
        Self::setup(vma, range, from, owner, core::ptr::null_mut(), entries)
    }

    /// Isolates the page that a CPU touched.
    ///
    /// # Errors
    ///
    /// As for [`Isolated::of_vma`].
    pub(crate) fn of_fault(fault: &'a CpuFault<'_>, owner: Owner<'a>, entries: Entries<'a>) -> Result<Self> {
        let range = fault.address()..fault.address() + PAGE_SIZE;
        Self::setup(fault.vma(), range, Side::Device, owner, fault.page(), entries)
    }

    fn setup(
        vma: &'a VmaRef,
        range: Range<usize>,
        from: Side,
        owner: Owner<'a>,
        fault_page: *mut bindings::page,
        entries: Entries<'a>,
    ) -> Result<Self> {
        let pages = (range.len() >> PAGE_SHIFT).min(entries.capacity());
        let select = match (from, owner.kind) {
            (Side::System, _) => bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_SYSTEM,
            (Side::Device, Kind::Private) => bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
            (Side::Device, Kind::Coherent) => bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_DEVICE_COHERENT,
        };
        let src = entries.src.as_mut_ptr();
        let dst = entries.dst.as_mut_ptr();
        let mut args = bindings::migrate_vma {
            vma: vma.as_ptr(),
            dst,
            src,
            cpages: 0,
            npages: 0,
            start: range.start,
            end: range.start + (pages << PAGE_SHIFT),
            pgmap_owner: owner.raw,
            flags: select as usize,
            fault_page,
        };
        // SAFETY: The VMA is valid and its mm locked for reading, which the reference stands for. Both arrays have room
        // for the range. A fault page is locked and referenced, by the invariants of `CpuFault`.
        kernel::error::to_result(unsafe { bindings::migrate_vma_setup(&mut args) })?;
        // INVARIANT: Setup succeeded: it filled in `npages` entries of `src`, and cleared those of `dst`.
        Ok(Self(Migration {
            src,
            dst,
            len: args.npages.min(pages),
            origin: Origin::Vma(args),
            from,
            committed: false,
            _borrowed: PhantomData,
        }))
    }

    /// Isolates pages of a device's memory, wherever they are mapped. `indexes` names them by their place in the memory;
    /// no more are taken from it than `entries` has room for.
    pub(crate) fn of_device<T: DeviceMemory>(
        map: &'a PageMap<T>,
        _dev: &'a Device<Bound>,
        indexes: impl Iterator<Item = usize>,
        entries: Entries<'a>,
    ) -> Self {
        let mut len = 0;
        let pages = map.free_pages().len();
        for ((src, dst), index) in
            entries.src.iter_mut().zip(entries.dst.iter_mut()).zip(indexes.filter(|&i| i < pages))
        {
            (*src, *dst) = (map.pfn(index), 0);
            len += 1;
        }
        let src = entries.src.as_mut_ptr();
        // SAFETY: The first `len` elements are pfns of the map, whose pages are registered while its device is bound.
        unsafe { bindings::migrate_device_pfns(src, len) };
        // INVARIANT: `src` is as the isolating function left it, `dst` was cleared.
        Self(Migration {
            src,
            dst: entries.dst.as_mut_ptr(),
            len,
            origin: Origin::Device,
            from: Side::Device,
            committed: false,
            _borrowed: PhantomData,
        })
    }

    /// The number of places looked at.
    pub(crate) fn len(&self) -> usize {
        self.0.len
    }

    /// What can migrate at a place; `None` if nothing can.
    pub(crate) fn source(&self, index: usize) -> Option<Source> {
        match self.0.src(index) {
            entry if entry & PFN_MIGRATE == 0 => None,
            entry if entry & PFN_VALID == 0 => Some(Source::Hole),
            entry => Some(Source::Page(entry >> PFN_SHIFT)).filter(|_| self.may_leave(entry >> PFN_SHIFT)),
        }
    }

    /// Whether an isolated page would not be refused at the very last: a file's page cannot go to a device.
    fn may_leave(&self, pfn: Pfn) -> bool {
        if self.0.from == Side::Device {
            return true;
        }
        // SAFETY: The pfn is of an isolated page.
        let page = unsafe { bindings::ersatz_pfn_to_page(pfn) };
        // SAFETY: The page is isolated, so it is valid and keeps its mapping.
        unsafe { bindings::ersatz_page_is_anonymous(page) }
    }

    /// The page frame that was set as destination of a place.
    pub(crate) fn destination(&self, index: usize) -> Option<Pfn> {
        let entry = self.0.dst(index);
        (entry & PFN_VALID != 0).then_some(entry >> PFN_SHIFT)
    }

    /// The user's address of a place. For pages isolated by [`Isolated::of_device`] it is the one they were first mapped
    /// at, which a `mremap()` may have made outdated: good for a log only.
    pub(crate) fn address(&self, index: usize) -> usize {
        match (&self.0.origin, self.source(index)) {
            (Origin::Vma(args), _) => args.start + (index << PAGE_SHIFT),
            (Origin::Device, Some(Source::Page(pfn))) => {
                // SAFETY: The pfn is of an isolated page.
                let page = unsafe { bindings::ersatz_pfn_to_page(pfn) };
                // SAFETY: The page is isolated, so it stays and keeps its index.
                unsafe { bindings::ersatz_page_linear_index(page) << PAGE_SHIFT }
            }
            (Origin::Device, _) => 0,
        }
    }

    /// Says where a place's page is to go. From here on the page belongs to the migration.
    ///
    /// # Errors
    ///
    /// `EINVAL` if nothing can migrate at this place, if it has a destination already, or if the page is on the same
    /// side. The page is dropped.
    pub(crate) fn set_destination(&mut self, index: usize, page: LockedPage) -> Result {
        if self.source(index).is_none() || self.destination(index).is_some() || page.side() == self.0.from {
            return Err(EINVAL);
        }
        let entry = (page.pfn() << PFN_SHIFT) | PFN_VALID;
        // The lock and the reference are the entry's now.
        let _ = page.into_raw();
        // SAFETY: The index is in the array, or there would be no source.
        // INVARIANT: The page's lock and reference came with it, and it is on the other side.
        unsafe { *self.0.dst.add(index) = entry };
        Ok(())
    }

    /// Maps a place's page of system memory for DMA: its source for the device to read, or its destination for the device
    /// to write.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such page at this place; `EIO` if it cannot be mapped.
    pub(crate) fn map_system_page<'b>(&'b self, index: usize, dev: &'b Device<Bound>) -> Result<PageMapping<'b>> {
        let (pfn, direction) = match (self.0.from, self.source(index)) {
            (Side::System, Some(Source::Page(pfn))) => (pfn, DataDirection::ToDevice),
            (Side::Device, _) => (self.destination(index).ok_or(ENOENT)?, DataDirection::FromDevice),
            _ => return Err(ENOENT),
        };
        // SAFETY: A source is isolated, and a destination is this value's: both stay allocated while `self` is
        // borrowed, which keeps it from being dropped or committed. Nobody else has a use for a destination's content.
        unsafe { PageMapping::new(dev, pfn, direction) }
    }

    /// Puts the destinations in the place of their sources.
    ///
    /// The content must have been copied: it can be seen from here on.
    pub(crate) fn commit(self) -> Committed<'a> {
        let mut migration = self.0;
        match &mut migration.origin {
            // SAFETY: The arguments are those of `migrate_vma_setup()`; the VMA is still valid and locked, for `'a`.
            Origin::Vma(args) => unsafe { bindings::migrate_vma_pages(args) },
            // SAFETY: By the type invariants the arrays are as the isolating function and `set_destination` left them.
            Origin::Device => unsafe { bindings::migrate_device_pages(migration.src, migration.dst, migration.len) },
        }
        // INVARIANT: The committing function has been called: the destinations are the memory manager's to finalize.
        migration.committed = true;
        Committed(migration)
    }
}

/// Pages that have moved, but that nobody sees until this is dropped.
pub(crate) struct Committed<'a>(Migration<'a>);

impl Committed<'_> {
    /// Whether a place's page has moved.
    pub(crate) fn moved(&self, index: usize) -> bool {
        self.0.src(index) & PFN_MIGRATE != 0 && self.0.dst(index) & PFN_VALID != 0
    }

    /// How many pages have moved.
    pub(crate) fn count(&self) -> usize {
        (0..self.0.len).filter(|&index| self.moved(index)).count()
    }
}

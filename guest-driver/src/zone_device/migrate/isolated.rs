// SPDX-License-Identifier: GPL-2.0
//! Isolating pages, and giving each a destination.

use super::super::{
    fault::CpuFault,
    folio::{LockedFolio, Pfn, Side},
    homes::Node,
    pagemap::{BoundMap, DeviceMemory, Kind},
};
use super::{
    migration::{Migration, Origin},
    Run, Source,
};
use crate::{bindings, kernel_ext::mm::LockedVma};
use core::ops::Range;
use kernel::{
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
};

/// Folios that are on hold, to be moved.
pub(crate) struct Isolated<'a, T: DeviceMemory> {
    map: BoundMap<'a, T>,
    migration: Migration<'a>,
    holes: Holes,
}

/// What is done about holes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holes {
    /// They are filled.
    Fill,
    /// They are left as they are.
    Leave,
}

impl<'a, T: DeviceMemory> Isolated<'a, T> {
    /// Isolates the folios of `range` that are on side `from` (of the device's own folios
    /// alone, if that is the device), and the range's holes.
    ///
    /// A folio that is in use otherwise (pinned, locked) is left where it is, and is in no [`Run`]. So are KSM's folios, and holes that
    /// have a meaning: those under userfaultfd, and those of areas without access.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a VMA whose pages cannot migrate (huge pages of hugetlbfs, device mappings, DAX), and for a range that
    /// is empty or not within the VMA; `ENOMEM`.
    pub(crate) fn of_vma(map: BoundMap<'a, T>, vma: LockedVma<'a>, range: Range<usize>, from: Side) -> Result<Self> {
        // SAFETY: There is no fault page.
        unsafe { Self::setup(map, vma, range, from, core::ptr::null_mut()) }
    }

    /// Isolates the folio that a CPU touched, and those around it in `range`.
    ///
    /// # Errors
    ///
    /// As for [`Isolated::of_vma`]; `EINVAL` if the page is not in the range.
    pub(crate) fn of_fault(map: BoundMap<'a, T>, fault: &'a CpuFault<'_>, range: Range<usize>) -> Result<Self> {
        if !range.contains(&fault.address()) {
            return Err(EINVAL);
        }
        // SAFETY: By the invariants of `CpuFault` its page is locked and referenced for as long as the fault lives.
        unsafe { Self::setup(map, fault.vma(), range, Side::Device, fault.page()) }
    }

    /// # Safety
    ///
    /// `fault_page` is null, or locked and referenced for `'a`.
    unsafe fn setup(
        map: BoundMap<'a, T>,
        vma: LockedVma<'a>,
        range: Range<usize>,
        from: Side,
        fault_page: *mut bindings::page,
    ) -> Result<Self> {
        let owner = map.map().owner();
        let select = match (from, owner.kind) {
            (Side::System, _) => bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_SYSTEM,
            (Side::Device | Side::StandIn, Kind::Private) => {
                bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_DEVICE_PRIVATE
            }
            (Side::Device | Side::StandIn, Kind::Coherent) => {
                bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_DEVICE_COHERENT
            }
        };
        let compound = match owner.kind {
            Kind::Private => bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_COMPOUND,
            Kind::Coherent => 0,
        };
        let flags = (select | compound) as usize;
        // SAFETY: A fault page is locked and referenced, by the function's requirements.
        let migration = unsafe { collect(vma, range, flags, owner.raw, fault_page, from)? };
        let holes = if vma.is_accessible() && !vma.has_userfaultfd() { Holes::Fill } else { Holes::Leave };
        let mut isolated = Self { map, migration, holes };
        if vma.is_thp_disabled() {
            isolated.break_holes();
        }
        Ok(isolated)
    }

    /// Isolates folios of a device's memory, wherever they are mapped. `indexes` names their pages by their places in the memory, in
    /// ascending order; no more than `capacity` are taken from it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn of_device(
        map: BoundMap<'a, T>,
        indexes: impl Iterator<Item = usize>,
        capacity: usize,
    ) -> Result<Self> {
        let mut src = KVec::with_capacity(capacity, GFP_KERNEL)?;
        for index in indexes.filter(|&index| index < map.pages()).take(capacity) {
            src.push(map.pfn(index), GFP_KERNEL)?;
        }
        let dst = KVec::from_elem(0, src.len(), GFP_KERNEL)?;
        // SAFETY: The elements are pfns of the map, whose pages are registered for `'a`.
        unsafe { bindings::migrate_device_pfns(src.as_mut_ptr(), src.len()) };
        // SAFETY: `src` is as the isolating function left it, `dst` was cleared.
        let migration = unsafe { Migration::new(src, dst, Origin::Device, Side::Device) };
        Ok(Self { map, migration, holes: Holes::Leave })
    }

    /// Number of pages looked at.
    pub(crate) fn len(&self) -> usize {
        self.migration.len()
    }

    /// The map that the device's side belongs to.
    pub(crate) fn map_of_device(&self) -> BoundMap<'a, T> {
        self.map
    }

    /// The first run at or behind a place that may be given a destination.
    pub(crate) fn next_run(&self, from: usize) -> Option<Run> {
        let runs = core::iter::successors(self.migration.next_run(from), |run| self.migration.next_run(run.end()));
        runs.into_iter().find(|run| self.may_move(run))
    }

    /// The first run at or behind a place, whether or not it may move.
    ///
    /// Whether a folio may move can change at any time: it has more references for a moment whenever another thread tries to isolate it.
    /// So this is asked before a folio gets a destination, by [`Isolated::next_run`], and never again: whatever has one moves.
    pub(super) fn next_isolated_run(&self, from: usize) -> Option<Run> {
        self.migration.next_run(from)
    }

    fn may_move(&self, run: &Run) -> bool {
        match (run.source, self.migration.from()) {
            (Source::Hole, _) => self.holes == Holes::Fill,
            // A page that is lost stays where it is: its users are told when they touch it. So does its folio, unless that can be split. A folio
            // that is pinned would be copied for nothing: isolating lets one reference too many pass (`migrate_vma_check_page()`), the
            // commit does not.
            (Source::Folio(pfn), Side::Device | Side::StandIn) => {
                let is_lost = self.map.has_poison(pfn, run.pages()) && (run.order == 0 || !self.can_split());
                !is_lost && !self.is_held(pfn) && self.has_owner(pfn)
            }
            (Source::Folio(pfn), Side::System) => {
                // SAFETY: The pfn is of an isolated page, which is valid and keeps its mapping.
                unsafe { bindings::ersatz_page_may_leave(bindings::ersatz_pfn_to_page(pfn)) }
            }
        }
    }

    /// Whether the memory manager splits folios. Without a VMA it does not.
    fn can_split(&self) -> bool {
        matches!(self.migration.origin(), Origin::Vma(_))
    }

    /// Whether a page of a run has lost its content.
    fn is_lost(&self, run: &Run, index: usize) -> bool {
        matches!(run.source, Source::Folio(pfn) if self.map.has_poison(pfn + (index - run.first), 1))
    }

    /// Whether an isolated folio of the device is somebody's. Another thread may have moved it away after it was chosen, with this one's
    /// reference keeping it. What is allocated for it would be charged to nobody, and the kernel looks for the owner of every folio on
    /// its LRU lists without end (`folio_lruvec_lock()`, `mm/memcontrol.c`).
    fn has_owner(&self, pfn: Pfn) -> bool {
        // SAFETY: The pfn is of an isolated page, so it has a page, which stays.
        unsafe { bindings::ersatz_page_has_owner(bindings::ersatz_pfn_to_page(pfn)) }
    }

    /// Whether an isolated folio of the device has references besides the migration's, and a CPU fault's.
    fn is_held(&self, pfn: Pfn) -> bool {
        let fault_page = match self.migration.origin() {
            Origin::Vma(args) => args.fault_page,
            Origin::Device => core::ptr::null_mut(),
        };
        // SAFETY: The pfn is of an isolated page, so it has a page, which stays.
        let (page, references) = unsafe {
            let page = bindings::ersatz_pfn_to_page(pfn);
            (page, bindings::ersatz_page_references(page))
        };
        references > 1 + i32::from(fault_page == page)
    }

    /// The node of the system that a page of a run is on, or would be made on.
    pub(super) fn node(&self, run: &Run, index: usize) -> Option<Node> {
        let node = match (run.source, self.migration.origin()) {
            // SAFETY: The pfn is of an isolated page, so it has a page, which stays.
            (Source::Folio(pfn), _) => unsafe {
                bindings::ersatz_page_node(bindings::ersatz_pfn_to_page(pfn + (index - run.first)))
            },
            // SAFETY: The VMA is valid and locked while it is isolated from.
            (Source::Hole, Origin::Vma(args)) => unsafe {
                bindings::ersatz_vma_node(args.vma, (args.start >> PAGE_SHIFT) + index)
            },
            (Source::Hole, Origin::Device) => return None,
        };
        Node::from_raw(node)
    }

    fn break_holes(&mut self) {
        let mut at = 0;
        while let Some(run) = self.migration.next_run(at) {
            self.migration.break_hole(&run);
            at = run.end();
        }
    }

    /// The user's address of a page. For folios isolated by [`Isolated::of_device`] it is the one that they were first mapped
    /// at, which a `mremap()` may have made outdated: good for a log only.
    pub(crate) fn address(&self, run: &Run, index: usize) -> usize {
        match (self.migration.origin(), run.source) {
            (Origin::Vma(args), _) => args.start + (index << PAGE_SHIFT),
            (Origin::Device, Source::Folio(pfn)) => {
                // SAFETY: The pfn is of an isolated page, which stays and keeps its index.
                let linear = unsafe { bindings::ersatz_page_linear_index(bindings::ersatz_pfn_to_page(pfn)) };
                (linear << PAGE_SHIFT) + (index - run.first) * PAGE_SIZE
            }
            (Origin::Device, Source::Hole) => 0,
        }
    }

    /// Gives a run destinations: one folio by `large` if it is of a higher order, else single pages by `small`, which gets the place of
    /// each. A page that `small` has nothing for stays, and so does one that has lost its content, of a folio that is split for that. Returns
    /// whether there was a destination for every page that has its content.
    ///
    /// # Errors
    ///
    /// `EINVAL` if a folio does not fit: it is on the same side, or not of the order asked for, or the run has destinations.
    pub(crate) fn assign(
        &mut self,
        run: &Run,
        large: impl FnOnce(u32) -> Option<LockedFolio>,
        mut small: impl FnMut(usize) -> Option<LockedFolio>,
    ) -> Result<bool> {
        if run.order > 0 {
            let is_whole = !(run.first..run.end()).any(|index| self.is_lost(run, index));
            if let Some(folio) = is_whole.then(|| large(run.order)).flatten() {
                self.migration.set_destination(run, run.first, folio)?;
                return Ok(true);
            }
            if !self.can_split() {
                return Ok(false);
            }
            self.migration.break_hole(run);
        }
        let is_hole = run.source == Source::Hole;
        for index in run.first..run.end() {
            if self.is_lost(run, index) {
                continue;
            }
            let Some(folio) = small(index) else { return Ok(false) };
            let part = Run { first: index, order: 0, source: run.source };
            self.migration.set_destination(if is_hole { &part } else { run }, index, folio)?;
        }
        Ok(true)
    }

    /// The destination that begins at a place: its first page frame, and its order.
    pub(super) fn destination(&self, run: &Run, index: usize) -> Option<(Pfn, u32)> {
        self.migration.destination(run, index)
    }

    pub(super) fn from(&self) -> Side {
        self.migration.from()
    }

    pub(super) fn into_migration(self) -> Migration<'a> {
        self.migration
    }
}

/// Moves folios of a map to others without their content, which is lost. `indexes` names their pages as for [`Isolated::of_device`]; `replacement` has a
/// folio of an order, on another side. Returns the number of pages that moved.
///
/// # Errors
///
/// `EINVAL` if a replacement does not fit; `ENOMEM`.
pub(in super::super) fn replace_lost<T: DeviceMemory>(
    map: BoundMap<'_, T>,
    indexes: impl Iterator<Item = usize>,
    capacity: usize,
    mut replacement: impl FnMut(u32) -> Option<LockedFolio>,
) -> Result<usize> {
    let mut isolated = Isolated::of_device(map, indexes, capacity)?;
    let mut at = 0;
    while let Some(run) = isolated.migration.next_run(at) {
        at = run.end();
        let Source::Folio(pfn) = run.source else { continue };
        if isolated.is_held(pfn) || !isolated.has_owner(pfn) {
            continue;
        }
        if let Some(folio) = replacement(run.order) {
            isolated.migration.set_destination(&run, run.first, folio)?;
        }
    }
    isolated.migration.commit();
    Ok(isolated.migration.count_moved())
}

/// Calls `tell` with the place of each page of `range` in anonymous memory for which the page tables have no entry at all: neither a page nor
/// what stands for one that is swapped out.
///
/// Collecting the pages to migrate reports such holes, and leaves all else alone if no kind of page is asked for.
///
/// # Errors
///
/// As for [`Isolated::of_vma`].
pub(crate) fn for_each_hole(vma: LockedVma<'_>, range: Range<usize>, mut tell: impl FnMut(usize)) -> Result {
    let nobody = core::ptr::null_mut();
    // SAFETY: There is no fault page.
    let migration = unsafe { collect(vma, range, 0, nobody, core::ptr::null_mut(), Side::System)? };
    let mut at = 0;
    while let Some(run) = migration.next_run(at) {
        at = run.end();
        if run.source == Source::Hole {
            (run.first..run.end()).for_each(&mut tell);
        }
    }
    Ok(())
}

/// Collects the pages of a range and isolates those of the kinds that `flags` asks for (`enum migrate_vma_direction`), which are on side `from`.
/// `fault_page` is null, or the page of a CPU fault in the VMA.
///
/// # Safety
///
/// A fault page is locked and referenced for `'a`.
///
/// # Errors
///
/// As for [`Isolated::of_vma`].
unsafe fn collect<'a>(
    vma: LockedVma<'a>,
    range: Range<usize>,
    flags: usize,
    owner: *mut kernel::ffi::c_void,
    fault_page: *mut bindings::page,
    from: Side,
) -> Result<Migration<'a>> {
    let pages = range.len() >> PAGE_SHIFT;
    let mut src = KVec::from_elem(0, pages, GFP_KERNEL)?;
    let mut dst = KVec::from_elem(0, pages, GFP_KERNEL)?;
    let mut args = bindings::migrate_vma {
        vma: vma.as_ptr(),
        dst: dst.as_mut_ptr(),
        src: src.as_mut_ptr(),
        cpages: 0,
        npages: 0,
        start: range.start,
        end: range.start + (pages << PAGE_SHIFT),
        pgmap_owner: owner,
        flags,
        fault_page,
    };
    // SAFETY: The VMA is valid and its mm locked for reading. Both arrays have room for the range. A fault page is as required.
    kernel::error::to_result(unsafe { bindings::migrate_vma_setup(&mut args) })?;
    src.truncate(args.npages);
    dst.truncate(args.npages);
    // SAFETY: Setup succeeded: it filled in `npages` entries of `src`, and cleared those of `dst`. The VMA is locked for `'a`.
    Ok(unsafe { Migration::new(src, dst, Origin::Vma(args), from) })
}

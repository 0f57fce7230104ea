// SPDX-License-Identifier: GPL-2.0
//! The two arrays by which the memory manager and a driver tell each other what migrates, and the call that ends a migration.

use super::super::folio::{LockedFolio, Pfn, Side, HUGE_ORDER};
use super::{Run, Source};
use crate::bindings;
use core::{marker::PhantomData, ptr::NonNull};
use kernel::prelude::*;

// `MIGRATE_PFN_*` of linux/migrate.h, which are macros that bindgen cannot evaluate.
const VALID: usize = 1 << 0;
const MIGRATE: usize = 1 << 1;
const COMPOUND: usize = 1 << 4;
const SHIFT: usize = 6;

/// By what the pages were isolated, and how that ends.
pub(super) enum Origin {
    Vma(bindings::migrate_vma),
    Device,
}

/// How far a migration has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Isolated,
    Committed,
}

/// A migration under way.
///
/// # Invariants
///
/// - `src` and `dst` have the same length. If `origin` has arguments they point to the elements of both.
/// - `src` is as the memory manager's isolating function left it (and its committing function, if `step` says so), save that large
///   holes may have been broken up; no finalizing function has been called.
/// - Before the commit, each non-zero element of `dst` stands for a folio whose lock and reference are this value's; it is
///   on the other side than `from`, as large as its run or of order 0, and covered by no other.
/// - What `origin` needs stays valid for `'a`.
pub(super) struct Migration<'a> {
    src: KVec<usize>,
    dst: KVec<usize>,
    origin: Origin,
    from: Side,
    step: Step,
    _origin: PhantomData<&'a ()>,
}

impl<'a> Migration<'a> {
    /// # Safety
    ///
    /// The type invariants hold, with `dst` all zero.
    pub(super) unsafe fn new(src: KVec<usize>, dst: KVec<usize>, origin: Origin, from: Side) -> Self {
        // INVARIANT: By the function's requirements.
        Self { src, dst, origin, from, step: Step::Isolated, _origin: PhantomData }
    }

    pub(super) fn len(&self) -> usize {
        self.src.len()
    }

    pub(super) fn from(&self) -> Side {
        self.from
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    fn src(&self, index: usize) -> usize {
        self.src.get(index).copied().unwrap_or(0)
    }

    fn dst(&self, index: usize) -> usize {
        self.dst.get(index).copied().unwrap_or(0)
    }

    /// The first run at or behind a place, whether or not its folio is permitted to leave.
    pub(super) fn next_run(&self, from: usize) -> Option<Run> {
        let first = (from..self.len()).find(|&index| self.src(index) & MIGRATE != 0)?;
        let entry = self.src(first);
        let source = if entry & VALID == 0 { Source::Hole } else { Source::Folio(entry >> SHIFT) };
        let order = match source {
            _ if entry & COMPOUND == 0 => 0,
            Source::Hole => HUGE_ORDER,
            // SAFETY: The page is isolated, so it is valid and its folio locked.
            Source::Folio(pfn) => unsafe { bindings::ersatz_page_order(bindings::ersatz_pfn_to_page(pfn)) },
        };
        let run = Run { first, order, source };
        // The memory manager never reports a folio that reaches past the end.
        (run.end() <= self.len()).then_some(run)
    }

    /// The destination that begins at a place: its first page frame, and its order.
    pub(super) fn destination(&self, run: &Run, index: usize) -> Option<(Pfn, u32)> {
        let entry = self.dst(index);
        (entry & VALID != 0).then_some((entry >> SHIFT, if entry & COMPOUND == 0 { 0 } else { run.order }))
    }

    /// Makes a large hole one of single pages.
    pub(super) fn break_hole(&mut self, run: &Run) {
        if run.source == Source::Hole {
            // With single destinations the committing function takes every page of a large hole to have one, and follows a null
            // pointer if that is not so. As single holes they are independent of each other.
            self.src.iter_mut().take(run.end()).skip(run.first).for_each(|entry| *entry = MIGRATE);
        }
    }

    /// Records the destination of page `index`, which lies in `run`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the folio is on the same side, neither of the run's order nor of order 0, or not free to go there.
    pub(super) fn set_destination(&mut self, run: &Run, index: usize, folio: LockedFolio) -> Result {
        let is_whole = folio.order() == run.order && index == run.first;
        let is_part = folio.order() == 0 && (run.first..run.end()).contains(&index);
        let is_large_hole = run.source == Source::Hole && run.order > 0;
        // Without a VMA the memory manager does not split.
        let is_splittable = matches!(self.origin, Origin::Vma(_));
        let is_fit = is_whole || (is_part && !is_large_hole && is_splittable);
        let is_vacant = if is_whole {
            (run.first..run.end()).all(|page| self.dst(page) == 0)
        } else {
            self.dst(index) == 0 && self.dst(run.first) & COMPOUND == 0
        };
        if self.next_run(run.first) != Some(*run) || !is_fit || !is_vacant || folio.side() == self.from {
            return Err(EINVAL);
        }
        let compound = if folio.order() > 0 { COMPOUND } else { 0 };
        let entry = (folio.pfn() << SHIFT) | VALID | compound;
        let slot = self.dst.get_mut(index).ok_or(EINVAL)?;
        // The lock and the reference are the entry's now.
        let _ = folio.into_raw();
        // INVARIANT: The folio's lock and reference came with it; the rest was checked.
        *slot = entry;
        Ok(())
    }

    /// Puts the destinations in the place of their sources.
    pub(super) fn commit(&mut self) {
        match &mut self.origin {
            // SAFETY: The arguments are those of `migrate_vma_setup()`; the VMA is still valid and locked, for `'a`.
            Origin::Vma(args) => unsafe { bindings::migrate_vma_pages(args) },
            // SAFETY: By the type invariants the arrays are as the isolating function and `set_destination` left them.
            Origin::Device => unsafe {
                bindings::migrate_device_pages(self.src.as_mut_ptr(), self.dst.as_mut_ptr(), self.src.len())
            },
        }
        // INVARIANT: The committing function has been called: the destinations are the memory manager's to finalize.
        self.step = Step::Committed;
    }

    /// Number of pages that moved, once committed.
    pub(super) fn count_moved(&self) -> usize {
        let moved = (0..self.len()).filter(|&index| self.has_moved_from(index));
        moved.map(|index| if self.dst(index) & COMPOUND == 0 { 1 } else { 1 << HUGE_ORDER }).sum()
    }

    /// Whether the page at a place moved, once committed.
    pub(super) fn has_moved(&self, index: usize) -> bool {
        let head = index >> HUGE_ORDER << HUGE_ORDER;
        self.has_moved_from(index) || (self.dst(head) & COMPOUND != 0 && self.has_moved_from(head))
    }

    /// Whether the folio that begins at a place moved.
    fn has_moved_from(&self, index: usize) -> bool {
        self.step == Step::Committed && self.src(index) & MIGRATE != 0 && self.dst(index) & VALID != 0
    }

    /// Takes back all destinations.
    fn drop_destinations(&mut self) {
        // Unlocking and putting is the same on every side.
        let side = if self.from == Side::System { Side::Device } else { Side::System };
        for index in 0..self.len() {
            let entry = core::mem::take(&mut self.dst[index]);
            if entry & VALID == 0 {
                continue;
            }
            // SAFETY: By the type invariants the entry stood for a folio.
            let page = unsafe { bindings::ersatz_pfn_to_page(entry >> SHIFT) };
            let order = if entry & COMPOUND == 0 { 0 } else { HUGE_ORDER };
            if let Some(page) = NonNull::new(page) {
                // SAFETY: By the type invariants lock and reference are ours, and the entry that stood for them is gone.
                drop(unsafe { LockedFolio::from_raw(page, order, side) });
            }
        }
    }
}

impl Drop for Migration<'_> {
    fn drop(&mut self) {
        if self.step == Step::Isolated {
            // Finalizing takes any destination as the place to go for a page still marked as migrating.
            self.drop_destinations();
        }
        match &mut self.origin {
            // SAFETY: The arguments are those of `migrate_vma_setup()`, and this is called once.
            Origin::Vma(args) => unsafe { bindings::migrate_vma_finalize(args) },
            // SAFETY: By the type invariants the arrays are as the functions before left them; this is called once.
            Origin::Device => unsafe {
                bindings::migrate_device_finalize(self.src.as_mut_ptr(), self.dst.as_mut_ptr(), self.src.len())
            },
        }
    }
}

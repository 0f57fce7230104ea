// SPDX-License-Identifier: GPL-2.0
//! Memory in general: how much there is, and walking a process's VMAs.

use crate::bindings;
use core::ops::Range;
use kernel::mm::{virt::VmaRef, MmWithUser, MmapReadGuard};

/// How many pages of RAM the kernel manages.
pub(crate) fn total_ram_pages() -> usize {
    // SAFETY: There are no requirements.
    unsafe { bindings::ersatz_totalram_pages() }
}

/// The VMAs of an mm, while it is locked for reading.
pub(crate) struct Vmas<'a> {
    mm: &'a MmWithUser,
    _lock: MmapReadGuard<'a>,
}

impl<'a> Vmas<'a> {
    /// Locks `mm` for reading.
    pub(crate) fn lock(mm: &'a MmWithUser) -> Self {
        Self { mm, _lock: mm.mmap_read_lock() }
    }

    /// The first VMA that ends behind `range.start` and starts before `range.end`, and what of the range lies in it.
    pub(crate) fn first_in(&self, range: Range<usize>) -> Option<(&VmaRef, Range<usize>)> {
        // SAFETY: `mm` is valid and locked for reading.
        let vma = unsafe { bindings::ersatz_find_vma(self.mm.as_raw(), range.start) };
        if vma.is_null() {
            return None;
        }
        // SAFETY: The VMA is valid, and cannot go while the mm is locked, which is as long as `self` lives.
        let vma = unsafe { VmaRef::from_raw(vma) };
        let part = vma.start().max(range.start)..vma.end().min(range.end);
        (!part.is_empty()).then_some((vma, part))
    }
}

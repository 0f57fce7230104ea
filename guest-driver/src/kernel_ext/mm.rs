// SPDX-License-Identifier: GPL-2.0
//! Memory in general: how much there is, what a process names, and walking its VMAs.

use crate::bindings;
use core::ops::{Deref, Range};
use kernel::{
    error::to_result,
    mm::{
        virt::{flags, VmaRef},
        MmWithUser, MmapReadGuard,
    },
    page::PAGE_MASK,
    prelude::*,
};

/// Number of pages of RAM that the kernel manages.
pub(crate) fn total_ram_pages() -> usize {
    // SAFETY: There are no requirements.
    unsafe { bindings::ersatz_totalram_pages() }
}

/// Brings the current process's page at an address to the system if it is in the coherent memory of a device.
///
/// # Errors
///
/// `EFAULT` if it cannot be read; `EBUSY`, `EAGAIN` or `ENOMEM` if it cannot be moved now.
pub(crate) fn bring_to_system(address: usize) -> Result {
    // SAFETY: There are no requirements.
    to_result(unsafe { bindings::ersatz_bring_to_system(address) })
}

/// Number of pages from `address` of the current process to the end of the large folio that is mapped there; zero if none is. A hint:
/// at once out of date.
pub(crate) fn large_folio_rest(address: usize) -> usize {
    // SAFETY: There are no requirements.
    unsafe { bindings::ersatz_large_folio_rest(address) }
}

/// The addresses of a range that a process names.
///
/// # Errors
///
/// `EINVAL` if it is empty, wraps, or does not consist of pages.
pub(crate) fn page_range(address: u64, length: u64) -> Result<Range<usize>> {
    let (start, length) = (usize::try_from(address)?, usize::try_from(length)?);
    let end = start.checked_add(length).ok_or(EINVAL)?;
    if length == 0 || (start | end) & !PAGE_MASK != 0 {
        return Err(EINVAL);
    }
    Ok(start..end)
}

/// A VMA of an mm that is locked for reading.
///
/// The `kernel` crate's [`VmaRef`] may also stand for a VMA that is locked alone, which is not enough for migrating.
///
/// # Invariants
///
/// The VMA is valid and its mm locked for reading for `'a`.
#[derive(Clone, Copy)]
pub(crate) struct LockedVma<'a>(&'a VmaRef);

impl<'a> LockedVma<'a> {
    /// # Safety
    ///
    /// `vma` points to a valid VMA, whose mm is locked for reading for `'a`.
    pub(crate) unsafe fn from_raw(vma: *mut bindings::vm_area_struct) -> Self {
        // SAFETY: By the function's requirements.
        Self(unsafe { VmaRef::from_raw(vma) })
    }

    /// Whether the area is of no file.
    pub(crate) fn is_anonymous(self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::ersatz_vma_is_anonymous(self.as_ptr()) }
    }

    /// Whether userfaultfd watches the area, for missing pages or for writes.
    pub(crate) fn has_userfaultfd(self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::ersatz_vma_has_userfaultfd(self.as_ptr()) }
    }

    /// Whether the process does not want huge folios here.
    pub(crate) fn is_thp_disabled(self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::ersatz_vma_is_thp_disabled(self.as_ptr()) }
    }

    /// Whether the kernel refuses to hand out the area's pages (`get_user_pages()`): they are a device's, or secret.
    pub(crate) fn refuses_gup(self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::ersatz_vma_refuses_gup(self.as_ptr()) }
    }

    /// Whether the area permits any access.
    pub(crate) fn is_accessible(self) -> bool {
        self.flags() & (flags::READ | flags::WRITE | flags::EXEC) != 0
    }
}

impl Deref for LockedVma<'_> {
    type Target = VmaRef;

    fn deref(&self) -> &VmaRef {
        self.0
    }
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
    pub(crate) fn first_in(&self, range: Range<usize>) -> Option<(LockedVma<'_>, Range<usize>)> {
        // SAFETY: `mm` is valid and locked for reading.
        let vma = unsafe { bindings::ersatz_find_vma(self.mm.as_raw(), range.start) };
        if vma.is_null() {
            return None;
        }
        // SAFETY: The VMA is valid, and cannot go while the mm is locked, which is as long as `self` lives.
        let vma = unsafe { LockedVma::from_raw(vma) };
        let part = vma.start().max(range.start)..vma.end().min(range.end);
        (!part.is_empty()).then_some((vma, part))
    }
}

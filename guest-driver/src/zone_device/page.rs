// SPDX-License-Identifier: GPL-2.0
//! Pages that are held and locked: what a migration moves to.

use crate::bindings;
use core::ptr::NonNull;
use kernel::{error::to_result, ffi, mm::virt::VmaRef, prelude::*};

/// A page frame number.
pub(crate) type Pfn = usize;

/// A single (order 0) page, of the system's memory or of a device's, locked and referenced by the owner of this value.
///
/// Dropping it unlocks the page and gives the reference back, which frees a page that nobody else uses.
///
/// # Invariants
///
/// `page` points to a valid `struct page` of order 0, of memory as `side` says. This value owns its lock and one reference.
pub(crate) struct LockedPage {
    page: NonNull<bindings::page>,
    side: Side,
}

/// Whose memory a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The system's.
    System,
    /// A device's, with pages from a [`PageMap`](super::pagemap::PageMap).
    Device,
}

// SAFETY: A page lock and a page reference may be released by another task than the one that took them.
unsafe impl Send for LockedPage {}

impl LockedPage {
    /// Takes over a page.
    ///
    /// # Safety
    ///
    /// `page` is a valid page of order 0 on side `side`; its lock and one reference are the caller's, who gives both up.
    pub(super) unsafe fn from_raw(page: NonNull<bindings::page>, side: Side) -> Self {
        // INVARIANT: What the caller guarantees.
        Self { page, side }
    }

    /// Allocates a page of system memory, to become a user's page wherever that is mapped.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new_system() -> Result<Self> {
        // SAFETY: There are no requirements.
        Self::locked(unsafe { bindings::ersatz_alloc_page() })
    }

    /// Allocates a page of system memory by the NUMA policy of `vma` at `address`.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new_for_vma(vma: &VmaRef, address: usize) -> Result<Self> {
        // SAFETY: `vma` is valid and locked for as long as its reference lives.
        Self::locked(unsafe { bindings::ersatz_alloc_page_vma(vma.as_ptr(), address) })
    }

    fn locked(page: *mut bindings::page) -> Result<Self> {
        let page = NonNull::new(page).ok_or(ENOMEM)?;
        // SAFETY: The page was just allocated, so it is valid and nobody else has its lock.
        unsafe { bindings::ersatz_lock_page(page.as_ptr()) };
        // INVARIANT: The reference is the one the page was allocated with, the lock was just taken.
        Ok(Self { page, side: Side::System })
    }

    /// The page's frame number.
    pub(crate) fn pfn(&self) -> Pfn {
        // SAFETY: By the type invariants the page is valid.
        unsafe { bindings::ersatz_page_to_pfn(self.page.as_ptr()) }
    }

    /// Whose memory the page is.
    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// Gives the lock and the reference to the caller.
    pub(super) fn into_raw(self) -> NonNull<bindings::page> {
        let page = self.page;
        core::mem::forget(self);
        page
    }
}

impl Drop for LockedPage {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the lock is ours.
        unsafe { bindings::ersatz_unlock_page(self.page.as_ptr()) };
        // SAFETY: By the type invariants we have a reference, which is not used again.
        unsafe { bindings::ersatz_put_page(self.page.as_ptr()) };
    }
}

/// Has every CPU give up the references in its lists of pages (`mm/swap.c`, `mm/mlock.c`), which otherwise wait for something
/// else to be put there: on an idle CPU that may be never. A page that was locked and then unmapped is held so.
///
/// Sleeps.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn drain_cpu_lists() -> Result {
    extern "C" fn drain(_: *mut ffi::c_void) -> ffi::c_long {
        // Isolating begins with draining the lists of the CPU it runs on (`migrate_device_unmap()`); nothing else that is exported
        // does. No page is isolated.
        // SAFETY: With no pages there are no entries that must be valid.
        unsafe { bindings::migrate_device_range(core::ptr::null_mut(), 0, 0) as ffi::c_long }
    }
    // SAFETY: `drain` looks at no argument, may sleep, and is in this module, which is not unloaded while it runs: this
    // function returns after it.
    let result = unsafe { bindings::ersatz_on_each_online_cpu(Some(drain), core::ptr::null_mut()) };
    to_result(result as i32)
}

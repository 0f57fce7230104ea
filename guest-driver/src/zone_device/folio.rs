// SPDX-License-Identifier: GPL-2.0
//! Folios that are held and locked: the destinations of a migration.

use super::{frames::BLOCK_ORDER, homes::Node};
use crate::bindings;
use core::ptr::NonNull;
use kernel::{mm::virt::VmaRef, page::PAGE_SIZE, prelude::*};

/// A page frame number.
pub(crate) type Pfn = usize;

/// The order of a huge folio, which one entry of a PMD table can map.
pub(crate) const HUGE_ORDER: u32 = BLOCK_ORDER;
/// The size of a huge folio in bytes.
pub(crate) const HUGE_SIZE: usize = PAGE_SIZE << HUGE_ORDER;

/// A folio, of the system's memory or of a device's, locked and referenced by the owner of this value.
///
/// Dropping it unlocks the folio and gives the reference back, which frees a folio that nobody else uses.
///
/// # Invariants
///
/// `head` points to the first page of a valid folio of order `order`, of memory as `side` says. This value owns its lock and one
/// reference.
pub(crate) struct LockedFolio {
    head: NonNull<bindings::page>,
    order: u32,
    side: Side,
}

/// Whose memory a folio is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The system's.
    System,
    /// A device's, with folios from a [`PageMap`](super::pagemap::PageMap).
    Device,
    /// Nobody's: a [stand-in](super::stand_in).
    StandIn,
}

// SAFETY: A folio's lock and a reference to it may be released by another task than the one that took them.
unsafe impl Send for LockedFolio {}

impl LockedFolio {
    /// Takes over a folio.
    ///
    /// # Safety
    ///
    /// `head` is the first page of a valid folio of order `order` on side `side`; its lock and one reference are the caller's, who
    /// gives both up.
    pub(super) unsafe fn from_raw(head: NonNull<bindings::page>, order: u32, side: Side) -> Self {
        // INVARIANT: What the caller guarantees.
        Self { head, order, side }
    }

    /// Allocates a folio of system memory, to become user memory wherever it will be mapped: on a node, or else the local one, or another if
    /// that has no memory.
    ///
    /// May sleep. For an order above 0 the kernel does not reclaim much: the caller has single pages to fall back to.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` for an order above [`HUGE_ORDER`].
    pub(crate) fn new_system(order: u32, node: Option<Node>) -> Result<Self> {
        let node = node.map_or(-1, Node::into_raw);
        // SAFETY: The node is one that the memory manager named, or none.
        Self::allocate(order, || unsafe { bindings::ersatz_alloc_folio_node(order, node) })
    }

    /// Allocates a folio of system memory by the NUMA policy of `vma` at `address`. Otherwise as [`LockedFolio::new_system`].
    ///
    /// # Errors
    ///
    /// As for [`LockedFolio::new_system`].
    pub(crate) fn new_for_vma(order: u32, vma: &VmaRef, address: usize) -> Result<Self> {
        // SAFETY: `vma` is valid and locked for as long as its reference lives.
        Self::allocate(order, || unsafe { bindings::ersatz_alloc_folio_vma(order, vma.as_ptr(), address) })
    }

    fn allocate(order: u32, allocate: impl FnOnce() -> *mut bindings::page) -> Result<Self> {
        if order > HUGE_ORDER {
            return Err(EINVAL);
        }
        let head = NonNull::new(allocate()).ok_or(ENOMEM)?;
        // SAFETY: The folio was just allocated, so it is valid and nobody else has its lock.
        unsafe { bindings::ersatz_lock_page(head.as_ptr()) };
        // INVARIANT: The reference is the one the folio was allocated with, the lock was just taken.
        Ok(Self { head, order, side: Side::System })
    }

    /// The frame number of the folio's first page.
    pub(crate) fn pfn(&self) -> Pfn {
        // SAFETY: By the type invariants the page is valid.
        unsafe { bindings::ersatz_page_to_pfn(self.head.as_ptr()) }
    }

    /// Base-2 logarithm of the folio's number of pages.
    pub(crate) fn order(&self) -> u32 {
        self.order
    }

    /// Whose memory the folio is.
    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// Gives the lock and the reference to the caller.
    pub(super) fn into_raw(self) -> NonNull<bindings::page> {
        let head = self.head;
        core::mem::forget(self);
        head
    }
}

impl Drop for LockedFolio {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the lock is ours.
        unsafe { bindings::ersatz_unlock_page(self.head.as_ptr()) };
        // SAFETY: By the type invariants we have a reference, which is not used again.
        unsafe { bindings::ersatz_put_page(self.head.as_ptr()) };
    }
}

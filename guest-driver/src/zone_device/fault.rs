// SPDX-License-Identifier: GPL-2.0
//! A CPU's touch of a private page, and how it ends.

use super::folio::{Pfn, HUGE_SIZE};
use crate::{bindings, kernel_ext::mm::LockedVma};
use core::ops::Range;
use kernel::{
    page::{PAGE_MASK, PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
};

/// How a CPU fault on a private page ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultEnd {
    /// The CPU tries again: the page has moved, or somebody else is about to move it.
    Retry,
    /// There was no memory to move the page to.
    OutOfMemory,
    /// The content cannot be reached: the process gets `SIGBUS`.
    Lost,
    /// The content is known to be lost: the process gets `SIGBUS` with `BUS_MCEERR_AR`.
    Poisoned,
}

impl FaultEnd {
    /// The kernel's bits for it (`enum vm_fault_reason`); zero for a retry.
    pub(crate) fn into_raw(self) -> bindings::vm_fault_t {
        match self {
            Self::Retry => 0,
            Self::OutOfMemory => bindings::vm_fault_reason_VM_FAULT_OOM,
            Self::Lost => bindings::vm_fault_reason_VM_FAULT_SIGBUS,
            Self::Poisoned => bindings::vm_fault_reason_VM_FAULT_HWPOISON,
        }
    }
}

impl From<Result> for FaultEnd {
    fn from(result: Result) -> Self {
        match result {
            Ok(()) => Self::Retry,
            Err(error) if error == ENOMEM => Self::OutOfMemory,
            Err(_) => Self::Lost,
        }
    }
}

/// A CPU's touch of a private page.
///
/// # Invariants
///
/// `vmf` is the argument of a running `migrate_to_ram()`: its VMA is valid and its mm locked for reading, its page is a
/// device page, whose folio the caller has locked and referenced.
pub(crate) struct CpuFault<'a> {
    vmf: &'a bindings::vm_fault,
}

impl<'a> CpuFault<'a> {
    /// # Safety
    ///
    /// `vmf` is valid for `'a`, and as the type invariants say.
    pub(super) unsafe fn from_raw(vmf: *const bindings::vm_fault) -> Self {
        // SAFETY: By the function's requirements.
        Self { vmf: unsafe { &*vmf } }
    }

    /// The VMA that was touched.
    pub(crate) fn vma(&self) -> LockedVma<'_> {
        // SAFETY: By the type invariants.
        unsafe { LockedVma::from_raw(self.vmf.__bindgen_anon_1.vma) }
    }

    /// The address that was touched, rounded down to its page.
    pub(crate) fn address(&self) -> usize {
        self.vmf.__bindgen_anon_1.address & PAGE_MASK
    }

    /// Base-2 logarithm of the number of pages in the folio of the page.
    pub(crate) fn order(&self) -> u32 {
        // SAFETY: By the type invariants the page is valid, and its folio locked, so that it is not split.
        unsafe { bindings::ersatz_page_order(self.vmf.page) }
    }

    /// Whether an entry of a page table was touched; otherwise it was one of a PMD table, which maps a huge folio.
    pub(crate) fn is_of_page_table(&self) -> bool {
        !self.vmf.pte.is_null()
    }

    /// What to bring back for the fault: the folio that was touched, or if that is a single page, it and what is around it in an aligned block of
    /// `chunk` bytes, a power of two of at least a page, as far as the VMA reaches.
    pub(crate) fn window(&self, chunk: usize) -> Range<usize> {
        let address = self.address();
        let size = match self.order() {
            0 => chunk,
            // Anything smaller would have the kernel split the folio while it holds one reference too many.
            _ if !self.is_of_page_table() => HUGE_SIZE,
            // The kernel splits the folio, and takes the wrong part of it for the locked one if it meets others first.
            _ => PAGE_SIZE,
        };
        let start = address & !(size - 1);
        start.max(self.vma().start())..start.saturating_add(size).min(self.vma().end())
    }

    /// The page frame that was touched.
    pub(super) fn pfn(&self) -> Pfn {
        // A fault at a PMD entry names the head of its folio.
        let ahead =
            if self.is_of_page_table() { 0 } else { (self.address() >> PAGE_SHIFT) & ((1 << self.order()) - 1) };
        // SAFETY: By the type invariants the page is valid, and its folio locked: a page so far behind the head is one of the folio.
        unsafe { bindings::ersatz_page_to_pfn(self.vmf.page.add(ahead)) }
    }

    pub(super) fn page(&self) -> *mut bindings::page {
        self.vmf.page
    }
}

// SPDX-License-Identifier: GPL-2.0
//! Looking at a process's pages, and working on them while they stay put.
//!
//! The protocol is that of `Documentation/mm/hmm.rst`: read the notifier's sequence number, walk the page tables, take the
//! lock that the invalidation callback takes, and start over if something was invalidated in between. While the lock is
//! held whoever wants to unmap a page of the range waits.

use super::{
    folio::{Pfn, HUGE_SIZE},
    pagemap::Owner,
};
use crate::{
    bindings,
    kernel_ext::{dma::SystemMappings, mm::Vmas, signal},
};
use core::ops::Range;
use kernel::{
    device::{Bound, Device},
    dma::{DataDirection, DmaAddress},
    error::to_result,
    mm::MmWithUser,
    new_mutex,
    page::{PAGE_MASK, PAGE_SHIFT},
    prelude::*,
    sync::{lock::mutex::MutexGuard, Mutex},
    types::Opaque,
};

/// How to look at a page that is not present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// As it is.
    Peek,
    /// As a read of the CPU would find it: faulted in.
    Read,
}

/// What was found at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// No page.
    Absent,
    /// A page, of the system or of the device that was named as owner.
    Present(Pfn),
}

/// All that is known of an address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    /// No mapping, or none that can be read.
    Error,
    /// No page.
    Absent,
    /// A page.
    Present {
        pfn: Pfn,
        /// Whether the process may write it now.
        write: bool,
        /// Base-2 logarithm of the number of pages that its entry in the page tables maps.
        map_order: u32,
        /// Whether it is the kernel's page of zeros.
        is_zero: bool,
        /// Whether it is a device's.
        is_of_device: bool,
    },
}

/// A range of a process's memory that is watched for invalidations.
///
/// # Invariants
///
/// `notifier` is inserted into the mm for `walked`, from construction to drop; `walked` is page-aligned and not empty.
#[pin_data(PinnedDrop)]
pub(crate) struct Mirror<'a> {
    #[pin]
    notifier: Opaque<bindings::mmu_interval_notifier>,
    /// Held while the range's pages are worked on; an invalidation needs it.
    #[pin]
    update: Mutex<()>,
    mm: &'a MmWithUser,
    /// What is looked at: the range asked for, and what is before it in the part of the address space that one entry of a PMD table covers.
    /// The page frames that HMM reports inside a huge folio of a device's private memory are right only if it starts where the folio does
    /// (`hmm_vma_walk_pmd()`).
    walked: Range<usize>,
    /// Number of pages in `walked` before the range that was asked for.
    skipped: usize,
}

impl<'a> Mirror<'a> {
    const OPS: bindings::mmu_interval_notifier_ops =
        bindings::mmu_interval_notifier_ops { invalidate: Some(Self::invalidate_callback), ..pin_init::zeroed() };

    /// Watches a range. The mm must not be locked by the caller.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` for a range that is empty or not page-aligned; `EOVERFLOW` for one at the very end of the address space.
    pub(crate) fn new(mm: &'a MmWithUser, range: Range<usize>) -> impl PinInit<Self, Error> + 'a {
        let is_valid = !range.is_empty() && (range.start | range.end) & !PAGE_MASK == 0;
        let walked = range.start / HUGE_SIZE * HUGE_SIZE..range.end;
        let skipped = (range.start - walked.start) >> PAGE_SHIFT;
        let (start, length) = (walked.start, walked.len());
        try_pin_init!(Self {
            update <- new_mutex!((), "ersatz_mirror"),
            notifier <- Opaque::try_ffi_init(move |slot: *mut bindings::mmu_interval_notifier| {
                if !is_valid {
                    return Err(EINVAL);
                }
                // SAFETY: `slot` is valid for writes and pinned until the notifier is removed on drop. The callback
                // takes a lock, which is initialised. `mm` has users.
                to_result(unsafe {
                    bindings::mmu_interval_notifier_insert(slot, mm.as_raw(), start, length, &Self::OPS)
                })
            }),
            mm,
            walked,
            skipped,
        })
    }

    /// Looks at all pages of the range and calls `work` while they stay put.
    ///
    /// `pfns` needs one element for each page, and for those before the range as far back as the last multiple of the size of a huge folio; what it
    /// holds means nothing. `work` must not allocate memory in ways that could
    /// reclaim, nor touch user memory: either could wait for the very lock it runs under.
    ///
    /// # Errors
    ///
    /// `EFAULT` if [`Access::Read`] finds something that cannot be read, or that is not handed out to devices (another device's memory, secret
    /// memory); `EINVAL` for too few elements; `EINTR` if a signal came first.
    pub(crate) fn with_pages<R>(
        &self,
        owner: Owner<'_>,
        access: Access,
        pfns: &mut [usize],
        work: impl FnOnce(&Pages<'_>) -> R,
    ) -> Result<R> {
        let pages = self.walked.len() >> PAGE_SHIFT;
        let pfns = pfns.get_mut(..pages).ok_or(EINVAL)?;
        loop {
            // SAFETY: By the type invariants the notifier is inserted.
            let seq = unsafe { bindings::mmu_interval_read_begin(self.notifier.get()) };
            match self.walk(owner, access, pfns, seq) {
                Err(error) if error == EBUSY => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    let lock = self.update.lock();
                    // SAFETY: By the type invariants the notifier is inserted; the lock its callback takes is held.
                    if !unsafe { bindings::ersatz_mmu_interval_read_retry(self.notifier.get(), seq) } {
                        return Ok(work(&Pages { pfns: &pfns[self.skipped..], _lock: &lock }));
                    }
                }
            }
            if signal::is_fatal_pending() {
                return Err(EINTR);
            }
            kernel::task::might_sleep();
        }
    }

    fn walk(&self, owner: Owner<'_>, access: Access, pfns: &mut [usize], seq: usize) -> Result {
        let request = match access {
            Access::Peek => 0,
            Access::Read => bindings::hmm_pfn_flags_HMM_PFN_REQ_FAULT,
        };
        // What is before the range is only looked at.
        let (before, wanted) = pfns.split_at_mut(self.skipped);
        before.fill(0);
        wanted.fill(request);
        let mut range = bindings::hmm_range {
            notifier: self.notifier.get(),
            notifier_seq: seq,
            start: self.walked.start,
            end: self.walked.end,
            hmm_pfns: pfns.as_mut_ptr(),
            default_flags: 0,
            pfn_flags_mask: request,
            dev_private_owner: owner.raw,
        };
        let vmas = Vmas::lock(self.mm);
        if access == Access::Read {
            self.check_vmas(&vmas)?;
        }
        // SAFETY: The notifier is inserted for the range, there is one element of `pfns` for each page, the mm is locked.
        to_result(unsafe { bindings::hmm_range_fault(&mut range) })
    }

    /// Refuses areas whose pages the kernel does not hand out, which `hmm_range_fault()` does not.
    fn check_vmas(&self, vmas: &Vmas<'_>) -> Result {
        let mut rest = self.walked.start + (self.skipped << PAGE_SHIFT)..self.walked.end;
        while let Some((vma, part)) = vmas.first_in(rest.clone()) {
            if vma.refuses_gup() {
                return Err(EFAULT);
            }
            rest.start = part.end;
            if rest.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Called by the memory manager before a page of the range goes.
    ///
    /// # Safety
    ///
    /// `notifier` is the one of a live `Mirror`, `range` is valid for the call.
    unsafe extern "C" fn invalidate_callback(
        notifier: *mut bindings::mmu_interval_notifier,
        range: *const bindings::mmu_notifier_range,
        seq: usize,
    ) -> bool {
        let inner = Opaque::cast_from(notifier.cast_const());
        // SAFETY: The memory manager passes the notifier of a live `Mirror`.
        let mirror = unsafe { &*kernel::container_of!(inner, Self, notifier) };
        // SAFETY: `range` is valid for this call.
        let lock = if unsafe { bindings::ersatz_mmu_notifier_range_blockable(range) } {
            mirror.update.lock()
        } else {
            match mirror.update.try_lock() {
                Some(lock) => lock,
                None => return false,
            }
        };
        // SAFETY: The notifier is inserted, and the lock that readers hold is held.
        unsafe { bindings::ersatz_mmu_interval_set_seq(notifier, seq) };
        drop(lock);
        true
    }
}

#[pinned_drop]
impl PinnedDrop for Mirror<'_> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants the notifier is inserted; it is removed once.
        unsafe { bindings::mmu_interval_notifier_remove(self.notifier.get()) };
    }
}

/// The pages of a [`Mirror`]'s range, none of which goes while this lives.
pub(crate) struct Pages<'a> {
    pfns: &'a [usize],
    _lock: &'a MutexGuard<'a, ()>,
}

impl Pages<'_> {
    /// What is at page `index` of the range.
    pub(crate) fn view(&self, index: usize) -> View {
        let entry = self.pfns.get(index).copied().unwrap_or(0);
        if entry & bindings::hmm_pfn_flags_HMM_PFN_VALID == 0 {
            return View::Absent;
        }
        View::Present(entry & !bindings::hmm_pfn_flags_HMM_PFN_FLAGS)
    }

    /// All that is known of page `index` of the range.
    pub(crate) fn entry(&self, index: usize) -> Entry {
        let entry = self.pfns.get(index).copied().unwrap_or(0);
        if entry & bindings::hmm_pfn_flags_HMM_PFN_ERROR == bindings::hmm_pfn_flags_HMM_PFN_ERROR {
            return Entry::Error;
        }
        let View::Present(pfn) = self.view(index) else {
            return Entry::Absent;
        };
        Entry::Present {
            pfn,
            write: entry & bindings::hmm_pfn_flags_HMM_PFN_WRITE != 0,
            // SAFETY: There are no requirements.
            map_order: unsafe { bindings::ersatz_hmm_pfn_map_order(entry) },
            // SAFETY: As above.
            is_zero: unsafe { bindings::ersatz_pfn_is_zero(pfn) },
            // SAFETY: As above.
            is_of_device: !unsafe { bindings::ersatz_pfn_is_system(pfn) },
        }
    }

    /// Mappings of these pages for the device to read, none yet.
    pub(crate) fn mappings<'b>(&'b self, dev: &'b Device<Bound>) -> PagesMappings<'b> {
        // The pages are held, so reclaim must not be waited for.
        let mappings = SystemMappings::new(dev, DataDirection::ToDevice, self.pfns.len(), GFP_NOWAIT);
        PagesMappings { pages: self, mappings }
    }
}

/// DMA mappings of held pages.
pub(crate) struct PagesMappings<'a> {
    pages: &'a Pages<'a>,
    mappings: SystemMappings<'a>,
}

impl PagesMappings<'_> {
    /// Maps page `index`, which must be the system's. Returns its bus address.
    ///
    /// # Errors
    ///
    /// `EFAULT` if nothing is mapped there, or a page of a device; `EIO` if it cannot be mapped; `ENOMEM`.
    pub(crate) fn map(&mut self, index: usize) -> Result<DmaAddress> {
        let View::Present(pfn) = self.pages.view(index) else {
            return Err(EFAULT);
        };
        // SAFETY: There are no requirements.
        if !unsafe { bindings::ersatz_pfn_is_system(pfn) } {
            return Err(EFAULT);
        }
        // SAFETY: The page is mapped in the process and cannot be unmapped while the lock is held, which `pages` has; the device only reads.
        unsafe { self.mappings.map(pfn, 1) }.map(|(address, _)| address)
    }

    /// Makes the mappings usable, once all are made.
    ///
    /// # Errors
    ///
    /// `EIO` if the device cannot be given access.
    pub(crate) fn finish(&mut self) -> Result {
        self.mappings.finish()
    }
}

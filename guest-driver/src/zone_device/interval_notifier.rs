// SPDX-License-Identifier: GPL-2.0
//! Page tables of a device that follow those of a process: an interval notifier over the process's address space, and faults that are
//! answered from the process's own page tables.
//!
//! The protocol is that of `Documentation/mm/hmm.rst`, with the mm locked for reading from the walk to the entry: what needs it for
//! writing (unmapping, moving, protecting) cannot collide, and what does not need it (reclaim, migration, `MADV_DONTNEED`) has the
//! walk done again.
//!
//! # Locks
//!
//! The mm, then the notifier's lock (the memory manager calls [`Mirrored::invalidate`] with the mm locked in any way, or not at all).
//! Under the latter nothing is allocated in ways that reclaim and no user memory is touched: either could wait for an invalidation, which
//! waits for that lock.

use super::{
    folio::{Pfn, HUGE_SIZE},
    pagemap::Owner,
};
use crate::{
    bindings,
    kernel_ext::{
        dma::MappedPage,
        mm::{LockedVma, Vmas},
        signal,
    },
};
use core::{ops::Range, ptr};
use kernel::{
    device::{Bound, Device},
    error::{from_err_ptr, to_result},
    ffi,
    mm::MmWithUser,
    new_mutex,
    page::{PAGE_MASK, PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    sync::{lock::mutex::MutexGuard, Mutex},
    time::{Delta, Instant, Monotonic},
    types::Opaque,
};

/// Elements that a walk needs: one for each page that an entry of a PMD table covers.
pub(crate) const WALK_PAGES: usize = HUGE_SIZE / PAGE_SIZE;
/// How often to walk again for what may as well be left.
const ATTEMPTS: u32 = 3;
/// How long to walk again and again while others invalidate.
const PATIENCE: Delta = Delta::from_secs(10);

/// What a device knows of a process's pages.
///
/// # Safety
///
/// Once [`Mirrored::invalidate`] has returned for a range, the device does not access the pages that were recorded for it, and every
/// [`MappedPage`] of them is dropped. All are dropped, and the device's accesses have ended, before the device is unbound.
pub(crate) unsafe trait Mirrored: Send + Unpin + 'static {
    /// Forgets all pages of a range. May sleep, but not allocate memory in ways that reclaim.
    fn invalidate(&mut self, range: Range<usize>);

    /// Whether a page of the range is known.
    fn knows_any(&mut self, range: Range<usize>) -> bool;
}

/// A mirror of a process's address space that the memory manager invalidates.
///
/// # Invariants
///
/// `notifier` is inserted into the mm at `mm`, from construction to drop, and keeps that from being freed.
#[pin_data(PinnedDrop)]
pub(crate) struct IntervalNotifier<M: Mirrored> {
    #[pin]
    notifier: Opaque<bindings::mmu_interval_notifier>,
    #[pin]
    mirrored: Mutex<M>,
    mm: *mut bindings::mm_struct,
    length: usize,
}

// SAFETY: A notifier may be used and removed by any thread; `mm` is only compared.
unsafe impl<M: Mirrored> Send for IntervalNotifier<M> {}
// SAFETY: As above; what is mirrored is behind a lock.
unsafe impl<M: Mirrored> Sync for IntervalNotifier<M> {}

impl<M: Mirrored> IntervalNotifier<M> {
    const OPS: bindings::mmu_interval_notifier_ops =
        bindings::mmu_interval_notifier_ops { invalidate: Some(Self::invalidate_callback), ..pin_init::zeroed() };

    /// Watches the first `length` bytes of an address space, a multiple of the size of a page. The mm must not be locked by the caller.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new<'a>(mm: &'a MmWithUser, length: usize, mirrored: M) -> impl PinInit<Self, Error> + 'a {
        let raw = mm.as_raw();
        try_pin_init!(Self {
            mm: raw,
            mirrored <- new_mutex!(mirrored, "ersatz_mirrored"),
            notifier <- Opaque::try_ffi_init(move |slot: *mut bindings::mmu_interval_notifier| {
                // SAFETY: `slot` is valid for writes and pinned until the notifier is removed on drop. The callback takes a lock, which is
                // initialised. The mm has users. INVARIANT: Inserted if this succeeds.
                to_result(unsafe { bindings::mmu_interval_notifier_insert(slot, raw, 0, length, &Self::OPS) })
            }),
            length,
        })
    }

    /// Whether this mirrors `mm`.
    pub(crate) fn is_of(&self, mm: &MmWithUser) -> bool {
        // An mm that is mirrored is not freed, so no other has its address.
        self.mm == mm.as_raw()
    }

    /// Locks what is mirrored. Invalidations wait.
    pub(crate) fn lock(&self) -> MutexGuard<'_, M> {
        self.mirrored.lock()
    }

    /// Faults pages in as a CPU's accesses would, and calls `work` with them and what else is present of their mapping within `window`, a power
    /// of two up to 2 MiB, around the first. None of them goes while `work` runs.
    ///
    /// `pfns` needs [`WALK_PAGES`] elements. `work` must not allocate memory in ways that reclaim, nor touch user memory.
    ///
    /// # Errors
    ///
    /// `EFAULT` or `EPERM` if the process cannot access a page so, or it is not handed out to devices; `EINVAL` for another process's `mm`, or
    /// pages that two entries of a PMD table cover; `EINTR` if the process is being killed; `ETIMEDOUT` if others invalidate all the time.
    pub(crate) fn with_pages<R>(
        &self,
        mm: &MmWithUser,
        owner: Owner<'_>,
        wanted: &Wanted,
        window: usize,
        pfns: &mut [usize],
        work: impl FnOnce(&mut M, &PresentPages<'_>) -> R,
    ) -> Result<R> {
        let Range { start: page, end } = wanted.pages;
        // From where a huge folio would begin: see `Mirror`.
        let block = page / HUGE_SIZE * HUGE_SIZE;
        let is_valid = page < end && (page | end) & !PAGE_MASK == 0 && end <= self.length && end - block <= HUGE_SIZE;
        if !self.is_of(mm) || !is_valid || window > HUGE_SIZE || pfns.len() < WALK_PAGES {
            return Err(EINVAL);
        }
        let start = Instant::<Monotonic>::now();
        loop {
            let vmas = Vmas::lock(mm);
            let mapping = mapping_of(&vmas, &wanted.pages)?;
            let first = page & !(window - 1);
            let around = first.max(mapping.start)..(first + window).min(mapping.end).max(end);
            let walked = block..around.end;
            let entries = pfns.get_mut(..walked.len() >> PAGE_SHIFT).ok_or(EINVAL)?;
            // SAFETY: By the type invariants the notifier is inserted.
            let seq = unsafe { bindings::mmu_interval_read_begin(self.notifier.get()) };
            match self.walk(owner, wanted, walked.clone(), entries, seq) {
                Err(error) if error == EBUSY => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    let mut mirrored = self.mirrored.lock();
                    // SAFETY: By the type invariants the notifier is inserted; the lock its callback takes is held.
                    if !unsafe { bindings::ersatz_mmu_interval_read_retry(self.notifier.get(), seq) } {
                        let entries = &entries[(around.start - walked.start) >> PAGE_SHIFT..];
                        return Ok(work(&mut *mirrored, &PresentPages { start: around.start, entries }));
                    }
                }
            }
            drop(vmas);
            if signal::is_fatal_pending() {
                return Err(EINTR);
            }
            if start.elapsed() > PATIENCE {
                return Err(ETIMEDOUT);
            }
            kernel::task::might_sleep();
        }
    }

    /// Calls `work` with what is present of a page-aligned range of a mapping, which one entry of a PMD table covers. Nothing is faulted in. None of
    /// the pages goes while `work` runs.
    ///
    /// `pfns` and `work` are as for [`IntervalNotifier::with_pages`].
    ///
    /// # Errors
    ///
    /// `EINVAL` for another process's mapping, or a range that is not all of it or that two entries of a PMD table cover; `EFAULT` for memory
    /// that is not handed out to devices; `EBUSY` if others invalidate all the time.
    pub(crate) fn with_present_pages<R>(
        &self,
        vma: LockedVma<'_>,
        owner: Owner<'_>,
        range: Range<usize>,
        pfns: &mut [usize],
        work: impl FnOnce(&mut M, &PresentPages<'_>) -> R,
    ) -> Result<R> {
        let block = range.start / HUGE_SIZE * HUGE_SIZE;
        let is_inside = vma.start() <= range.start && range.end <= vma.end() && range.end <= self.length;
        let is_valid =
            !range.is_empty() && (range.start | range.end) & !PAGE_MASK == 0 && range.end - block <= HUGE_SIZE;
        if !self.is_of(vma.mm()) || !is_inside || !is_valid {
            return Err(EINVAL);
        }
        if vma.refuses_gup() {
            return Err(EFAULT);
        }
        // From where a huge folio would begin: see `Mirror`.
        let entries = pfns.get_mut(..(range.end - block) >> PAGE_SHIFT).ok_or(EINVAL)?;
        for _ in 0..ATTEMPTS {
            // SAFETY: By the type invariants the notifier is inserted.
            let seq = unsafe { bindings::mmu_interval_read_begin(self.notifier.get()) };
            entries.fill(0);
            match self.look(owner.raw, block..range.end, entries, seq) {
                Err(error) if error == EBUSY => continue,
                result => result?,
            }
            let mut mirrored = self.mirrored.lock();
            // SAFETY: By the type invariants the notifier is inserted; the lock its callback takes is held.
            if !unsafe { bindings::ersatz_mmu_interval_read_retry(self.notifier.get(), seq) } {
                let entries = &entries[(range.start - block) >> PAGE_SHIFT..];
                return Ok(work(&mut *mirrored, &PresentPages { start: range.start, entries }));
            }
        }
        Err(EBUSY)
    }

    /// Gives the device exclusive access to the page at `address`, faulted in for writing, and calls `work` with it. The access lasts until
    /// the page is invalidated, which a touch by a CPU does, too.
    ///
    /// `work` must not allocate memory in ways that reclaim, nor touch user memory.
    ///
    /// # Errors
    ///
    /// `EFAULT` or `EPERM` if the process cannot write to the page, or it is not the system's anonymous memory; `EBUSY` if it is in use in
    /// other ways; `EINVAL` for another process's `mm`; `EINTR` if the process is being killed; `ETIMEDOUT` if others invalidate all the time.
    pub(crate) fn with_exclusive_page<R>(
        &self,
        mm: &MmWithUser,
        address: usize,
        work: impl FnOnce(&mut M, &ExclusivePage) -> R,
    ) -> Result<R> {
        if !self.is_of(mm) || address >= self.length {
            return Err(EINVAL);
        }
        let start = Instant::<Monotonic>::now();
        let page = address & PAGE_MASK;
        loop {
            match self.fault_in_for_writing(mm, page) {
                Err(error) if error != EBUSY => return Err(error),
                _ => {}
            }
            // SAFETY: By the type invariants the notifier is inserted.
            let seq = unsafe { bindings::mmu_interval_read_begin(self.notifier.get()) };
            let page = {
                let _vmas = Vmas::lock(mm);
                ExclusivePage::make(mm, page, self.notifier.get().cast())?
            };
            let mut mirrored = self.mirrored.lock();
            // SAFETY: By the type invariants the notifier is inserted; the lock its callback takes is held.
            if !unsafe { bindings::ersatz_mmu_interval_read_retry(self.notifier.get(), seq) } {
                return Ok(work(&mut *mirrored, &page));
            }
            drop(mirrored);
            drop(page);
            if signal::is_fatal_pending() {
                return Err(EINTR);
            }
            if start.elapsed() > PATIENCE {
                return Err(ETIMEDOUT);
            }
        }
    }

    /// Faults a page in for writing. `make_device_exclusive()` would do so itself (end an exclusive access, bring the page back from a device, break
    /// COW), but each of these invalidates the page after the sequence number was read.
    fn fault_in_for_writing(&self, mm: &MmWithUser, page: usize) -> Result {
        // SAFETY: By the type invariants the notifier is inserted.
        let seq = unsafe { bindings::mmu_interval_read_begin(self.notifier.get()) };
        let _vmas = Vmas::lock(mm);
        let request = bindings::hmm_pfn_flags_HMM_PFN_REQ_FAULT | bindings::hmm_pfn_flags_HMM_PFN_REQ_WRITE;
        self.look(ptr::null_mut(), page..page + PAGE_SIZE, &mut [request], seq)
    }

    /// Faults pages in, and looks at all of `walked`, which has them.
    fn walk(
        &self,
        owner: Owner<'_>,
        wanted: &Wanted,
        walked: Range<usize>,
        entries: &mut [usize],
        seq: usize,
    ) -> Result {
        let mut request = bindings::hmm_pfn_flags_HMM_PFN_REQ_FAULT;
        if wanted.write {
            request |= bindings::hmm_pfn_flags_HMM_PFN_REQ_WRITE;
        }
        // By themselves: where one page is requested the kernel faults in all from there to the end of the walk (`hmm_vma_fault()`).
        let requests = entries.get_mut(..wanted.pages.len() >> PAGE_SHIFT).ok_or(EINVAL)?;
        requests.fill(request);
        self.look(owner.raw, wanted.pages.clone(), requests, seq)?;
        if !requests.iter().all(|entry| entry & request == request) {
            // The owner's private pages are reported as they are, not writable ones too, whatever is requested (`hmm_vma_handle_pte()`). As
            // nobody's they are faulted in, and come back.
            requests.fill(request);
            self.look(ptr::null_mut(), wanted.pages.clone(), requests, seq)?;
        }
        entries.fill(0);
        let first = (wanted.pages.start - walked.start) >> PAGE_SHIFT;
        self.look(owner.raw, walked, entries, seq)?;
        // What the first walk found may have gone; the second does not bring it back.
        let found = entries.get(first..first + (wanted.pages.len() >> PAGE_SHIFT)).ok_or(EINVAL)?;
        found.iter().all(|entry| entry & request == request).then_some(()).ok_or(EBUSY)
    }

    /// Replaces requests by what is found. The mm must be locked, and `entries` as many as the range has pages. Private pages of devices are
    /// brought back, but those of `owner`.
    fn look(&self, owner: *mut ffi::c_void, range: Range<usize>, entries: &mut [usize], seq: usize) -> Result {
        if entries.len() != range.len() >> PAGE_SHIFT {
            return Err(EINVAL);
        }
        let mut range = bindings::hmm_range {
            notifier: self.notifier.get(),
            notifier_seq: seq,
            start: range.start,
            end: range.end,
            hmm_pfns: entries.as_mut_ptr(),
            default_flags: 0,
            pfn_flags_mask: bindings::hmm_pfn_flags_HMM_PFN_REQ_FAULT | bindings::hmm_pfn_flags_HMM_PFN_REQ_WRITE,
            dev_private_owner: owner,
        };
        // SAFETY: The notifier is inserted for the range, there is one element for each page, the caller has locked the mm.
        to_result(unsafe { bindings::hmm_range_fault(&mut range) })
    }

    /// Called by the memory manager before a page of the address space goes.
    ///
    /// # Safety
    ///
    /// `notifier` is the one of a live `IntervalNotifier<M>`, `range` is valid for the call.
    unsafe extern "C" fn invalidate_callback(
        notifier: *mut bindings::mmu_interval_notifier,
        range: *const bindings::mmu_notifier_range,
        seq: usize,
    ) -> bool {
        let inner = Opaque::cast_from(notifier.cast_const());
        // SAFETY: The memory manager passes the notifier of a live `IntervalNotifier<M>`.
        let this = unsafe { &*kernel::container_of!(inner, Self, notifier) };
        // SAFETY: `range` is valid for this call.
        if unsafe { bindings::ersatz_mmu_notifier_range_is_exclusive_of(range, inner.cast()) } {
            // By `with_exclusive_page`: the page stays what it is to this device.
            return true;
        }
        // SAFETY: `range` is valid for this call.
        let (addresses, may_block) =
            unsafe { ((*range).start..(*range).end, bindings::ersatz_mmu_notifier_range_blockable(range)) };
        let mut mirrored = if may_block {
            this.mirrored.lock()
        } else {
            match this.mirrored.try_lock() {
                Some(mirrored) => mirrored,
                None => return false,
            }
        };
        // The device takes its time over forgetting.
        if !may_block && mirrored.knows_any(addresses.clone()) {
            return false;
        }
        // SAFETY: The notifier is inserted, and the lock that readers hold is held.
        unsafe { bindings::ersatz_mmu_interval_set_seq(notifier, seq) };
        mirrored.invalidate(addresses);
        true
    }
}

#[pinned_drop]
impl<M: Mirrored> PinnedDrop for IntervalNotifier<M> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants the notifier is inserted; it is removed once.
        unsafe { bindings::mmu_interval_notifier_remove(self.notifier.get()) };
    }
}

/// Where a device needs access.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The pages.
    pub(crate) pages: Range<usize>,
    /// Whether to write.
    pub(crate) write: bool,
}

/// The mapping that a range of pages begins in, all of which must be of mappings that the kernel hands out.
fn mapping_of(vmas: &Vmas<'_>, pages: &Range<usize>) -> Result<Range<usize>> {
    let mut mapping = None;
    let mut rest = pages.clone();
    while !rest.is_empty() {
        let (vma, part) = vmas.first_in(rest.clone()).ok_or(EFAULT)?;
        if part.start != rest.start || vma.refuses_gup() {
            return Err(EFAULT);
        }
        mapping.get_or_insert(vma.start()..vma.end());
        rest.start = part.end;
    }
    mapping.ok_or(EINVAL)
}

/// A page that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PresentPage {
    /// Its address.
    pub(crate) address: usize,
    /// Its page frame.
    pub(crate) pfn: Pfn,
    /// Whether the process may write it now.
    pub(crate) write: bool,
    /// Only [`PresentPages`] makes these.
    _of: (),
}

/// Pages around a fault, none of which goes while this lives.
pub(crate) struct PresentPages<'a> {
    start: usize,
    entries: &'a [usize],
}

impl PresentPages<'_> {
    /// The pages that are there, by address.
    pub(crate) fn iter(&self) -> impl Iterator<Item = PresentPage> + '_ {
        let present = |entry: usize| entry & bindings::hmm_pfn_flags_HMM_PFN_VALID != 0;
        self.entries.iter().enumerate().filter(move |(_, &entry)| present(entry)).map(|(index, &entry)| PresentPage {
            address: self.start + (index << PAGE_SHIFT),
            pfn: entry & !bindings::hmm_pfn_flags_HMM_PFN_FLAGS,
            write: entry & bindings::hmm_pfn_flags_HMM_PFN_WRITE != 0,
            _of: (),
        })
    }

    /// Maps a page of these for the device, to be recorded in the [`Mirrored`] that they are for.
    ///
    /// # Errors
    ///
    /// `EXDEV` if it is a device's; `EIO` if it cannot be mapped.
    pub(crate) fn map(&self, dev: &Device<Bound>, page: PresentPage) -> Result<MappedPage> {
        // SAFETY: There are no requirements.
        if !unsafe { bindings::ersatz_pfn_is_system(page.pfn) } {
            return Err(EXDEV);
        }
        // SAFETY: The page is mapped in the process and not unmapped before it is invalidated, which waits for the lock that is held; by the
        // safety requirements of `Mirrored` the mapping is dropped then, at the latest before the device is unbound.
        unsafe { MappedPage::new(dev, page.pfn) }
    }
}

/// A page that a device alone may access. Its folio is locked, which keeps CPUs from taking it back, until this is dropped.
///
/// # Invariants
///
/// `folio` is locked and referenced; `page` is a page of it, of the system.
pub(crate) struct ExclusivePage {
    page: *mut bindings::page,
    folio: *mut bindings::folio,
}

impl ExclusivePage {
    /// Makes a page exclusive on behalf of `owner`. The mm must be locked.
    fn make(mm: &MmWithUser, address: usize, owner: *mut ffi::c_void) -> Result<Self> {
        let mut folio = ptr::null_mut();
        // SAFETY: The mm has users and is locked by the caller; `owner` is only compared.
        let page = unsafe { bindings::ersatz_make_device_exclusive(mm.as_raw(), address, owner, &mut folio) };
        let page = from_err_ptr(page)?;
        // INVARIANT: The function returns the folio of the page, locked and with a reference.
        Ok(Self { page, folio })
    }

    /// Maps the page for the device, to be recorded in the [`Mirrored`] that it is for.
    ///
    /// # Errors
    ///
    /// `EXDEV` if it is a device's; `EIO` if it cannot be mapped.
    pub(crate) fn map(&self, dev: &Device<Bound>) -> Result<MappedPage> {
        // SAFETY: By the type invariants the page is valid.
        let pfn = unsafe { bindings::ersatz_page_to_pfn(self.page) };
        // SAFETY: There are no requirements.
        if !unsafe { bindings::ersatz_pfn_is_system(pfn) } {
            return Err(EXDEV);
        }
        // SAFETY: The entry that stands for the page in the process keeps it allocated, and is not taken away before the page is invalidated,
        // which waits for the lock that is held; by the safety requirements of `Mirrored` the mapping is dropped then, at the latest before the
        // device is unbound.
        unsafe { MappedPage::new(dev, pfn) }
    }
}

impl Drop for ExclusivePage {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the folio is locked and referenced.
        unsafe { bindings::ersatz_folio_unlock_put(self.folio) };
    }
}

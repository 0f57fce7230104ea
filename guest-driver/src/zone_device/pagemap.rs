// SPDX-License-Identifier: GPL-2.0
//! A range of device memory that the memory manager has `struct page`s for.
//!
//! # Order of the ends
//!
//! When a Rust driver is unbound, its driver data is dropped *before* device-managed resources are released, and
//! `memunmap_pages()`, which `devm_memremap_pages()` defers to that time, still uses the `dev_pagemap`, waits for pages in
//! use, and answers CPU faults meanwhile. So a [`PageMap`] does not live in driver data: [`PageMap::register`] first
//! hands one reference to the device's resource list, then registers the pages, then makes the map accessible. The list is released
//! last in, first out: access is revoked, which waits until nobody works on the pages, then they go, then that reference. Whatever
//! a fault needs must have been put on the list earlier still, or belong to the [`DeviceMemory`] inside the map.

use super::{
    fault::{CpuFault, FaultEnd},
    folio::{LockedFolio, Pfn, Side, HUGE_ORDER},
    frames::{Frames, BLOCK_PAGES},
    region::Region,
};
use crate::{
    bindings,
    kernel_ext::{raw::device_ptr, revocable::SleepableRevocable},
};
use core::{marker::PhantomData, ops::Range, ptr::NonNull};
use kernel::{
    device::{Bound, Device},
    devres,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{ordering, Atomic},
        Arc,
    },
    types::Opaque,
};

/// Who can reach the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `MEMORY_DEVICE_PRIVATE`: the device alone; a CPU's touch calls [`DeviceMemory::migrate_to_ram`].
    Private,
    /// `MEMORY_DEVICE_COHERENT`: device and CPU, coherently.
    Coherent,
}

/// What a driver does for its device pages.
pub(crate) trait DeviceMemory: Send + Sync + Sized + 'static {
    /// On which side of a migration its folios are.
    const SIDE: Side = Side::Device;

    /// Brings the page of a CPU fault back to system memory. Only called for [`Kind::Private`]. May sleep.
    fn migrate_to_ram(map: BoundMap<'_, Self>, fault: &CpuFault<'_>) -> FaultEnd;

    /// Gets the users of page `index` off it, whose content is lost: it was found to be poisoned. The page is not handed out
    /// again. May sleep.
    ///
    /// # Errors
    ///
    /// Any, if somebody still uses the page.
    fn memory_failure(map: BoundMap<'_, Self>, index: usize) -> Result;

    /// Hears that nobody uses some pages any more. Called in any context, hard interrupts included.
    fn freed(_dev: &Device, _pages: Range<usize>) {}
}

/// Device memory with `struct page`s.
///
/// # Invariants
///
/// - `raw` is initialised, and `raw.owner` is its own address.
/// - The pages are registered and `dev` is bound while there is a [`Registered`], and while one of them is referenced: no other way leads to
///   a reference to a map. They are no longer registered when the map is dropped.
/// - A frame is marked free in `frames` exactly while its reference count is zero, nobody initialises it, and it is not poisoned.
#[pin_data]
pub(crate) struct PageMap<T: DeviceMemory> {
    #[pin]
    raw: Opaque<bindings::dev_pagemap>,
    dev: ARef<Device>,
    kind: Kind,
    region: Region,
    frames: Frames,
    poisoned: Atomic<i64>,
    #[pin]
    memory: T,
}

// SAFETY: `raw` is only touched by the memory manager, which does its own locking; all else is `Send`.
unsafe impl<T: DeviceMemory> Send for PageMap<T> {}
// SAFETY: As above, and all else is `Sync`.
unsafe impl<T: DeviceMemory> Sync for PageMap<T> {}

/// Keeps a map until device-managed resources registered before it are released.
struct Keep<T: DeviceMemory> {
    _map: Arc<PageMap<T>>,
}

/// A map whose pages are registered.
pub(crate) struct Registered<T: DeviceMemory> {
    map: Arc<PageMap<T>>,
}

impl<T: DeviceMemory> Registered<T> {
    /// The map, with that proof.
    pub(crate) fn bound(&self) -> BoundMap<'_, T> {
        // SAFETY: By the invariants of `PageMap` the pages are registered while `self` is borrowed.
        unsafe { self.map.bound() }
    }
}

impl<T: DeviceMemory> PageMap<T> {
    const OPS: bindings::dev_pagemap_ops = bindings::dev_pagemap_ops {
        folio_free: Some(Self::folio_free_callback),
        migrate_to_ram: Some(Self::migrate_to_ram_callback),
        memory_failure: Some(Self::memory_failure_callback),
        ..pin_init::zeroed()
    };

    /// Registers the pages of `region` for as long as `dev` is bound. Access to the map is revoked before the pages go.
    ///
    /// Takes 64 bytes of system memory per page, and some time.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` if the region was reserved for another device; `EINVAL` or `ENXIO` if the kernel or the machine cannot have
    /// pages there.
    pub(crate) fn register(
        dev: &Device<Bound>,
        kind: Kind,
        region: Region,
        memory: impl PinInit<T, Error>,
    ) -> Result<Arc<SleepableRevocable<Registered<T>>>> {
        if !region.is_of(dev) {
            return Err(EINVAL);
        }
        let frames = Frames::new(region.pages() / BLOCK_PAGES)?;
        let range = bindings::range { start: region.start(), end: region.start() + region.length() - 1 };
        let map = Arc::pin_init(
            try_pin_init!(Self {
                raw <- Opaque::ffi_init(|slot: *mut bindings::dev_pagemap| {
                    // SAFETY: `slot` is valid for writes, and all zeroes is a valid `dev_pagemap`.
                    unsafe { slot.write_bytes(0, 1) };
                    // SAFETY: `slot` was just initialised and nobody else knows of it.
                    let raw = unsafe { &mut *slot };
                    raw.type_ = match kind {
                        Kind::Private => bindings::memory_type_MEMORY_DEVICE_PRIVATE,
                        Kind::Coherent => bindings::memory_type_MEMORY_DEVICE_COHERENT,
                    };
                    raw.ops = &Self::OPS;
                    // INVARIANT: The owner is the map's own address.
                    raw.owner = slot.cast();
                    raw.nr_range = 1;
                    // SAFETY: The field is a union of plain integers.
                    unsafe { *raw.__bindgen_anon_1.range.as_mut() = range };
                }),
                dev: dev.into(),
                kind,
                region,
                frames,
                poisoned: Atomic::new(0),
                memory <- memory,
            }),
            GFP_KERNEL,
        )?;
        // Registered first, so released after the pages: see the module's text.
        devres::register(dev, Keep { _map: map.clone() }, GFP_KERNEL)?;
        // SAFETY: `dev` is bound; `raw` is initialised and stays where it is until the resources of `dev` that were
        // registered before this call are released, which is after this one's are.
        let address = unsafe { bindings::devm_memremap_pages(device_ptr(dev), map.raw.get()) };
        kernel::error::from_err_ptr(address)?;
        // INVARIANT: Registered last, so released first: access ends, then the pages go, then the map. `dev` is bound until all have.
        SleepableRevocable::new(dev, Registered { map })
    }

    /// What the driver keeps for this memory.
    pub(crate) fn memory(&self) -> &T {
        &self.memory
    }

    /// Who can reach the memory.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Number of pages.
    pub(crate) fn pages(&self) -> usize {
        self.frames.len()
    }

    /// Number of free pages; at once out of date if pages come and go.
    pub(crate) fn free_pages(&self) -> usize {
        self.frames.free()
    }

    /// Number of pages that something uses, poisoned ones left out.
    pub(crate) fn pages_in_use(&self) -> usize {
        let poisoned = usize::try_from(self.poisoned.load(ordering::Relaxed)).unwrap_or(0);
        self.pages().saturating_sub(self.free_pages()).saturating_sub(poisoned)
    }

    /// The pointer that tells this device's private pages from all others'.
    pub(crate) fn owner(&self) -> Owner<'_> {
        Owner { raw: self.raw.get().cast(), kind: self.kind, _map: PhantomData }
    }

    /// Where in the memory a page frame is, in bytes; `None` if it is elsewhere.
    pub(crate) fn offset(&self, pfn: Pfn) -> Option<u64> {
        self.index(pfn).map(|index| (index * PAGE_SIZE) as u64)
    }

    fn index(&self, pfn: Pfn) -> Option<usize> {
        pfn.checked_sub(self.region.first_pfn()).filter(|&index| index < self.region.pages())
    }

    /// # Safety
    ///
    /// The pages are registered for `'a`.
    unsafe fn bound(&self) -> BoundMap<'_, T> {
        // SAFETY: Pages that are registered belong to a device that is bound, by `PageMap::register`.
        let dev = unsafe { self.dev.as_bound() };
        BoundMap { map: self, dev }
    }

    /// # Safety
    ///
    /// `page` is a page of a registered `PageMap<T>`, which outlives the returned reference.
    unsafe fn of_page<'a>(page: *mut bindings::page) -> &'a Self {
        // SAFETY: `page` is a device page, so it has a map.
        let raw = unsafe { bindings::ersatz_page_pgmap(page) };
        // SAFETY: By the function's requirements the map is the `raw` of a `PageMap<T>`.
        unsafe { Self::of_raw(raw) }
    }

    /// # Safety
    ///
    /// `raw` is that of a `PageMap<T>`, which outlives the returned reference.
    unsafe fn of_raw<'a>(raw: *mut bindings::dev_pagemap) -> &'a Self {
        let raw = Opaque::cast_from(raw.cast_const());
        // SAFETY: By the function's requirements.
        let map = unsafe { kernel::container_of!(raw, Self, raw) };
        // SAFETY: By the function's requirements.
        unsafe { &*map }
    }

    /// Whether a page of this map is poisoned.
    fn is_poisoned(&self, index: usize) -> bool {
        // SAFETY: The pages of the region have been registered, so this pfn has a page.
        let page = unsafe { bindings::ersatz_pfn_to_page(self.region.first_pfn() + index) };
        // SAFETY: `page` is valid; the flag is read atomically.
        unsafe { bindings::ersatz_page_is_poisoned(page) }
    }

    /// Called by the memory manager, in any context, once nobody uses a folio.
    ///
    /// # Safety
    ///
    /// `folio` is of a registered `PageMap<T>`, and its reference count is zero.
    unsafe extern "C" fn folio_free_callback(folio: *mut bindings::folio) {
        // SAFETY: The memory manager passes a valid folio of a map with these callbacks.
        let page = unsafe { bindings::ersatz_folio_page(folio) };
        // SAFETY: As above. Nobody splits a folio that is being freed.
        let pages = 1 << unsafe { bindings::ersatz_folio_order(folio) };
        // SAFETY: As above; the map stays while one of its pages is being freed.
        let map = unsafe { Self::of_page(page) };
        // SAFETY: `page` is valid.
        let pfn = unsafe { bindings::ersatz_page_to_pfn(page) };
        let first = pfn.wrapping_sub(map.region.first_pfn());
        let put = |frames: Range<usize>| {
            if !map.frames.put(frames.clone()) {
                dev_err!(map.dev, "frames {frames:?} were freed twice\n");
            }
        };
        T::freed(&map.dev, first..first.saturating_add(pages));
        // INVARIANT: The reference count has just become zero.
        if map.poisoned.load(ordering::Relaxed) == 0 {
            put(first..first.saturating_add(pages));
        } else {
            (first..first.saturating_add(pages))
                .filter(|&index| !map.is_poisoned(index))
                .for_each(|index| put(index..index + 1));
        }
    }

    /// Called by the memory manager when a CPU touches a private page.
    ///
    /// # Safety
    ///
    /// `vmf` is a valid fault; its page is of a registered `PageMap<T>`, locked and referenced for the call.
    unsafe extern "C" fn migrate_to_ram_callback(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: The memory manager passes a valid fault, with its page locked and referenced for this call.
        let fault = unsafe { CpuFault::from_raw(vmf) };
        // SAFETY: The page of the fault is of a map with these callbacks, and its reference keeps the map registered.
        let map = unsafe { Self::of_page(fault.page()) };
        // SAFETY: As above.
        let map = unsafe { map.bound() };
        T::migrate_to_ram(map, &fault).into_raw()
    }

    /// Called by the memory manager when it was told that pages have lost their content.
    ///
    /// # Safety
    ///
    /// `raw` is that of a registered `PageMap<T>`; the caller keeps it registered for the call.
    unsafe extern "C" fn memory_failure_callback(
        raw: *mut bindings::dev_pagemap,
        pfn: c_ulong,
        pages: c_ulong,
        _flags: c_int,
    ) -> c_int {
        // SAFETY: By the function's requirements.
        let map = unsafe { Self::of_raw(raw) };
        // SAFETY: By the function's requirements.
        let map = unsafe { map.bound() };
        let result = (pfn..pfn.saturating_add(pages)).try_for_each(|pfn| map.poison(pfn as Pfn));
        // Anything but success and EOPNOTSUPP, which would send the memory manager to a handler for files.
        result.map_or(EBUSY.to_errno(), |()| 0)
    }
}

/// A map whose pages are registered for `'a`, and whose device is bound.
///
/// # Invariants
///
/// As said; `dev` is the map's device.
pub(crate) struct BoundMap<'a, T: DeviceMemory> {
    map: &'a PageMap<T>,
    dev: &'a Device<Bound>,
}

impl<T: DeviceMemory> Clone for BoundMap<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: DeviceMemory> Copy for BoundMap<'_, T> {}

impl<T: DeviceMemory> core::ops::Deref for BoundMap<'_, T> {
    type Target = PageMap<T>;

    fn deref(&self) -> &PageMap<T> {
        self.map
    }
}

impl<'a, T: DeviceMemory> BoundMap<'a, T> {
    /// The device.
    pub(crate) fn dev(self) -> &'a Device<Bound> {
        self.dev
    }

    /// The map, for as long as its pages are registered.
    pub(crate) fn map(self) -> &'a PageMap<T> {
        self.map
    }

    /// Takes free frames into use as a folio of order 0 or [`HUGE_ORDER`]: locked, referenced, with whatever content the memory has.
    /// `None` if too few are free, or not in one piece.
    pub(crate) fn allocate(self, order: u32) -> Option<LockedFolio> {
        let index = match order {
            0 => self.map.frames.take_page(),
            HUGE_ORDER => self.map.frames.take_block(),
            _ => None,
        }?;
        // SAFETY: By the type invariants the pages of the region are registered, so this pfn has a page. The page is
        // free, so it must not be taken for part of a folio: it is cast, not looked up.
        let page = unsafe { bindings::ersatz_pfn_to_page(self.pfn(index)) };
        // SAFETY: The pages are this map's; their reference counts are zero since they were marked free, and only this thread
        // took the marks away.
        unsafe { bindings::zone_device_page_init(page, self.map.raw.get(), order) };
        let page = NonNull::new(page)?;
        // SAFETY: The folio was initialised with one reference and its lock held, both for the caller.
        Some(unsafe { LockedFolio::from_raw(page, order, T::SIDE) })
    }

    /// The page frame of page `index` of the memory, which must be below [`PageMap::pages`].
    pub(super) fn pfn(self, index: usize) -> Pfn {
        self.map.region.first_pfn() + index
    }

    /// The block in use that was used longest ago within `stamps`, with its stamp.
    pub(crate) fn oldest_block_within(self, stamps: Range<u64>) -> Option<(usize, u64)> {
        self.map.frames.oldest_within(stamps)
    }

    /// A stamp newer than those of all blocks.
    pub(crate) fn newest_stamp(self) -> u64 {
        self.map.frames.now()
    }

    /// Notes that a page's block was used just now.
    pub(crate) fn touch(self, pfn: Pfn) {
        if let Some(index) = self.map.index(pfn) {
            self.map.frames.touch(index / BLOCK_PAGES);
        }
    }

    /// Number of blocks.
    pub(crate) fn blocks(self) -> usize {
        self.map.frames.blocks()
    }

    /// The pages of a block that something maps. A page that is in use but not mapped is on its way to or from the device, or in
    /// limbo: its process is gone and a CPU's list has a reference to it. Migrating the latter would follow a stale reverse map.
    pub(crate) fn mapped_pages_of_block(self, block: usize) -> impl Iterator<Item = usize> + 'a {
        let frames = &self.map.frames;
        let end = block.saturating_add(1).saturating_mul(BLOCK_PAGES).min(frames.len());
        let used = core::iter::successors(frames.next_used(block.saturating_mul(BLOCK_PAGES)), |&index| {
            frames.next_used(index + 1)
        });
        used.take_while(move |&index| index < end).filter(move |&index| self.is_mapped(index))
    }

    fn is_mapped(self, index: usize) -> bool {
        // SAFETY: By the type invariants the page is registered.
        let page = unsafe { bindings::ersatz_pfn_to_page(self.pfn(index)) };
        // SAFETY: `page` is valid.
        unsafe { bindings::ersatz_page_is_mapped(page) && !bindings::ersatz_page_is_poisoned(page) }
    }

    /// Whether one of some pages lost its content.
    pub(super) fn has_poison(self, pfn: Pfn, pages: usize) -> bool {
        let Some(first) = self.map.index(pfn) else { return false };
        self.map.poisoned.load(ordering::Relaxed) > 0
            && (first..first + pages).filter(|&index| index < self.map.pages()).any(|index| self.map.is_poisoned(index))
    }

    /// Takes a page out of use for good.
    fn poison(self, pfn: Pfn) -> Result {
        let index = self.map.index(pfn).ok_or(EINVAL)?;
        // SAFETY: By the type invariants the page is registered.
        let page = unsafe { bindings::ersatz_pfn_to_page(pfn) };
        // SAFETY: `page` is valid; the flag is set atomically.
        if unsafe { bindings::ersatz_page_set_poisoned(page) } {
            return Ok(());
        }
        // INVARIANT: From here on a frame that is freed is not marked as free; one that is free already is taken.
        self.map.poisoned.fetch_add(1, ordering::Relaxed);
        if self.map.frames.take(index) {
            return Ok(());
        }
        T::memory_failure(self, index)
    }
}

/// By what the memory manager knows a device's pages.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(super) raw: *mut kernel::ffi::c_void,
    pub(super) kind: Kind,
    _map: PhantomData<&'a ()>,
}

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

mod bound;
mod callbacks;

use super::{
    fault::{CpuFault, FaultEnd},
    folio::{Pfn, Side},
    frames::{Frames, BLOCK_PAGES},
    homes::Homes,
    poisoned::Poisoned,
    region::Region,
    withheld::Withheld,
};
use crate::{
    bindings,
    kernel_ext::{raw::device_ptr, revocable::SleepableRevocable},
};
pub(crate) use bound::BoundMap;
use core::{marker::PhantomData, ops::Range};
use kernel::{
    device::{Bound, Device},
    devres,
    page::PAGE_SIZE,
    prelude::*,
    sync::{aref::ARef, Arc},
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

    /// Hears that page `index` has lost its content, and is not handed out again: nothing may access it any more.
    fn poisoned(_map: BoundMap<'_, Self>, _index: usize) {}

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
/// - A frame is marked free in `frames` exactly while its reference count is zero, nobody initialises it, and it is neither
///   poisoned nor withheld.
#[pin_data]
pub(crate) struct PageMap<T: DeviceMemory> {
    #[pin]
    raw: Opaque<bindings::dev_pagemap>,
    dev: ARef<Device>,
    kind: Kind,
    region: Region,
    frames: Frames,
    homes: Homes,
    withheld: Withheld,
    poisoned: Poisoned,
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
        let homes = Homes::new(frames.len())?;
        let withheld = Withheld::new(frames.len())?;
        let poisoned = Poisoned::new(frames.len())?;
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
                homes,
                withheld,
                poisoned,
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

    /// Number of pages that something uses; poisoned and withheld ones are left out.
    pub(crate) fn pages_in_use(&self) -> usize {
        let others = self.poisoned_pages().saturating_add(self.withheld_pages());
        self.pages().saturating_sub(self.free_pages()).saturating_sub(others)
    }

    /// Number of poisoned pages.
    pub(crate) fn poisoned_pages(&self) -> usize {
        self.poisoned.count()
    }

    /// Number of pages that are kept from use.
    pub(crate) fn withheld_pages(&self) -> usize {
        self.withheld.count()
    }

    /// Number of free pages of a block; at once out of date if pages come and go.
    pub(crate) fn free_pages_of(&self, block: usize) -> usize {
        self.frames.free_of(block)
    }

    /// Number of blocks of which all pages are free; at once out of date if pages come and go.
    pub(crate) fn free_blocks(&self) -> usize {
        (0..self.frames.blocks()).filter(|&block| self.free_pages_of(block) == BLOCK_PAGES).count()
    }

    /// Claims a page: from now until the claim is settled it is kept from use as soon as nobody uses it. One that is claimed or withheld
    /// already stays as it is.
    pub(crate) fn claim(&self, index: usize) {
        // INVARIANT: The frame is not marked free before it is withheld.
        if self.withheld.claim(index) && self.frames.take(index) {
            self.withheld.withhold(index);
        }
    }

    /// Ends the claim of a page. Returns whether it is withheld because of it.
    pub(crate) fn settle(&self, index: usize) -> bool {
        match self.withheld.settle(index) {
            Some(false) => {
                // It may have been freed just before it was claimed.
                let is_free = self.frames.take(index);
                if is_free {
                    self.withheld.withhold(index);
                }
                is_free
            }
            settled => settled == Some(true),
        }
    }

    /// Puts a page that is withheld back into use. Returns whether it was withheld.
    pub(crate) fn release(&self, index: usize) -> bool {
        let is_released = self.withheld.release(index);
        if is_released && !self.is_poisoned(index) {
            // INVARIANT: It is not withheld any more, and nobody uses it.
            self.frames.put(index..index + 1);
        }
        is_released
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

    /// Whether a page of this map is poisoned.
    pub(crate) fn is_poisoned(&self, index: usize) -> bool {
        self.poisoned.has(index)
    }
}

/// By what the memory manager knows a device's pages.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(super) raw: *mut kernel::ffi::c_void,
    pub(super) kind: Kind,
    _map: PhantomData<&'a ()>,
}

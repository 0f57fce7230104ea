// SPDX-License-Identifier: GPL-2.0
//! A range of device memory that the memory manager has `struct page`s for.
//!
//! # Order of the ends
//!
//! When a Rust driver is unbound, its driver data is dropped *before* device-managed resources are released, and
//! `memunmap_pages()`, which `devm_memremap_pages()` defers to that time, still uses the `dev_pagemap`, waits for pages in
//! use, and answers CPU faults meanwhile. So a [`PageMap`] does not live in driver data: [`PageMap::register`] first
//! hands one reference to the device's resource list, then registers the pages. The list is released last in, first
//! out: the pages go, then that reference. Whatever a fault needs must have been put on the list earlier still, or
//! belong to the [`DeviceMemory`] inside the map.

use super::{
    free_pages::FreePages,
    page::{LockedPage, Pfn, Side},
    region::Region,
};
use crate::{
    bindings,
    kernel_ext::{raw::device_ptr, revocable::SleepableRevocable},
};
use core::{marker::PhantomData, ops::Deref, ptr::NonNull};
use kernel::{
    device::{Bound, Device},
    devres,
    mm::virt::VmaRef,
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
    /// Brings the page of a CPU fault back to system memory. Only called for [`Kind::Private`].
    ///
    /// Success sends the CPU to try again: the page has moved, or somebody else is about to move it. May sleep.
    ///
    /// # Errors
    ///
    /// Any: the content is out of reach, and the process gets `SIGBUS`.
    fn migrate_to_ram(map: &PageMap<Self>, dev: &Device<Bound>, fault: &CpuFault<'_>) -> Result;
}

/// Device memory with `struct page`s.
///
/// # Invariants
///
/// - `raw` is initialised, and `raw.owner` is its own address.
/// - The pages are registered while there is a [`Registered`], and while one of them is referenced: no other way leads to a
///   reference to a map. They are no longer registered when the map is dropped.
/// - A page is marked free in `free` exactly while its reference count is zero and nobody initialises it.
#[pin_data]
pub(crate) struct PageMap<T: DeviceMemory> {
    #[pin]
    raw: Opaque<bindings::dev_pagemap>,
    dev: ARef<Device>,
    kind: Kind,
    region: Region,
    free: FreePages,
    #[pin]
    memory: T,
}

// SAFETY: `raw` is only touched by the memory manager, which does its own locking; all else is `Send`.
unsafe impl<T: DeviceMemory> Send for PageMap<T> {}
// SAFETY: As above, and all else is `Sync`.
unsafe impl<T: DeviceMemory> Sync for PageMap<T> {}

/// A map whose pages are registered.
pub(crate) struct Registered<T: DeviceMemory> {
    map: Arc<PageMap<T>>,
}

impl<T: DeviceMemory> Deref for Registered<T> {
    type Target = PageMap<T>;

    fn deref(&self) -> &PageMap<T> {
        &self.map
    }
}

/// Keeps a map until device-managed resources registered before it are released.
struct Keep<T: DeviceMemory> {
    _map: Arc<PageMap<T>>,
}

impl<T: DeviceMemory> PageMap<T> {
    const OPS: bindings::dev_pagemap_ops = bindings::dev_pagemap_ops {
        folio_free: Some(Self::folio_free_callback),
        migrate_to_ram: Some(Self::migrate_to_ram_callback),
        ..pin_init::zeroed()
    };

    /// Registers the pages of `region` for as long as `dev` is bound. Access to the map is revoked before the pages go.
    ///
    /// Takes 64 bytes of system memory a page, and some time.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` or `ENXIO` if the kernel or the machine cannot have pages there.
    pub(crate) fn register(
        dev: &Device<Bound>,
        kind: Kind,
        region: Region,
        memory: impl PinInit<T, Error>,
    ) -> Result<Arc<SleepableRevocable<Registered<T>>>> {
        let free = FreePages::new(region.pages())?;
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
                free,
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
        // INVARIANT: Registered last, so released first: access ends, then the pages go, then the map.
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

    /// Which pages are free, and which in use.
    pub(crate) fn free_pages(&self) -> &FreePages {
        &self.free
    }

    /// The pointer that tells this device's private pages from all others'.
    pub(crate) fn owner(&self) -> Owner<'_> {
        Owner { raw: self.raw.get().cast(), kind: self.kind, _map: PhantomData }
    }

    /// Takes a free page into use: locked, referenced, with whatever content the memory has. `None` if all are in use.
    pub(crate) fn allocate(&self, dev: &Device<Bound>) -> Option<LockedPage> {
        if !core::ptr::eq(device_ptr(dev), device_ptr(&self.dev)) {
            return None;
        }
        let pfn = self.region.first_pfn() + self.free.take()?;
        // SAFETY: By the type invariants the pages of the region are registered, so this pfn has a page. The page is
        // free, so it must not be taken for part of a folio: it is cast, not looked up.
        let page = unsafe { bindings::ersatz_pfn_to_page(pfn) };
        // SAFETY: The page is this map's; its reference count is zero since it was marked free, and only this thread
        // took the mark away.
        unsafe { bindings::zone_device_page_init(page, self.raw.get(), 0) };
        let page = NonNull::new(page)?;
        // SAFETY: The page was initialised with one reference and its lock held, both for the caller.
        Some(unsafe { LockedPage::from_raw(page, Side::Device) })
    }

    /// The page frame of page `index` of the memory.
    pub(crate) fn pfn(&self, index: usize) -> Pfn {
        self.region.first_pfn() + index
    }

    /// Where in the memory a page frame is, in bytes; `None` if it is elsewhere.
    pub(crate) fn offset(&self, pfn: Pfn) -> Option<u64> {
        let index = pfn.checked_sub(self.region.first_pfn())?;
        (index < self.region.pages()).then_some((index * PAGE_SIZE) as u64)
    }

    /// # Safety
    ///
    /// `page` is a page of a registered `PageMap<T>`, which outlives the returned reference.
    unsafe fn of_page<'a>(page: *mut bindings::page) -> &'a Self {
        // SAFETY: `page` is a device page, so it has a map.
        let raw = unsafe { bindings::ersatz_page_pgmap(page) };
        let raw = Opaque::cast_from(raw.cast_const());
        // SAFETY: By the function's requirements the map is the `raw` of a `PageMap<T>`.
        let map = unsafe { kernel::container_of!(raw, Self, raw) };
        // SAFETY: By the function's requirements.
        unsafe { &*map }
    }

    /// Called by the memory manager, in any context, once nobody uses a page.
    ///
    /// # Safety
    ///
    /// `folio` is of a registered `PageMap<T>`, and its reference count is zero.
    unsafe extern "C" fn folio_free_callback(folio: *mut bindings::folio) {
        // SAFETY: The memory manager passes a valid folio of a map with these callbacks.
        let page = unsafe { bindings::ersatz_folio_page(folio) };
        // SAFETY: As above; the map stays while one of its pages is being freed.
        let map = unsafe { Self::of_page(page) };
        // SAFETY: `page` is valid.
        let pfn = unsafe { bindings::ersatz_page_to_pfn(page) };
        // INVARIANT: The reference count has just become zero.
        if !map.free.put(pfn.wrapping_sub(map.region.first_pfn())) {
            dev_err!(map.dev, "page frame {pfn:#x} was freed twice\n");
        }
    }

    /// Called by the memory manager when a CPU touches a private page.
    ///
    /// # Safety
    ///
    /// `vmf` is a valid fault; its page is of a registered `PageMap<T>`, locked and referenced for the call.
    unsafe extern "C" fn migrate_to_ram_callback(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: The memory manager passes a valid fault, with its page locked and referenced for this call.
        let fault = CpuFault { vmf: unsafe { &*vmf } };
        // SAFETY: The page of the fault is of a map with these callbacks, and its reference keeps the map registered.
        let map = unsafe { Self::of_page(fault.vmf.page) };
        // SAFETY: The map is registered, and unregistering it is part of unbinding `map.dev`.
        let dev = unsafe { map.dev.as_bound() };
        match T::migrate_to_ram(map, dev, &fault) {
            Ok(()) => 0,
            Err(_) => bindings::vm_fault_reason_VM_FAULT_SIGBUS,
        }
    }
}

/// By what the memory manager knows a device's pages.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(super) raw: *mut kernel::ffi::c_void,
    pub(super) kind: Kind,
    _map: PhantomData<&'a ()>,
}

/// A CPU's touch of a private page.
///
/// # Invariants
///
/// `vmf` is the argument of a running `migrate_to_ram()`: its VMA is valid and its mm locked for reading, its page is a
/// device page, locked and referenced by the caller.
pub(crate) struct CpuFault<'a> {
    vmf: &'a bindings::vm_fault,
}

impl CpuFault<'_> {
    /// The VMA that was touched.
    pub(crate) fn vma(&self) -> &VmaRef {
        // SAFETY: By the type invariants.
        unsafe { VmaRef::from_raw(self.vmf.__bindgen_anon_1.vma) }
    }

    /// The address that was touched, rounded down to its page.
    pub(crate) fn address(&self) -> usize {
        self.vmf.__bindgen_anon_1.address & kernel::page::PAGE_MASK
    }

    pub(super) fn page(&self) -> *mut bindings::page {
        self.vmf.page
    }
}

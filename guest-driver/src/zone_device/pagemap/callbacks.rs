// SPDX-License-Identifier: GPL-2.0
//! What the memory manager calls a map for: a folio that nobody uses any more, a CPU's touch, memory that failed.

use super::{super::fault::CpuFault, super::folio::Pfn, DeviceMemory, PageMap};
use crate::bindings;
use core::ops::Range;
use kernel::{prelude::*, types::Opaque};

impl<T: DeviceMemory> PageMap<T> {
    pub(super) const OPS: bindings::dev_pagemap_ops = bindings::dev_pagemap_ops {
        folio_free: Some(Self::folio_free_callback),
        migrate_to_ram: Some(Self::migrate_to_ram_callback),
        memory_failure: Some(Self::memory_failure_callback),
        ..pin_init::zeroed()
    };

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
        if map.poisoned.count() == 0 && !map.withheld.is_claiming() {
            put(first..first.saturating_add(pages));
        } else {
            (first..first.saturating_add(pages))
                .filter(|&index| !map.is_poisoned(index) && !map.withheld.keep(index))
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
        let poison = |pfn| map.map().index(pfn as Pfn).ok_or(EINVAL).and_then(|index| map.poison(index));
        let result = (pfn..pfn.saturating_add(pages)).try_for_each(poison);
        // Anything but success and EOPNOTSUPP, which would send the memory manager to a handler for files.
        result.map_or(EBUSY.to_errno(), |()| 0)
    }
}

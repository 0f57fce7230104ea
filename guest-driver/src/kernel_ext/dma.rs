// SPDX-License-Identifier: GPL-2.0
//! System memory mapped for DMA: many pages at a time for one piece of work, or a page by itself for as long as it lasts.

use super::raw::device_ptr;
use crate::{bindings, zone_device::folio::Pfn};
use core::marker::PhantomData;
use kernel::{
    alloc::Flags,
    device::{Bound, Device},
    dma::{DataDirection, DmaAddress},
    error::to_result,
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    sync::aref::ARef,
};

/// A mapping made by itself, where there is no IOMMU.
struct Stretch {
    address: DmaAddress,
    length: usize,
}

/// Pages that a device may reach. Dropping it ends that, and makes what the device wrote visible to the CPU.
///
/// Behind an IOMMU all of them are one range of bus addresses, mapped and unmapped at one go.
///
/// # Invariants
///
/// The first `linked` bytes of `iova`, if that has addresses, and each of `stretches` are mapped for `dev` in `direction`; the pages stay
/// in place until this is dropped.
pub(crate) struct SystemMappings<'a> {
    dev: &'a Device<Bound>,
    direction: DataDirection,
    iova: bindings::dma_iova_state,
    /// Bytes of address space that were asked for.
    reserved: usize,
    linked: usize,
    stretches: KVec<Stretch>,
    longest: usize,
    flags: Flags,
    _pages: PhantomData<&'a ()>,
}

impl<'a> SystemMappings<'a> {
    /// Has nothing mapped, and expects up to `pages` pages. What it needs to keep track of them is allocated with `flags`.
    pub(crate) fn new(dev: &'a Device<Bound>, direction: DataDirection, pages: usize, flags: Flags) -> Self {
        // SAFETY: `dev` is bound.
        let longest = unsafe { bindings::ersatz_dma_max_mapping_size(device_ptr(dev)) }.max(PAGE_SIZE);
        // INVARIANT: Nothing is mapped, and the state says so.
        Self {
            dev,
            direction,
            iova: bindings::dma_iova_state::default(),
            reserved: pages << PAGE_SHIFT,
            linked: 0,
            stretches: KVec::new(),
            longest,
            flags,
            _pages: PhantomData,
        }
    }

    /// Maps up to `pages` contiguous pages. Returns the bus address of the first, and the number of pages that were mapped, which is not
    /// zero unless `pages` is.
    ///
    /// # Safety
    ///
    /// From `pfn` on there are `pages` pages of system memory that stay allocated until this is dropped, with nobody relying on their content
    /// while the device writes to them.
    ///
    /// # Errors
    ///
    /// `EIO` if the pages cannot be made reachable for the device; `ENOMEM`; `ENOSPC` for more pages than were expected.
    pub(crate) unsafe fn map(&mut self, pfn: Pfn, pages: usize) -> Result<(DmaAddress, usize)> {
        if self.linked == 0 && self.stretches.is_empty() {
            // SAFETY: `dev` is bound, the state is zeroed, and the pfn that of a page by the function's requirements. If there is no IOMMU
            // this changes nothing.
            unsafe { bindings::ersatz_dma_iova_alloc(device_ptr(self.dev), &mut self.iova, pfn, self.reserved) };
        }
        if self.iova.__size != 0 {
            // SAFETY: As for this function.
            unsafe { self.link(pfn, pages) }
        } else {
            // SAFETY: As for this function.
            unsafe { self.map_stretch(pfn, pages) }
        }
    }

    /// # Safety
    ///
    /// As for [`SystemMappings::map`].
    unsafe fn link(&mut self, pfn: Pfn, pages: usize) -> Result<(DmaAddress, usize)> {
        let length = pages << PAGE_SHIFT;
        if self.linked + length > self.reserved {
            return Err(ENOSPC);
        }
        // SAFETY: The addresses from `linked` on are reserved and not in use; the pages are as the function requires.
        to_result(unsafe {
            bindings::ersatz_dma_iova_link(
                device_ptr(self.dev),
                &mut self.iova,
                pfn,
                self.linked,
                length,
                self.direction.into(),
            )
        })?;
        let address = self.iova.addr + self.linked as DmaAddress;
        // INVARIANT: Just linked.
        self.linked += length;
        Ok((address, pages))
    }

    /// # Safety
    ///
    /// As for [`SystemMappings::map`].
    unsafe fn map_stretch(&mut self, pfn: Pfn, pages: usize) -> Result<(DmaAddress, usize)> {
        let pages = pages.min(self.longest >> PAGE_SHIFT);
        let length = pages << PAGE_SHIFT;
        if self.stretches.len() == self.stretches.capacity() {
            let more = self.stretches.len().max(8);
            self.stretches.reserve(more, self.flags)?;
        }
        let raw = device_ptr(self.dev);
        // SAFETY: By the function's requirements the pfn has a page.
        let page = unsafe { bindings::ersatz_pfn_to_page(pfn) };
        // SAFETY: `dev` is bound and the pages are valid.
        let address = unsafe { bindings::ersatz_dma_map_page(raw, page, length, self.direction.into()) };
        // SAFETY: `address` is what the mapping function returned.
        if unsafe { bindings::ersatz_dma_mapping_error(raw, address) } != 0 {
            return Err(EIO);
        }
        // INVARIANT: Just mapped; the pages stay by the function's requirements.
        self.stretches.push_within_capacity(Stretch { address, length }).map_err(|_| EINVAL)?;
        Ok((address, pages))
    }

    /// Makes the mappings usable, once all are made.
    ///
    /// # Errors
    ///
    /// `EIO` if the device cannot be given access.
    pub(crate) fn finish(&mut self) -> Result {
        if self.linked == 0 {
            return Ok(());
        }
        // SAFETY: By the type invariants `linked` bytes are linked.
        to_result(unsafe { bindings::ersatz_dma_iova_sync(device_ptr(self.dev), &mut self.iova, self.linked) })
            .map_err(|_| EIO)
    }
}

impl Drop for SystemMappings<'_> {
    fn drop(&mut self) {
        let (raw, direction) = (device_ptr(self.dev), self.direction);
        if self.iova.__size != 0 {
            // SAFETY: By the type invariants `linked` bytes are linked; the addresses are given back once.
            unsafe { bindings::ersatz_dma_iova_destroy(raw, &mut self.iova, self.linked, direction.into()) };
        }
        for stretch in &self.stretches {
            // SAFETY: By the type invariants the pages are mapped with just these arguments.
            unsafe { bindings::ersatz_dma_unmap_page(raw, stretch.address, stretch.length, direction.into()) };
        }
    }
}

/// A page that a device may read and write. Dropping it ends that.
///
/// # Invariants
///
/// `address` is a mapping of page `pfn` for `dev` in both directions. The page stays allocated, and `dev` bound, until this is dropped.
pub(crate) struct MappedPage {
    dev: ARef<Device>,
    pfn: Pfn,
    address: DmaAddress,
}

impl MappedPage {
    /// Maps a page. Does not sleep.
    ///
    /// # Safety
    ///
    /// `pfn` is that of a page of system memory that stays allocated until this is dropped, and `dev` stays bound until then.
    ///
    /// # Errors
    ///
    /// `EIO` if the page cannot be made reachable for the device, or only by a copy of it.
    pub(crate) unsafe fn new(dev: &Device<Bound>, pfn: Pfn) -> Result<Self> {
        // SAFETY: By the function's requirements the pfn has a page.
        let page = unsafe { bindings::ersatz_pfn_to_page(pfn) };
        let raw = device_ptr(dev);
        // SAFETY: `dev` is bound and the page is valid.
        let address =
            unsafe { bindings::ersatz_dma_map_page(raw, page, PAGE_SIZE, DataDirection::Bidirectional.into()) };
        // SAFETY: `address` is what the mapping function returned.
        if unsafe { bindings::ersatz_dma_mapping_error(raw, address) } != 0 {
            return Err(EIO);
        }
        // INVARIANT: Just mapped; the rest is what the caller guarantees.
        let page = Self { dev: dev.into(), pfn, address };
        // SAFETY: `dev` is bound and `address` a mapping of it. A bounce buffer is not the page: what the CPU and the device write there while
        // it is mapped, the other does not see.
        if unsafe { bindings::ersatz_dma_need_sync(raw, address) } {
            return Err(EIO);
        }
        Ok(page)
    }

    /// The bus address of the page.
    pub(crate) fn address(&self) -> DmaAddress {
        self.address
    }

    /// Notes that the device has written the page, so that the kernel does not drop its content.
    ///
    /// To be called while the page is mapped in the process, so that its file is not truncated meanwhile.
    pub(crate) fn mark_dirty(&self) {
        // SAFETY: By the type invariants the page is allocated.
        unsafe { bindings::ersatz_page_mark_dirty(bindings::ersatz_pfn_to_page(self.pfn)) };
    }
}

impl Drop for MappedPage {
    fn drop(&mut self) {
        let raw = device_ptr(&self.dev);
        // SAFETY: By the type invariants the page is mapped with just these arguments.
        unsafe { bindings::ersatz_dma_unmap_page(raw, self.address, PAGE_SIZE, DataDirection::Bidirectional.into()) };
    }
}

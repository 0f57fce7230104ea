// SPDX-License-Identifier: GPL-2.0
//! Pages of system memory mapped for DMA, one at a time.

use super::raw::device_ptr;
use crate::{bindings, zone_device::page::Pfn};
use core::marker::PhantomData;
use kernel::{
    device::{Bound, Device},
    dma::{DataDirection, DmaAddress},
    page::PAGE_SIZE,
    prelude::*,
};

/// A page that a device may reach at [`PageMapping::address`]. Dropping it ends that, and makes what the device wrote
/// visible to the CPU.
///
/// # Invariants
///
/// The page at `address` is mapped for `dev` in `direction`, and stays in place for `'a`.
pub(crate) struct PageMapping<'a> {
    dev: &'a Device<Bound>,
    address: DmaAddress,
    direction: DataDirection,
    _page: PhantomData<&'a ()>,
}

impl<'a> PageMapping<'a> {
    /// Maps a page.
    ///
    /// # Safety
    ///
    /// `pfn` is a page of system memory that stays allocated for `'a`, with nobody relying on its content while the device
    /// writes to it.
    ///
    /// # Errors
    ///
    /// `EIO` if the page cannot be made reachable for the device.
    pub(crate) unsafe fn new(dev: &'a Device<Bound>, pfn: Pfn, direction: DataDirection) -> Result<Self> {
        let raw = device_ptr(dev);
        // SAFETY: By the function's requirements the pfn has a page.
        let page = unsafe { bindings::ersatz_pfn_to_page(pfn) };
        // SAFETY: `dev` is bound and `page` is valid.
        let address = unsafe { bindings::ersatz_dma_map_page(raw, page, PAGE_SIZE, direction.into()) };
        // SAFETY: `address` is what the mapping function returned.
        if unsafe { bindings::ersatz_dma_mapping_error(raw, address) } != 0 {
            return Err(EIO);
        }
        // INVARIANT: Just mapped; the page stays by the function's requirements.
        Ok(Self { dev, address, direction, _page: PhantomData })
    }

    /// The bus address of the page.
    pub(crate) fn address(&self) -> DmaAddress {
        self.address
    }
}

impl Drop for PageMapping<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the page is mapped with just these arguments.
        unsafe {
            bindings::ersatz_dma_unmap_page(device_ptr(self.dev), self.address, PAGE_SIZE, self.direction.into())
        };
    }
}

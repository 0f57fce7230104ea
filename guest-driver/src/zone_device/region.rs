// SPDX-License-Identifier: GPL-2.0
//! Physical address ranges that device pages can take their pfns from.

use super::folio::Pfn;
use crate::{bindings, kernel_ext::raw::device_ptr};
use kernel::{
    device::{Bound, Device},
    devres,
    page::PAGE_SIZE,
    prelude::*,
    sync::aref::ARef,
};

/// What the memory manager asks start and length of a range of pages to be a multiple of (one subsection).
pub(crate) const ALIGNMENT: u64 = 2 << 20;

/// A range of physical addresses that is reserved for a device for as long as that is bound.
///
/// # Invariants
///
/// `start` and `length` are multiples of [`ALIGNMENT`]; the range is reserved in the resource tree until `dev`
/// is unbound, and belongs to nothing else.
pub(crate) struct Region {
    dev: ARef<Device>,
    start: u64,
    length: u64,
}

impl Region {
    /// Finds and reserves a range that nothing in the machine answers to, for private pages.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `length` is zero or not a multiple of [`ALIGNMENT`]; `ERANGE` and the like if there is no such range.
    pub(crate) fn free(dev: &Device<Bound>, length: u64, name: &'static CStr) -> Result<Self> {
        Self::check(0, length)?;
        let request = usize::try_from(length)?;
        // SAFETY: `name` lives as long as this module, and `FreeRange` releases the range before that goes.
        let resource = unsafe { bindings::ersatz_request_free_mem_region(request, name.as_char_ptr()) };
        let resource = kernel::error::from_err_ptr(resource)?;
        // SAFETY: On success the function returns a valid resource, which stays until it is released.
        let (start, end) = unsafe { ((*resource).start, (*resource).end) };
        // The kernel rounds a request up; what is released must be what was reserved.
        let range = FreeRange { start, length: end - start + 1 };
        devres::register(dev, range, GFP_KERNEL)?;
        Self::check(start, length)?;
        // INVARIANT: Alignment was just checked; devres releases the range when the device is unbound.
        Ok(Self { dev: dev.into(), start, length })
    }

    /// Reserves the first `length` bytes of a PCI device's BAR, which lies at `start`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the BAR or `length` is not a multiple of [`ALIGNMENT`]; `EBUSY` if the BAR is reserved already.
    pub(crate) fn bar(pdev: &kernel::pci::Device<Bound>, bar: u8, length: u64, name: &'static CStr) -> Result<Self> {
        let start = pdev.resource_start(bar.into())?;
        if length > pdev.resource_len(bar.into())? {
            return Err(EINVAL);
        }
        Self::check(start, length)?;
        let dev: &Device<Bound> = pdev.as_ref();
        // SAFETY: `dev` is the device inside `pdev`; `name` lives as long as this module, and `BarRange` releases the
        // BAR before that goes.
        let status = unsafe { bindings::ersatz_pci_request_region(device_ptr(dev), bar.into(), name.as_char_ptr()) };
        kernel::error::to_result(status)?;
        devres::register(dev, BarRange { dev: dev.into(), bar }, GFP_KERNEL)?;
        // INVARIANT: Alignment was checked above; devres releases the BAR when the device is unbound.
        Ok(Self { dev: dev.into(), start, length })
    }

    fn check(start: u64, length: u64) -> Result {
        if length == 0 || length % ALIGNMENT != 0 || start % ALIGNMENT != 0 || start.checked_add(length).is_none() {
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Whether the range was reserved for `dev`.
    pub(super) fn is_of(&self, dev: &Device<Bound>) -> bool {
        core::ptr::eq(device_ptr(&self.dev), device_ptr(dev))
    }

    /// First byte.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// First page frame.
    pub(crate) fn first_pfn(&self) -> Pfn {
        self.start as usize / PAGE_SIZE
    }

    /// Number of pages.
    pub(crate) fn pages(&self) -> usize {
        self.length as usize / PAGE_SIZE
    }
}

/// Releases a range that was found free.
struct FreeRange {
    start: u64,
    length: u64,
}

impl Drop for FreeRange {
    fn drop(&mut self) {
        // SAFETY: Exactly this range was reserved by `Region::free`, and is released once.
        unsafe { bindings::ersatz_release_mem_region(self.start, self.length) };
    }
}

/// Releases a BAR.
struct BarRange {
    dev: ARef<Device>,
    bar: u8,
}

impl Drop for BarRange {
    fn drop(&mut self) {
        // SAFETY: `dev` is embedded in a PCI device, whose BAR was reserved by `Region::bar`; it is released once.
        unsafe { bindings::ersatz_pci_release_region(device_ptr(&self.dev), self.bar.into()) };
    }
}

// SPDX-License-Identifier: GPL-2.0
//! How the content of the system's side of a migration is reached: by a device, with DMA, or by a CPU.
//!
//! A driver chooses by its [`Copier::Reach`](super::Copier::Reach).

use super::super::folio::Pfn;
use crate::{bindings, kernel_ext::dma::SystemMappings};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    device::{Bound, Device},
    dma::{DataDirection, DmaAddress},
    page::{BorrowedPage, PAGE_SIZE},
    prelude::*,
};

/// Access to the system's side of a migration. Dropping it ends that.
pub(crate) trait Reach<'a>: Sized {
    /// By what a copier knows a stretch of system memory, for as long as it is told of it.
    type Address<'t>
    where
        Self: 't;

    /// Gives access to nothing yet, and expects up to `pages` pages, from which or to which `dev` moves content as `direction` says. May sleep.
    fn new(dev: &'a Device<Bound>, direction: DataDirection, pages: usize) -> Self;

    /// Gives access to up to `pages` contiguous pages. Returns by what the first of them is known, and the number of pages, which is not zero
    /// unless `pages` is.
    ///
    /// # Safety
    ///
    /// From `pfn` on there are `pages` pages of system memory that stay allocated until this is dropped, with nobody relying on their content
    /// if that is to change.
    ///
    /// # Errors
    ///
    /// `EIO` if the pages cannot be reached; `ENOMEM`; `ENOSPC` for more pages than were expected.
    unsafe fn open(&mut self, pfn: Pfn, pages: usize) -> Result<(Self::Address<'_>, usize)>;

    /// Makes the pages accessible, once all are known.
    ///
    /// # Errors
    ///
    /// `EIO` if that fails.
    fn finish(&mut self) -> Result;
}

/// By a device, with DMA: it may work on the pages until the mappings are dropped.
impl<'a> Reach<'a> for SystemMappings<'a> {
    type Address<'t>
        = DmaAddress
    where
        Self: 't;

    fn new(dev: &'a Device<Bound>, direction: DataDirection, pages: usize) -> Self {
        Self::new(dev, direction, pages, GFP_KERNEL)
    }

    unsafe fn open(&mut self, pfn: Pfn, pages: usize) -> Result<(DmaAddress, usize)> {
        // SAFETY: As for this function.
        unsafe { self.map(pfn, pages) }
    }

    fn finish(&mut self) -> Result {
        Self::finish(self)
    }
}

/// By the CPU that adds to the copier, which copies then and there.
pub(crate) struct ByCpu {
    direction: DataDirection,
}

impl<'a> Reach<'a> for ByCpu {
    type Address<'t>
        = CpuPages<'t>
    where
        Self: 't;

    fn new(_dev: &'a Device<Bound>, direction: DataDirection, _pages: usize) -> Self {
        Self { direction }
    }

    unsafe fn open(&mut self, pfn: Pfn, pages: usize) -> Result<(CpuPages<'_>, usize)> {
        // INVARIANT: By the function's requirements the pages stay as long as `self` is borrowed.
        Ok((CpuPages { pfn, pages, direction: self.direction, _pages: PhantomData }, pages))
    }

    fn finish(&mut self) -> Result {
        Ok(())
    }
}

/// Pages of the system that a CPU is to read, or to write.
///
/// # Invariants
///
/// From `pfn` on there are `pages` pages of system memory that stay allocated for `'t`. What of them is to be written nobody else accesses.
pub(crate) struct CpuPages<'t> {
    pfn: Pfn,
    pages: usize,
    direction: DataDirection,
    _pages: PhantomData<&'t mut ()>,
}

impl CpuPages<'_> {
    /// Copies the pages' content, which is to move to the device, to `to`, which is as long.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not, or the content is to move from the device.
    pub(crate) fn read(self, to: &mut [u8]) -> Result {
        self.check(to.len(), DataDirection::ToDevice)?;
        for (page, to) in self.pages().zip(to.chunks_exact_mut(PAGE_SIZE)) {
            // SAFETY: `to` is a page long. The page is isolated: no process has it mapped, and nobody else writes to it.
            unsafe { page.read_raw(to.as_mut_ptr(), 0, PAGE_SIZE)? };
        }
        Ok(())
    }

    /// Copies `from`, which is as long, to the pages, whose content is to come from the device.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not, or the content is to move to the device.
    pub(crate) fn write(self, from: &[u8]) -> Result {
        self.check(from.len(), DataDirection::FromDevice)?;
        for (page, from) in self.pages().zip(from.chunks_exact(PAGE_SIZE)) {
            // SAFETY: `from` is a page long. By the type invariants nobody else accesses the page.
            unsafe { page.write_raw(from.as_ptr(), 0, PAGE_SIZE)? };
        }
        Ok(())
    }

    fn check(&self, length: usize, direction: DataDirection) -> Result {
        (length == self.pages * PAGE_SIZE && self.direction == direction).then_some(()).ok_or(EINVAL)
    }

    fn pages(&self) -> impl Iterator<Item = BorrowedPage<'_>> {
        (self.pfn..self.pfn + self.pages).filter_map(|pfn| {
            // SAFETY: By the type invariants the pfn has a page.
            let page = NonNull::new(unsafe { bindings::ersatz_pfn_to_page(pfn) })?;
            // SAFETY: By the type invariants the page is valid while `self` lives.
            Some(unsafe { BorrowedPage::from_raw(page) })
        })
    }
}

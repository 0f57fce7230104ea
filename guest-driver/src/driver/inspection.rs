// SPDX-License-Identifier: GPL-2.0
//! Looking at a process's pages where they are: which memory they are in, and what the device reads there.

use super::{
    copy_engine::{Batch, BATCH_PAGES},
    gpu::{Gpu, Vram},
};
use crate::{
    abi::command::Cause,
    kernel_ext::{mm::Vmas, signal},
    uapi::{Direction, PageState},
    zone_device::{
        folio::HUGE_SIZE,
        migrate::{for_each_hole, Endpoint},
        mirror::{Access, Mirror, Pages, View},
        pagemap::BoundMap,
    },
};
use core::ops::Range;
use kernel::{
    mm::MmWithUser,
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
};

/// Pages digested at once.
pub(crate) const DIGEST_PAGES: usize = 128;

fn state(vram: &Vram, view: View) -> PageState {
    match view {
        View::Absent => PageState::None,
        View::Present(pfn) if vram.offset(pfn).is_some() => PageState::Device,
        View::Present(_) => PageState::System,
    }
}

/// The first `pages` pages of a range, or all of it, up to where the next entry of a PMD table begins.
pub(crate) fn first_pages(range: &Range<usize>, pages: usize) -> Range<usize> {
    let boundary = (range.start / HUGE_SIZE + 1).saturating_mul(HUGE_SIZE);
    range.start..(range.start + range.len().min(pages << PAGE_SHIFT)).min(boundary)
}

/// The states of some pages at the start of a range: a [`PageState`] each. Nothing is faulted in.
///
/// # Errors
///
/// `EINTR` if a signal came first; `ENOMEM`.
pub(crate) fn first_states<'s>(
    map: BoundMap<'_, Gpu>,
    mm: &MmWithUser,
    range: &Range<usize>,
    buffers: &'s mut StateBuffers,
) -> Result<&'s [u8]> {
    if signal::is_pending() {
        return Err(EINTR);
    }
    let StateBuffers { pfns, states } = buffers;
    let mapped = Vmas::lock(mm).first_in(range.clone()).map_or(range.end, |(_, part)| part.start);
    if mapped > range.start {
        let pages = ((mapped - range.start) >> PAGE_SHIFT).min(states.len());
        states[..pages].fill(PageState::None as u8);
        return Ok(&states[..pages]);
    }
    let batch = first_pages(range, BATCH_PAGES);
    let states = &mut states[..batch.len() >> PAGE_SHIFT];
    pin_init::stack_try_pin_init!(let mirror =? Mirror::new(mm, batch.clone()));
    mirror.with_pages(map.map().owner(), Access::Peek, pfns, |pages| {
        for (index, slot) in states.iter_mut().enumerate() {
            *slot = state(map.map(), pages.view(index)) as u8;
        }
    })?;
    if states.contains(&(PageState::None as u8)) {
        mark_swapped(mm, batch, states)?;
    }
    Ok(states)
}

/// Tells pages that are swapped out from holes, which the range fault does not.
fn mark_swapped(mm: &MmWithUser, batch: Range<usize>, states: &mut [u8]) -> Result {
    let vmas = Vmas::lock(mm);
    let mut rest = batch.clone();
    while let Some((vma, part)) = vmas.first_in(rest.clone()) {
        rest.start = part.end;
        if vma.is_anonymous() {
            let first = (part.start - batch.start) >> PAGE_SHIFT;
            let of_part = states.get_mut(first..first + (part.len() >> PAGE_SHIFT)).ok_or(EINVAL)?;
            let absent = |state: u8| state == PageState::None as u8;
            of_part.iter_mut().filter(|state| absent(**state)).for_each(|state| *state = PageState::Swapped as u8);
            let looked_at = for_each_hole(vma, part, |index| {
                if let Some(state) = of_part.get_mut(index).filter(|state| **state == PageState::Swapped as u8) {
                    *state = PageState::None as u8;
                }
            });
            // Memory that never migrates has no swapped pages of its own.
            if looked_at.is_err() {
                of_part.iter_mut().filter(|state| **state == PageState::Swapped as u8).for_each(|state| {
                    *state = PageState::None as u8;
                });
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Room for [`first_states`].
pub(crate) struct StateBuffers {
    pfns: KVec<usize>,
    states: KVec<u8>,
}

impl StateBuffers {
    /// Room for a batch.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            pfns: KVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?,
            states: KVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?,
        })
    }
}

/// Number of pages of a range that are where `direction` leads to.
///
/// # Errors
///
/// `EINTR` if a signal came first; `ENOMEM`.
pub(crate) fn count(
    map: BoundMap<'_, Gpu>,
    mm: &MmWithUser,
    range: Range<usize>,
    direction: Direction,
) -> Result<usize> {
    let wanted = match direction {
        Direction::ToDevice => PageState::Device,
        Direction::ToSystem => PageState::System,
    } as u8;
    let mut buffers = StateBuffers::new()?;
    let mut count = 0;
    let mut rest = range;
    while !rest.is_empty() {
        let states = first_states(map, mm, &rest, &mut buffers)?;
        count += states.iter().filter(|&&state| state == wanted).count();
        rest.start += states.len() << PAGE_SHIFT;
    }
    Ok(count)
}

/// The CRC-32Cs of some pages at the start of a range, as the device reads them.
pub(crate) struct Digests {
    pfns: KVec<usize>,
    values: KVec<u64>,
}

impl Digests {
    /// Room for a batch.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            pfns: KVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?,
            values: KVec::from_elem(0, DIGEST_PAGES, GFP_KERNEL)?,
        })
    }

    /// Makes the device read each page at the start of a range where it is. Returns the digests, and how many of the pages were in VRAM.
    ///
    /// # Errors
    ///
    /// `EFAULT` if a page cannot be read, or is not for devices to read; `EIO` if the device failed; `EINTR`, `ENOMEM`.
    pub(crate) fn of_first(
        &mut self,
        map: BoundMap<'_, Gpu>,
        mm: &MmWithUser,
        range: &Range<usize>,
    ) -> Result<(&[u64], u64)> {
        if signal::is_pending() {
            return Err(EINTR);
        }
        let batch = first_pages(range, DIGEST_PAGES);
        let Self { pfns, values } = self;
        let values = &mut values[..batch.len() >> PAGE_SHIFT];
        pin_init::stack_try_pin_init!(let mirror = Mirror::new(mm, batch.clone()));
        let mirror = mirror.map_err(|error| if error == EOVERFLOW { EFAULT } else { error })?;
        // Before the pages are held: those who have the other batches may wait for the pages.
        let mut work = map.map().memory().engine.batch(Cause::Inspect);
        let in_vram = mirror.with_pages(map.map().owner(), Access::Read, pfns, |pages| {
            digest_batch(map, pages, &mut work, batch.start, values)
        })??;
        Ok((values, in_vram))
    }
}

/// Fills `values` with the digests of held pages. Returns how many were in VRAM.
fn digest_batch(
    map: BoundMap<'_, Gpu>,
    pages: &Pages<'_>,
    batch: &mut Batch<'_>,
    address: usize,
    values: &mut [u64],
) -> Result<u64> {
    let mut mappings = pages.mappings(map.dev());
    let mut count = 0;
    for index in 0..values.len() {
        let View::Present(pfn) = pages.view(index) else {
            return Err(EFAULT);
        };
        let source = match map.offset(pfn) {
            Some(offset) => {
                count += 1;
                map.touch(pfn);
                Endpoint::Device(offset)
            }
            None => Endpoint::System(mappings.map(index)?),
        };
        batch.digest(source, address + index * PAGE_SIZE)?;
    }
    mappings.finish()?;
    batch.run()?;
    for (index, value) in values.iter_mut().enumerate() {
        *value = batch.result(index)?;
    }
    Ok(count)
}

// SPDX-License-Identifier: GPL-2.0
//! Looking at a process's pages where they are: which memory they are in, and what the device reads there.

use super::{
    copy_engine::{system, vram as in_vram, BATCH_PAGES},
    gpu::Vram,
};
use crate::{
    abi::command::Cause,
    kernel_ext::mm::Vmas,
    uapi::{Direction, PageState},
    zone_device::mirror::{Access, Mirror, Pages, View},
};
use core::ops::Range;
use kernel::{
    device::{Bound, Device},
    mm::MmWithUser,
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    uaccess::UserSliceWriter,
};

fn state(vram: &Vram, view: View) -> PageState {
    match view {
        View::Absent => PageState::None,
        View::Present(pfn) if vram.offset(pfn).is_some() => PageState::Device,
        View::Present(_) => PageState::System,
    }
}

/// Calls `work` with the states of each batch of pages of a range, mappings and holes, without faulting anything in.
fn for_each_state(vram: &Vram, mm: &MmWithUser, range: Range<usize>, mut work: impl FnMut(&[u8]) -> Result) -> Result {
    let mut pfns = KVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?;
    let mut states = KVec::from_elem(0u8, BATCH_PAGES, GFP_KERNEL)?;
    let mut next = range.start;
    while next < range.end {
        if kernel::current!().signal_pending() {
            return Err(EINTR);
        }
        // What lies before the next mapping is a hole.
        let mapped = Vmas::lock(mm).first_in(next..range.end).map_or(range.end, |(_, part)| part.start);
        let batch = if mapped > next {
            next..mapped.min(next + BATCH_PAGES * PAGE_SIZE)
        } else {
            next..range.end.min(next + BATCH_PAGES * PAGE_SIZE)
        };
        let states = &mut states[..batch.len() >> PAGE_SHIFT];
        states.fill(PageState::None as u8);
        if mapped == next {
            pin_init::stack_try_pin_init!(let mirror =? Mirror::new(mm, batch.clone()));
            mirror.with_pages(vram.owner(), Access::Peek, &mut pfns, |pages| {
                for (index, slot) in states.iter_mut().enumerate() {
                    *slot = state(vram, pages.view(index)) as u8;
                }
            })?;
        }
        work(states)?;
        next = batch.end;
    }
    Ok(())
}

/// How many pages of a range are where `direction` leads to.
///
/// # Errors
///
/// `EINTR` if a signal came first; `ENOMEM`.
pub(crate) fn count(vram: &Vram, mm: &MmWithUser, range: Range<usize>, direction: Direction) -> Result<usize> {
    let wanted = match direction {
        Direction::ToDevice => PageState::Device,
        Direction::ToSystem => PageState::System,
    } as u8;
    let mut count = 0;
    for_each_state(vram, mm, range, |states| {
        count += states.iter().filter(|&&state| state == wanted).count();
        Ok(())
    })?;
    Ok(count)
}

/// Writes a [`PageState`] for each page of a range.
///
/// # Errors
///
/// `EFAULT` if they cannot be written there; otherwise as for [`count`].
pub(crate) fn residency(vram: &Vram, mm: &MmWithUser, range: Range<usize>, states: &mut UserSliceWriter) -> Result {
    for_each_state(vram, mm, range, |batch| states.write_slice(batch))
}

/// Has the device read each page of a range where it is, and writes their CRC-32Cs. Returns how many pages were in VRAM.
///
/// # Errors
///
/// `EFAULT` if a page cannot be read, or the digests cannot be written; `EIO` if the device failed; `EINTR`, `ENOMEM`.
pub(crate) fn digest(
    vram: &Vram,
    dev: &Device<Bound>,
    mm: &MmWithUser,
    range: Range<usize>,
    digests: &mut UserSliceWriter,
) -> Result<u64> {
    let mut pfns = KVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?;
    let mut values = KVec::from_elem(0u64, BATCH_PAGES, GFP_KERNEL)?;
    let mut in_vram = 0;
    for start in range.clone().step_by(BATCH_PAGES * PAGE_SIZE) {
        let batch = start..range.end.min(start + BATCH_PAGES * PAGE_SIZE);
        let values = &mut values[..batch.len() >> PAGE_SHIFT];
        pin_init::stack_try_pin_init!(let mirror =? Mirror::new(mm, batch.clone()));
        in_vram += mirror.with_pages(vram.owner(), Access::Read, &mut pfns, |pages| {
            digest_batch(vram, dev, pages, batch.start, values)
        })??;
        for value in values.iter() {
            digests.write(value)?;
        }
    }
    Ok(in_vram)
}

/// Fills `values` with the digests of held pages. Returns how many were in VRAM.
fn digest_batch(
    vram: &Vram,
    dev: &Device<Bound>,
    pages: &Pages<'_>,
    address: usize,
    values: &mut [u64],
) -> Result<u64> {
    // The pages are held, so reclaim must not be waited for.
    let mut mappings = KVec::with_capacity(values.len(), GFP_NOWAIT)?;
    let mut batch = vram.memory().engine.batch(Cause::Inspect);
    let mut count = 0;
    for index in 0..values.len() {
        let View::Present(pfn) = pages.view(index) else {
            return Err(EFAULT);
        };
        let source = match vram.offset(pfn) {
            Some(offset) => {
                count += 1;
                in_vram(offset)
            }
            None => {
                let mapping = pages.map(index, dev)?;
                let source = system(mapping.address());
                mappings.push_within_capacity(mapping).map_err(|_| EINVAL)?;
                source
            }
        };
        batch.digest(source, address + index * PAGE_SIZE)?;
    }
    batch.run()?;
    for (index, value) in values.iter_mut().enumerate() {
        *value = batch.result(index)?;
    }
    Ok(count)
}

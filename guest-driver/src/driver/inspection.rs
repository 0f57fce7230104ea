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

/// Pages digested at once: so few that what keeps track of them fits in a page, which can be had without waiting.
const DIGEST_PAGES: usize = 128;

fn state(vram: &Vram, view: View) -> PageState {
    match view {
        View::Absent => PageState::None,
        View::Present(pfn) if vram.offset(pfn).is_some() => PageState::Device,
        View::Present(_) => PageState::System,
    }
}

/// A stretch of a range, in order.
enum Stretch<'a> {
    /// So many pages between mappings.
    Hole(usize),
    /// A [`PageState`] each for some pages of mappings.
    States(&'a [u8]),
}

/// The first `pages` pages of a range, or all of it.
fn first_pages(range: &Range<usize>, pages: usize) -> Range<usize> {
    range.start..range.start + range.len().min(pages << PAGE_SHIFT)
}

/// Calls `work` with each stretch of a range, without faulting anything in.
fn for_each_stretch(
    vram: &Vram,
    mm: &MmWithUser,
    range: Range<usize>,
    mut work: impl FnMut(Stretch<'_>) -> Result,
) -> Result {
    let mut pfns = KVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?;
    let mut states = KVec::from_elem(0u8, BATCH_PAGES, GFP_KERNEL)?;
    let mut rest = range;
    while !rest.is_empty() {
        if kernel::current!().signal_pending() {
            return Err(EINTR);
        }
        let mapped = Vmas::lock(mm).first_in(rest.clone()).map_or(rest.end, |(_, part)| part.start);
        if mapped > rest.start {
            work(Stretch::Hole((mapped - rest.start) >> PAGE_SHIFT))?;
            rest.start = mapped;
            continue;
        }
        let batch = first_pages(&rest, BATCH_PAGES);
        rest.start = batch.end;
        let states = &mut states[..batch.len() >> PAGE_SHIFT];
        pin_init::stack_try_pin_init!(let mirror =? Mirror::new(mm, batch));
        mirror.with_pages(vram.owner(), Access::Peek, &mut pfns, |pages| {
            for (index, slot) in states.iter_mut().enumerate() {
                *slot = state(vram, pages.view(index)) as u8;
            }
        })?;
        work(Stretch::States(states))?;
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
    for_each_stretch(vram, mm, range, |stretch| {
        if let Stretch::States(states) = stretch {
            count += states.iter().filter(|&&state| state == wanted).count();
        }
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
    for_each_stretch(vram, mm, range, |stretch| match stretch {
        Stretch::States(batch) => states.write_slice(batch),
        Stretch::Hole(pages) => {
            const NONE: [u8; BATCH_PAGES] = [PageState::None as u8; BATCH_PAGES];
            let mut pages = pages;
            while pages > 0 {
                if kernel::current!().signal_pending() {
                    return Err(EINTR);
                }
                let batch = &NONE[..pages.min(NONE.len())];
                states.write_slice(batch)?;
                pages -= batch.len();
            }
            Ok(())
        }
    })
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
    let mut pfns = KVec::from_elem(0, DIGEST_PAGES, GFP_KERNEL)?;
    let mut values = KVec::from_elem(0u64, DIGEST_PAGES, GFP_KERNEL)?;
    let mut in_vram = 0;
    let mut rest = range;
    while !rest.is_empty() {
        if kernel::current!().signal_pending() {
            return Err(EINTR);
        }
        let batch = first_pages(&rest, DIGEST_PAGES);
        rest.start = batch.end;
        let values = &mut values[..batch.len() >> PAGE_SHIFT];
        pin_init::stack_try_pin_init!(let mirror = Mirror::new(mm, batch.clone()));
        let mirror = mirror.map_err(|error| if error == EOVERFLOW { EFAULT } else { error })?;
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

// SPDX-License-Identifier: GPL-2.0
//! Pages that move because user space wants them elsewhere.

use super::{
    copy_engine::{system, vram as in_vram, BATCH_PAGES},
    gpu::Vram,
    inspection,
};
use crate::{
    abi::command::Cause,
    kernel_ext::mm::Vmas,
    uapi::Direction,
    zone_device::{
        migrate::{Entries, Isolated, Source},
        page::{LockedPage, Side},
    },
};
use core::ops::Range;
use kernel::{
    device::{Bound, Device},
    mm::{
        virt::{flags, VmaRef},
        MmWithUser,
    },
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
};

/// What became of a range.
pub(crate) struct Outcome {
    /// Pages that moved.
    pub(crate) moved: u64,
    /// Pages that are not where they were asked to go.
    pub(crate) left: u64,
}

/// Moves the pages of a page-aligned range of `mm`, batch by batch. Pages that cannot move stay.
///
/// # Errors
///
/// `EINTR` if a signal came first; `EIO` if the device failed; `ENOMEM`. What has moved by then has moved.
pub(crate) fn migrate(
    vram: &Vram,
    dev: &Device<Bound>,
    mm: &MmWithUser,
    range: Range<usize>,
    direction: Direction,
) -> Result<Outcome> {
    let mut src = KVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?;
    let mut dst = KVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?;
    let mut moved = 0;
    let mut next = range.start;
    while next < range.end {
        if kernel::current!().signal_pending() {
            return Err(EINTR);
        }
        let vmas = Vmas::lock(mm);
        let Some((vma, part)) = vmas.first_in(next..range.end) else {
            break;
        };
        let part = part.start..part.start + part.len().min(BATCH_PAGES * PAGE_SIZE);
        next = part.end;
        let entries = Entries::new(&mut src, &mut dst);
        moved += match direction {
            Direction::ToDevice => to_device(vram, dev, vma, part, entries)?,
            Direction::ToSystem => to_system(vram, dev, vma, part, entries)?,
        };
    }
    let pages = range.len() >> PAGE_SHIFT;
    let left = if moved == pages { 0 } else { pages - inspection::count(vram, mm, range, direction)? };
    Ok(Outcome { moved: moved as u64, left: left as u64 })
}

/// Moves up to a batch of a VMA's pages to the device, as far as there is free VRAM. Returns how many moved.
fn to_device(
    vram: &Vram,
    dev: &Device<Bound>,
    vma: &VmaRef,
    range: Range<usize>,
    entries: Entries<'_>,
) -> Result<usize> {
    // A shared mapping has a file's pages only, which cannot go to a device.
    if vma.flags() & flags::SHARED != 0 {
        return Ok(0);
    }
    let _placement = vram.memory().placement.lock();
    if vram.free_pages().free() == 0 {
        return Ok(0);
    }
    let Some(mut isolated) = isolate(vram, vma, range, Side::System, entries)? else {
        return Ok(0);
    };
    let accessible = vma.flags() & (flags::READ | flags::WRITE | flags::EXEC) != 0;
    for index in 0..isolated.len() {
        match isolated.source(index) {
            // A guard area has no content to place.
            Some(Source::Hole) if !accessible => {}
            Some(_) => match vram.allocate(dev) {
                Some(page) => isolated.set_destination(index, page)?,
                None => break,
            },
            None => {}
        }
    }
    transfer(vram, dev, &isolated, Cause::MigrateToDevice)?;
    // A statement of its own: the pages are to be let go before the locks.
    let moved = isolated.commit().count();
    Ok(moved)
}

/// Moves up to a batch of a VMA's pages back to the system. Returns how many moved.
fn to_system(
    vram: &Vram,
    dev: &Device<Bound>,
    vma: &VmaRef,
    range: Range<usize>,
    entries: Entries<'_>,
) -> Result<usize> {
    let start = range.start;
    let Some(mut isolated) = isolate(vram, vma, range, Side::Device, entries)? else {
        return Ok(0);
    };
    for index in 0..isolated.len() {
        if let Some(Source::Page(_)) = isolated.source(index) {
            let page = LockedPage::new_for_vma(vma, start + index * PAGE_SIZE)?;
            isolated.set_destination(index, page)?;
        }
    }
    transfer(vram, dev, &isolated, Cause::MigrateToSystem)?;
    let moved = isolated.commit().count();
    Ok(moved)
}

/// Isolates a VMA's pages; `None` if they are of a kind that never migrates.
fn isolate<'a>(
    vram: &'a Vram,
    vma: &'a VmaRef,
    range: Range<usize>,
    from: Side,
    entries: Entries<'a>,
) -> Result<Option<Isolated<'a>>> {
    match Isolated::of_vma(vma, range, from, vram.owner(), entries) {
        Ok(isolated) => Ok(Some(isolated)),
        Err(error) if error == EINVAL => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has the device fill all destinations: from their sources, or with zeroes where there is none.
///
/// # Errors
///
/// `EIO` if the device failed; `ENOMEM`. The destinations' content then means nothing.
pub(crate) fn transfer(vram: &Vram, dev: &Device<Bound>, isolated: &Isolated<'_>, cause: Cause) -> Result {
    // Before the batch is begun: an allocation may have to wait for memory, and others wait for the batch.
    let mut mappings = KVec::with_capacity(isolated.len(), GFP_KERNEL)?;
    let mut batch = vram.memory().engine.batch(cause);
    for index in 0..isolated.len() {
        let (Some(source), Some(destination)) = (isolated.source(index), isolated.destination(index)) else {
            continue;
        };
        let address = isolated.address(index);
        let (source, destination) = match (source, vram.offset(destination)) {
            (Source::Hole, offset) => {
                batch.clear(in_vram(offset.ok_or(EINVAL)?), address)?;
                continue;
            }
            (Source::Page(_), Some(offset)) => {
                let mapping = isolated.map_system_page(index, dev)?;
                let source = system(mapping.address());
                mappings.push_within_capacity(mapping).map_err(|_| EINVAL)?;
                (source, in_vram(offset))
            }
            (Source::Page(pfn), None) => {
                let mapping = isolated.map_system_page(index, dev)?;
                let destination = system(mapping.address());
                mappings.push_within_capacity(mapping).map_err(|_| EINVAL)?;
                (in_vram(vram.offset(pfn).ok_or(EINVAL)?), destination)
            }
        };
        batch.copy(source, destination, address)?;
    }
    batch.run()
}

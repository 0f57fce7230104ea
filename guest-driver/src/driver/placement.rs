// SPDX-License-Identifier: GPL-2.0
//! Pages that move because user space, or the device, wants them elsewhere.
//!
//! A range is moved in pieces that one entry of a PMD table covers, several of which are under way at a time. The mm stays locked
//! for reading while they are, and is let go now and then.

use super::{
    eviction,
    gpu::Gpu,
    inspection,
    statistics::Stopwatch,
    transfer::{Pipeline, Preparation},
};
use crate::{
    abi::command::Cause,
    kernel_ext::{
        mm::{large_folio_rest, LockedVma, Vmas},
        signal,
    },
    uapi::Direction,
    zone_device::{
        folio::{LockedFolio, Side, HUGE_ORDER, HUGE_SIZE},
        migrate::{Isolated, Source},
        pagemap::BoundMap,
    },
};
use core::ops::Range;
use kernel::{
    mm::{virt::flags, MmWithUser},
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
};

/// Pieces that are moved before the mm is unlocked for a moment.
const PIECES_PER_LOCK: usize = 16;

/// What became of a range.
pub(crate) struct Outcome {
    /// Pages that moved.
    pub(crate) moved: u64,
    /// Pages that are not where they were asked to go.
    pub(crate) left: u64,
}

/// What became of a piece.
struct Step {
    /// Where to go on.
    next: usize,
    /// Whether pages of it stayed for lack of VRAM.
    is_short: bool,
}

/// Moves the pages of a page-aligned range of `mm`, which must be the current process's. Pages that cannot move stay. If VRAM runs out, what
/// was used longest ago is evicted, but nothing that this call has moved.
///
/// # Errors
///
/// `EINTR` if a signal came before any page had moved; `EIO` if the device failed; `ENOMEM`. What has moved by then has moved.
pub(crate) fn migrate(
    map: BoundMap<'_, Gpu>,
    mm: &MmWithUser,
    range: Range<usize>,
    direction: Direction,
) -> Result<Outcome> {
    let cause = match direction {
        Direction::ToDevice => Cause::MigrateToDevice,
        Direction::ToSystem => Cause::MigrateToSystem,
    };
    migrate_for(map, mm, range, direction, cause)
}

/// As [`migrate`], for another reason than that user space asks for it.
///
/// # Errors
///
/// As [`migrate`].
pub(crate) fn migrate_for(
    map: BoundMap<'_, Gpu>,
    mm: &MmWithUser,
    range: Range<usize>,
    direction: Direction,
    cause: Cause,
) -> Result<Outcome> {
    let began = map.newest_stamp();
    let mut moved = 0;
    // Whether each page was looked at once: others may bring back what a piece moved before it was tried again.
    let mut is_sure = true;
    // Where there was no VRAM although some was free.
    let mut stuck = None;
    let mut next = range.start;
    while next < range.end {
        if signal::is_pending() {
            if moved > 0 {
                break;
            }
            return Err(EINTR);
        }
        let (count, step) = migrate_pieces(map, mm, next..range.end, direction, cause)?;
        moved += count;
        next = step.next;
        // Two pieces at least, so that a piece that has a little room is not all that is gained.
        if step.is_short {
            is_sure = false;
            if eviction::make_room(map, 2 << HUGE_ORDER, began) == 0 {
                if map.free_pages() == 0 || stuck.replace(next) == Some(next) {
                    break;
                }
            }
        }
    }
    let pages = range.len() >> PAGE_SHIFT;
    let left = if is_sure && moved == pages {
        0
    } else {
        match inspection::count(map, mm, range, direction) {
            // Not a reason to forget what has moved.
            Err(error) if error == EINTR => pages.saturating_sub(moved),
            there => pages - there?,
        }
    };
    Ok(Outcome { moved: moved.min(pages) as u64, left: left as u64 })
}

/// Moves some pieces from the start of a range, under one lock of the mm. Returns the number of pages that moved, and how to go on.
fn migrate_pieces(
    map: BoundMap<'_, Gpu>,
    mm: &MmWithUser,
    range: Range<usize>,
    direction: Direction,
    cause: Cause,
) -> Result<(usize, Step)> {
    let mut step = Step { next: range.start, is_short: false };
    let vmas = Vmas::lock(mm);
    let mut pipeline = Pipeline::new(map, cause)?;
    let mut touched = range.start..range.start;
    for _ in 0..PIECES_PER_LOCK {
        let Some((vma, part)) = vmas.first_in(step.next..range.end) else {
            step.next = range.end;
            break;
        };
        let boundary = (part.start / HUGE_SIZE + 1).saturating_mul(HUGE_SIZE);
        let piece = part.start..part.end.min(boundary);
        touched.end = piece.end;
        step = match direction {
            Direction::ToDevice => to_device(map, vma, piece, &mut pipeline)?,
            Direction::ToSystem => to_system(map, vma, piece, &mut pipeline)?,
        };
        if step.is_short {
            break;
        }
    }
    let (moved, result) = pipeline.finish();
    if moved > 0 {
        let mut rest = touched;
        while let Some((vma, part)) = vmas.first_in(rest.clone()) {
            rest.start = part.end;
            map.map().memory().follow(map, vma, part);
        }
    }
    result.map(|()| (moved, step))
}

/// Begins to move a piece of a VMA to the device, as far as there is free VRAM.
fn to_device<'a>(
    map: BoundMap<'a, Gpu>,
    vma: LockedVma<'a>,
    piece: Range<usize>,
    pipeline: &mut Pipeline<'a>,
) -> Result<Step> {
    let mut step = Step { next: piece.end, is_short: false };
    // A shared mapping has a file's pages only, which cannot go to a device.
    if vma.flags() & flags::SHARED != 0 {
        return Ok(step);
    }
    let mut watch = Stopwatch::start();
    let Some(mut isolated) = isolate(map, vma, piece.clone(), Side::System)? else {
        return Ok(step);
    };
    let collect = watch.lap();
    let (mut at, mut is_empty) = (0, true);
    while let Some(run) = isolated.next_run(at) {
        at = run.end();
        is_empty = false;
        let failing = &map.map().memory().failing_allocation;
        let allocate = |order| failing.or(|| map.allocate(order));
        if !isolated.assign(&run, allocate, |_| allocate(0))? {
            step = Step { next: piece.start, is_short: true };
            break;
        }
    }
    if !step.is_short {
        step.next = behind_stuck_folio(&piece, at).unwrap_or(piece.end);
    }
    if !is_empty {
        pipeline.push(isolated, Preparation { collect, allocate: watch.lap() })?;
    }
    Ok(step)
}

/// Isolating ends at a large folio that cannot be split, and reports all of the piece behind it as nothing to move. Returns the address
/// behind such a folio, if there is one at or behind page `from` of a piece.
fn behind_stuck_folio(piece: &Range<usize>, from: usize) -> Option<usize> {
    let unmoved = (piece.start + (from << PAGE_SHIFT)..piece.end).step_by(PAGE_SIZE);
    let stuck = unmoved.map(|address| (address, large_folio_rest(address))).find(|&(_, rest)| rest > 1);
    stuck.map(|(address, rest)| address + (rest << PAGE_SHIFT)).filter(|&next| next < piece.end)
}

/// Begins to move a piece of a VMA back to the system.
fn to_system<'a>(
    map: BoundMap<'a, Gpu>,
    vma: LockedVma<'a>,
    piece: Range<usize>,
    pipeline: &mut Pipeline<'a>,
) -> Result<Step> {
    let step = Step { next: piece.end, is_short: false };
    let mut watch = Stopwatch::start();
    let Some(mut isolated) = isolate(map, vma, piece.clone(), Side::Device)? else {
        return Ok(step);
    };
    let collect = watch.lap();
    let (mut at, mut is_empty) = (0, true);
    while let Some(run) = isolated.next_run(at) {
        at = run.end();
        if run.source == Source::Hole {
            continue;
        }
        is_empty = false;
        let failing = &map.map().memory().failing_allocation;
        let allocate = |order, index: usize| {
            failing.or(|| LockedFolio::new_for_vma(order, &vma, piece.start + (index << PAGE_SHIFT)).ok())
        };
        isolated.assign(&run, |order| allocate(order, run.first), |index| allocate(0, index))?;
    }
    if !is_empty {
        pipeline.push(isolated, Preparation { collect, allocate: watch.lap() })?;
    }
    Ok(step)
}

/// Isolates a VMA's pages; `None` if they are of a kind that never migrates.
fn isolate<'a>(
    map: BoundMap<'a, Gpu>,
    vma: LockedVma<'a>,
    range: Range<usize>,
    from: Side,
) -> Result<Option<Isolated<'a, Gpu>>> {
    match Isolated::of_vma(map, vma, range, from) {
        Ok(isolated) => Ok(Some(isolated)),
        Err(error) if error == EINVAL => Ok(None),
        Err(error) => Err(error),
    }
}

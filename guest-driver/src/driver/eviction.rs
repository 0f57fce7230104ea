// SPDX-License-Identifier: GPL-2.0
//! Pages of any process that leave the device: because VRAM is needed for others, or because the driver is unbound.

use super::{
    copy_engine::BATCH_PAGES,
    gpu::Gpu,
    statistics::Stopwatch,
    transfer::{Pipeline, Preparation},
};
use crate::{
    abi::command::Cause,
    kernel_ext::{signal, tracepoints},
    zone_device::{
        drain::drain_cpu_lists,
        folio::LockedFolio,
        migrate::{Isolated, Source},
        pagemap::{BoundMap, Registered},
        stand_in,
    },
};
use core::ops::Range;
use kernel::{
    prelude::*,
    time::{delay::fsleep, Delta},
};

/// Blocks that are evicted in one go.
const BLOCKS: usize = 8;
/// How long to wait for busy pages before trying again.
const PAUSE_MS: i64 = 10;
/// After how many attempts in vain to make every CPU give up the pages it holds.
const DRAIN_ATTEMPTS: u32 = 50;
/// How often to try to get the users off pages of a device that is lost.
const ABANDON_ATTEMPTS: u32 = 200;
/// After how many attempts to say that pages are still busy.
const REPORT_ATTEMPTS: u32 = 500;

/// Begins to move folios of one block off the device, by the indexes of their pages. Those that are busy, or for which there is no memory, stay.
fn evict_pages<'a>(
    map: BoundMap<'a, Gpu>,
    (block, pages): (usize, impl Iterator<Item = usize>),
    pipeline: &mut Pipeline<'a>,
) -> Result {
    let mut watch = Stopwatch::start();
    let mut isolated = Isolated::of_device(map, pages, BATCH_PAGES)?;
    let collect = watch.lap();
    let (mut at, mut is_empty) = (0, true);
    while let Some(run) = isolated.next_run(at) {
        at = run.end();
        let Source::Folio(pfn) = run.source else { continue };
        let allocate = |order, index| LockedFolio::new_system(order, map.home(pfn + (index - run.first))).ok();
        isolated.assign(&run, |order| allocate(order, run.first), |index| allocate(0, index))?;
        is_empty = false;
    }
    if !is_empty {
        tracepoints::evict(map.dev(), block, isolated.len());
        pipeline.push(isolated, Preparation { collect, allocate: watch.lap() })?;
    }
    Ok(())
}

/// Moves the blocks that were used longest ago off the device, until `pages` pages have moved. Blocks used since the stamp `since` stay.
/// Each block is tried once. Returns the number of pages that moved.
pub(crate) fn make_room(map: BoundMap<'_, Gpu>, pages: usize, since: u64) -> usize {
    let mut moved = 0;
    let mut tried = 0;
    while moved < pages {
        let Some((block, stamp)) = map.oldest_block_within(tried..since) else { break };
        tried = stamp + 1;
        // A block that fails is no reason to leave the others.
        moved += evict_blocks(map, block..block + 1, Cause::Evict).0;
    }
    moved
}

/// Tries once to move every page off the device. Returns the number of pages that moved.
///
/// # Errors
///
/// Only if none moved: `EIO` if the device failed; `ENOMEM`; `EINTR` if a signal came and the device is not being left.
fn evict_all(map: BoundMap<'_, Gpu>, cause: Cause) -> Result<usize> {
    let mut moved = 0;
    let mut failure = None;
    for block in (0..map.blocks()).step_by(BLOCKS) {
        if cause == Cause::Evict && signal::is_pending() {
            failure = Some(EINTR);
            break;
        }
        let (count, result) = evict_blocks(map, block..map.blocks().min(block + BLOCKS), cause);
        moved += count;
        failure = failure.or(result.err());
        if map.memory().engine.is_lost() {
            break;
        }
    }
    match failure {
        Some(error) if moved == 0 => Err(error),
        _ => Ok(moved),
    }
}

/// Moves the pages of some blocks. Returns the number of pages that moved, and the first failure. If there is one the pages of those blocks are
/// tried again one by one, so that none stays because of another.
pub(crate) fn evict_blocks(map: BoundMap<'_, Gpu>, blocks: Range<usize>, cause: Cause) -> (usize, Result) {
    let whole = |block| core::iter::once((block, map.mapped_pages_of_block(block)));
    let (moved, result) = evict_each(map, blocks.clone().flat_map(whole), cause);
    if result.is_ok() || map.memory().engine.is_lost() {
        return (moved, result);
    }
    // A huge folio has a block for itself, and is left out by the memory manager if it is not isolated whole.
    let singly = |block| map.mapped_pages_of_block(block).map(move |page| (block, core::iter::once(page)));
    let (more, _) = evict_each(map, blocks.flat_map(singly), cause);
    (moved + more, result)
}

/// Moves some pages of blocks, each group in a batch of its own. As [`evict_blocks`].
fn evict_each<P: Iterator<Item = usize>>(
    map: BoundMap<'_, Gpu>,
    groups: impl Iterator<Item = (usize, P)>,
    cause: Cause,
) -> (usize, Result) {
    let mut pipeline = match Pipeline::new(map, cause) {
        Ok(pipeline) => pipeline,
        Err(error) => return (0, Err(error)),
    };
    let mut begun = Ok(());
    for group in groups {
        // Evaluated whatever came before.
        let result = evict_pages(map, group, &mut pipeline);
        begun = begun.and(result);
    }
    let (moved, ended) = pipeline.finish();
    (moved, begun.and(ended))
}

/// Moves every page off the device that is not busy. Returns the number of pages that moved.
///
/// # Errors
///
/// `EIO` if the device failed; `ENOMEM`; `EINTR` if a signal came first.
pub(crate) fn evict(map: BoundMap<'_, Gpu>) -> Result<usize> {
    let mut moved = evict_all(map, Cause::Evict)?;
    if map.pages_in_use() > 0 {
        // The rest may only be held by the lists of some CPU.
        drain_cpu_lists()?;
        moved += evict_all(map, Cause::Evict).unwrap_or(0);
    }
    Ok(moved)
}

/// Leaves the pages of a device that is lost: stand-ins take their place. Those that something else than page tables holds are tried for a while.
fn abandon(map: BoundMap<'_, Gpu>) {
    dev_err!(map.dev(), "{} pages are lost with the device\n", map.pages_in_use());
    if let Err(error) = stand_in::reserve(map.pages_in_use() + map.poisoned_pages()) {
        dev_err!(map.dev(), "no stand-ins for lost pages ({}): waiting for their users\n", error.to_errno());
        return;
    }
    for attempt in 0..ABANDON_ATTEMPTS {
        let replaced = (0..map.blocks()).map(|block| stand_in::replace(map, map.mapped_pages(block)).unwrap_or(0));
        let replaced: usize = replaced.sum();
        if map.pages_in_use() == 0 {
            return;
        }
        if replaced == 0 {
            if attempt % DRAIN_ATTEMPTS == 1 {
                // Without memory for it there is only longer to wait.
                let _ = drain_cpu_lists();
            }
            fsleep(Delta::from_millis(PAUSE_MS));
        }
    }
    dev_err!(
        map.dev(),
        "{} lost pages are in use by more than page tables: waiting for their users\n",
        map.pages_in_use()
    );
}

/// Has stand-ins take the place of poisoned pages that processes have, which cannot be moved.
fn leave_poisoned(map: BoundMap<'_, Gpu>) -> Result {
    stand_in::reserve(map.poisoned_pages())?;
    for block in 0..map.blocks() {
        stand_in::replace(map, map.mapped_poisoned_pages_of_block(block))?;
    }
    Ok(())
}

/// Empties the device before it is left. Nothing may be moved to it any more.
///
/// Pages can be busy for a while (pinned for I/O, just being faulted in, in a list of some CPU), so this tries until
/// all have gone. It gives up only on a device that no longer copies; whoever has pages there, or poisoned ones, gets `SIGBUS` on touching
/// them.
pub(crate) fn empty(vram: &Registered<Gpu>) {
    let map = vram.bound();
    let mut attempts = 0;
    while map.pages_in_use() > 0 {
        if map.memory().engine.is_lost() {
            return abandon(map);
        }
        attempts += 1;
        let moved = evict_all(map, Cause::Unbind);
        if map.pages_in_use() > 0 && attempts % DRAIN_ATTEMPTS == 1 {
            // Without memory for it there is only longer to wait.
            let _ = drain_cpu_lists();
        }
        match moved {
            Ok(0) | Err(_) if attempts % REPORT_ATTEMPTS == 0 => {
                dev_notice!(map.dev(), "still waiting for {} busy pages to leave\n", map.pages_in_use());
            }
            _ => {}
        }
        if map.pages_in_use() > 0 {
            fsleep(Delta::from_millis(PAUSE_MS));
        }
    }
    if map.poisoned_pages() > 0 && leave_poisoned(map).is_err() {
        dev_notice!(map.dev(), "waiting for the users of poisoned pages\n");
    }
}

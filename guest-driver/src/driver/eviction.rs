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
    },
};
use kernel::{
    prelude::*,
    time::{delay::fsleep, Delta},
};

/// How long to wait for busy pages before trying again.
const PAUSE_MS: i64 = 10;
/// After how many attempts in vain to make every CPU give up the pages it holds.
const DRAIN_ATTEMPTS: u32 = 50;
/// After how many attempts to say that pages are still busy.
const REPORT_ATTEMPTS: u32 = 500;

/// Begins to move the folios of one block off the device. Those that are busy, or for which there is no memory, stay.
fn evict_block<'a>(map: BoundMap<'a, Gpu>, block: usize, pipeline: &mut Pipeline<'a>) -> Result {
    let mut watch = Stopwatch::start();
    let mut isolated = Isolated::of_device(map, map.mapped_pages_of_block(block), BATCH_PAGES)?;
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

fn evict_one(map: BoundMap<'_, Gpu>, block: usize, cause: Cause) -> Result<usize> {
    let mut pipeline = Pipeline::new(map, cause)?;
    evict_block(map, block, &mut pipeline)?;
    pipeline.finish()
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
        moved += evict_one(map, block, Cause::Evict).unwrap_or(0);
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
    let mut block = 0;
    while block < map.blocks() {
        if cause == Cause::Evict && signal::is_pending() {
            failure = Some(EINTR);
            break;
        }
        let result = evict_blocks(map, &mut block, cause);
        match result {
            Ok(count) => moved += count,
            Err(error) => failure = Some(error),
        }
        if map.memory().engine.is_lost() {
            break;
        }
    }
    match failure {
        Some(error) if moved == 0 => Err(error),
        _ => Ok(moved),
    }
}

/// Moves the pages of some blocks, from `block` on, which is then the next. What fails ends the pass, and the next goes on behind it.
fn evict_blocks(map: BoundMap<'_, Gpu>, block: &mut usize, cause: Cause) -> Result<usize> {
    const BLOCKS: usize = 8;
    let mut pipeline = Pipeline::new(map, cause)?;
    let last = map.blocks().min(*block + BLOCKS);
    while *block < last {
        let this = *block;
        *block += 1;
        evict_block(map, this, &mut pipeline)?;
    }
    pipeline.finish()
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

/// Empties the device before it is left. Nothing may be moved to it any more.
///
/// Pages can be busy for a while (pinned for I/O, just being faulted in, in a list of some CPU), so this tries until
/// all have gone. It gives up only on a device that no longer copies; whoever has pages there gets `SIGBUS` on touching
/// them.
pub(crate) fn empty(vram: &Registered<Gpu>) {
    let map = vram.bound();
    let mut attempts = 0;
    while map.pages_in_use() > 0 {
        if map.memory().engine.is_lost() {
            dev_err!(
                map.dev(),
                "{} pages are lost with the device; waiting for their processes to end\n",
                map.pages_in_use()
            );
            return;
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
}

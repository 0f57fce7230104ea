// SPDX-License-Identifier: GPL-2.0
//! Memory that the host demands back: it is moved off, kept from use and handed over. What the host returns is used again.
//!
//! What is handed over outlasts the driver: it is found at probe, and left out.

use super::{eviction, gpu::Gpu, registers::Registers};
use crate::{
    abi::{
        command::Cause,
        regs::{self, HandOver, Register},
    },
    zone_device::{drain::drain_cpu_lists, folio::HUGE_ORDER, pagemap::BoundMap, withheld::for_each_run},
};
use core::ops::Range;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    time::{delay::fsleep, Delta},
};

/// Number of pages of a block.
const BLOCK: usize = 1 << HUGE_ORDER;
/// How often pages that are busy are tried, and how long to wait in between.
const ROUNDS: u32 = 4;
const PAUSE_MS: i64 = 5;
/// How often the parts of a demand are read until they are those of one.
const READS: u32 = 16;

/// What the host demands.
struct Demand {
    number: u64,
    /// Where, in pages.
    within: Range<usize>,
    /// How many pages are wanted.
    pages: usize,
    /// Until when, by the device's clock.
    deadline: u64,
}

impl Demand {
    /// The demand that waits for an answer, if there is one.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device does not answer.
    fn read(registers: &Registers) -> Result<Option<Self>> {
        let pages = |register: Register| -> Result<usize> {
            Ok(usize::try_from(registers.read(register)? / PAGE_SIZE as u64).unwrap_or(usize::MAX))
        };
        for _ in 0..READS {
            let number = registers.read(regs::DEMAND)?;
            if number == 0 {
                return Ok(None);
            }
            let (first, length) = (pages(regs::DEMAND_OFFSET)?, pages(regs::DEMAND_LENGTH)?);
            let demand = Self {
                number,
                within: first..first.saturating_add(length),
                pages: pages(regs::DEMAND_BYTES)?,
                deadline: registers.read(regs::DEMAND_DEADLINE)?,
            };
            registers.confirm()?;
            if registers.read(regs::DEMAND)? == number {
                return Ok(Some(demand));
            }
        }
        Ok(None)
    }
}

/// Looks at what the host has returned and what it demands, and answers.
///
/// # Errors
///
/// `ENODEV` if the device does not answer.
pub(crate) fn attend(map: BoundMap<'_, Gpu>) -> Result {
    let gpu = map.map().memory();
    let _only = gpu.demands.lock();
    use_returned(map)?;
    let mut answered = 0;
    while let Some(demand) = Demand::read(&gpu.registers)?.filter(|demand| demand.number != answered) {
        let given = meet(map, &demand)?;
        answered = demand.number;
        // Said before the host can return any of it.
        dev_info!(map.dev(), "{given} of {} pages of VRAM are handed over to the host\n", demand.pages);
        gpu.registers.write(regs::DEMAND_ANSWER, answered)?;
    }
    Ok(())
}

/// Leaves out what is handed over, before anything uses the pages.
///
/// # Errors
///
/// `ENODEV` if the device does not answer.
pub(crate) fn leave_out(map: BoundMap<'_, Gpu>) -> Result {
    let mut at = 0;
    while let Some(run) = handed_over_from(&map.map().memory().registers, at)?.filter(|run| run.start < map.pages()) {
        at = run.end;
        for index in run.start..run.end.min(map.pages()) {
            map.claim(index);
            map.settle(index);
        }
    }
    if map.withheld_pages() > 0 {
        dev_notice!(map.dev(), "{} pages of VRAM are handed over to the host, and left out\n", map.withheld_pages());
    }
    Ok(())
}

/// The first pages at or behind one that are handed over, as the device has it.
fn handed_over_from(registers: &Registers, page: usize) -> Result<Option<Range<usize>>> {
    registers.write(regs::HANDED_OVER, page as u64 * PAGE_SIZE as u64)?;
    let (first, end) = (registers.read(regs::HANDED_OVER)?, registers.read(regs::HANDED_OVER_END)?);
    registers.confirm()?;
    let run = usize::try_from(first / PAGE_SIZE as u64)?..usize::try_from(end / PAGE_SIZE as u64)?;
    // What was returned between the two reads may have been the last; all that follows is not.
    Ok(Some(run).filter(|run| first != u64::MAX && run.start >= page && run.start < run.end))
}

/// Puts pages back into use that the host has returned.
fn use_returned(map: BoundMap<'_, Gpu>) -> Result {
    let (mut at, mut returned) = (0, 0);
    while at < map.pages() && map.withheld_pages() > 0 {
        let run = handed_over_from(&map.map().memory().registers, at)?.unwrap_or(map.pages()..map.pages());
        returned += (at..run.start.min(map.pages())).filter(|&index| map.release(index)).count();
        at = run.end;
    }
    if returned > 0 {
        dev_info!(map.dev(), "{returned} pages of VRAM are returned by the host\n");
    }
    Ok(())
}

/// Hands over what is demanded, as far as possible. Returns the number of pages.
fn meet(map: BoundMap<'_, Gpu>, demand: &Demand) -> Result<usize> {
    let gpu = map.map().memory();
    let mut left = demand.pages;
    hand_over_unused(map, demand.within.clone(), &mut left)?;
    let within = demand.within.start.min(map.pages())..demand.within.end.min(map.pages());
    // Blocks that are free as a whole, then what is free in others, then what is free: few blocks are to be broken up.
    hand_over_free(map, within.clone(), &mut left, |free, left| free == BLOCK && left >= BLOCK)?;
    hand_over_free(map, within.clone(), &mut left, |free, _| free < BLOCK)?;
    hand_over_free(map, within.clone(), &mut left, |_, _| true)?;
    for round in 0..ROUNDS {
        if left == 0 || gpu.registers.read(regs::TIMESTAMP)? >= demand.deadline || gpu.engine.is_lost() {
            break;
        }
        if round > 0 {
            // The rest may be busy for a moment, or only be held by the lists of some CPU.
            fsleep(Delta::from_millis(PAUSE_MS));
            let _ = drain_cpu_lists();
        }
        hand_over_used(map, within.clone(), &mut left)?;
    }
    Ok(demand.pages - left)
}

/// Hands over memory behind the pages that are registered, which nobody uses.
fn hand_over_unused(map: BoundMap<'_, Gpu>, within: Range<usize>, left: &mut usize) -> Result {
    let registers = &map.map().memory().registers;
    let mut at = within.start.max(map.pages());
    while at < within.end && *left > 0 {
        let handed = handed_over_from(registers, at)?.unwrap_or(within.end..within.end);
        let end = handed.start.min(within.end).min(at.saturating_add(*left));
        hand_over(registers, at..end)?;
        *left -= end - at;
        at = handed.end;
    }
    Ok(())
}

/// Hands over free pages of those blocks of a range that `is_wanted` wants, by their number of free pages and how many are left to be
/// handed over.
fn hand_over_free(
    map: BoundMap<'_, Gpu>,
    within: Range<usize>,
    left: &mut usize,
    is_wanted: impl Fn(usize, usize) -> bool,
) -> Result {
    for block in within.start / BLOCK..within.end.div_ceil(BLOCK) {
        let free = map.free_pages_of(block);
        if *left == 0 {
            break;
        }
        if free > 0 && is_wanted(free, *left) {
            hand_over_ours(map, part(block, &within), left, |index| {
                map.claim(index);
                map.settle(index)
            })?;
        }
    }
    Ok(())
}

/// Hands over pages of a range that are in use, block by block, those that were used longest ago first: their content moves away.
fn hand_over_used(map: BoundMap<'_, Gpu>, within: Range<usize>, left: &mut usize) -> Result {
    let (mut tried, now) = (0, map.newest_stamp());
    while *left > 0 {
        let Some((block, stamp)) = map.oldest_block_within(tried..now) else { break };
        tried = stamp + 1;
        let pages = part(block, &within);
        if !pages.is_empty() {
            pages.clone().for_each(|index| map.claim(index));
            // What does not move stays, and is looked at again.
            let _ = eviction::evict_blocks(map, block..block + 1, Cause::Evict);
            hand_over_ours(map, pages, left, |index| map.settle(index))?;
        }
    }
    Ok(())
}

/// The pages of a block that lie in a range.
fn part(block: usize, within: &Range<usize>) -> Range<usize> {
    within.start.max(block * BLOCK)..within.end.min((block + 1) * BLOCK)
}

/// Hands over those of some pages that `is_ours` says are withheld now, up to `left`; the others are put back into use. `is_ours` is called for
/// each of them, whatever the device says.
fn hand_over_ours(
    map: BoundMap<'_, Gpu>,
    pages: Range<usize>,
    left: &mut usize,
    mut is_ours: impl FnMut(usize) -> bool,
) -> Result {
    let is_given = |index| {
        let is_ours = is_ours(index);
        if is_ours && *left == 0 {
            map.release(index);
            return false;
        }
        *left -= usize::from(is_ours);
        is_ours
    };
    let mut result = Ok(());
    for_each_run(pages, is_given, |run| {
        if result.is_ok() {
            result = hand_over(&map.map().memory().registers, run);
        }
    });
    result
}

/// Tells the device that pages are the host's now.
fn hand_over(registers: &Registers, pages: Range<usize>) -> Result {
    let mut first = pages.start;
    while first < pages.end {
        let order = first.trailing_zeros().min((pages.end - first).ilog2());
        let value = HandOver(0).with_page(first as u64).with_order(order.into());
        registers.write(regs::HAND_OVER, value.0)?;
        first += 1 << order;
    }
    Ok(())
}

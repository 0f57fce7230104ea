// SPDX-License-Identifier: GPL-2.0
//! Poisoned pages of VRAM. The driver reports to the device those that the kernel finds, and to the kernel those that the device finds.
//!
//! Poison outlasts the driver: what an earlier one told the device is found at probe, and left out.

use super::{
    channel::Channel, copy_engine::CHANNELS, demand, gpu::Gpu, open_device::Device as OpenDevice, registers::Registers,
};
use crate::{
    abi::regs,
    kernel_ext::{interrupt::Handler, memory_failure::report},
    zone_device::pagemap::BoundMap,
};
use kernel::{page::PAGE_SIZE, prelude::*, sync::Arc};

/// Tells the device that nothing may access page `index` of VRAM any more.
pub(crate) fn tell(registers: &Registers, index: usize) {
    // A device that does not take it, or is gone, accesses what it likes.
    let _ = registers.write(regs::POISON, (index * PAGE_SIZE) as u64);
}

/// Calls `found` with the index of each page of VRAM that the device takes for poisoned. One thread at a time does this.
///
/// # Errors
///
/// `ENODEV` if the device does not answer.
fn for_each(map: BoundMap<'_, Gpu>, mut found: impl FnMut(usize)) -> Result {
    let registers = &map.memory().registers;
    let mut from = 0;
    for _ in 0..regs::MAX_POISONED_PAGES {
        registers.write(regs::POISONED, from)?;
        let offset = registers.read(regs::POISONED)?;
        registers.confirm()?;
        // What lies behind the pages that are registered is nobody's.
        let Some(index) = usize::try_from(offset / PAGE_SIZE as u64).ok().filter(|&index| index < map.pages()) else {
            break;
        };
        found(index);
        from = offset.saturating_add(regs::POISON_BYTES);
    }
    Ok(())
}

/// Leaves out what is poisoned, before anything uses the pages.
///
/// # Errors
///
/// `ENODEV` if the device does not answer.
pub(crate) fn leave_out(map: BoundMap<'_, Gpu>) -> Result {
    let mut count = 0;
    for_each(map, |index| {
        // Nobody uses it, so there is nothing that could fail.
        count += usize::from(map.poison(index).is_ok());
    })?;
    if count > 0 {
        dev_notice!(map.dev(), "{count} pages of VRAM are poisoned and left out\n");
    }
    Ok(())
}

/// The interrupt of errors that are no channel's own, of poison, and of memory that the host demands or returns.
pub(crate) struct ErrorInterrupt {
    pub(crate) channels: [Arc<Channel>; CHANNELS],
    pub(crate) vram: Arc<OpenDevice>,
}

impl Handler for ErrorInterrupt {
    const HAS_THREAD: bool = true;

    fn handle(&self) {
        self.channels.iter().for_each(|channel| channel.interrupted());
    }

    fn handle_in_thread(&self) {
        // A device that is being left, or is gone, has no pages to look for.
        let _ = self.vram.with_map(|map| {
            for_each(map, |index| {
                if !map.is_poisoned(index) {
                    report(map.pfn(index));
                }
            })?;
            demand::attend(map)
        });
    }
}

// SPDX-License-Identifier: GPL-2.0
//! Pages that leave the device whoever they belong to.

use super::{copy_engine::BATCH_PAGES, gpu::Vram, placement};
use crate::{
    abi::command::Cause,
    zone_device::{
        migrate::{Entries, Isolated, Source},
        page::{drain_cpu_lists, LockedPage},
    },
};
use kernel::{
    device::{Bound, Device},
    prelude::*,
    time::{delay::fsleep, Delta},
};

/// How long to wait for busy pages before trying again.
const PAUSE_MS: i64 = 10;
/// After how many attempts in vain to have every CPU give up the pages it holds.
const DRAIN_ATTEMPTS: u32 = 50;
/// After how many attempts to say that pages are still busy.
const REPORT_ATTEMPTS: u32 = 500;

/// How many pages are on the device.
pub(crate) fn pages_in_use(vram: &Vram) -> usize {
    vram.free_pages().len() - vram.free_pages().free()
}

/// Tries once to move every page off the device. Returns how many moved.
///
/// # Errors
///
/// `EIO` if the device failed; `ENOMEM`; `EINTR` if a signal came and the device is not being left.
pub(crate) fn evict(vram: &Vram, dev: &Device<Bound>, cause: Cause) -> Result<usize> {
    let mut src = KVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?;
    let mut dst = KVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?;
    let _placement = vram.memory().placement.lock();
    let mut next = 0;
    let mut moved = 0;
    loop {
        if cause == Cause::Evict && kernel::current!().signal_pending() {
            return Err(EINTR);
        }
        let used = core::iter::from_fn(|| {
            let index = vram.free_pages().next_used(next)?;
            next = index + 1;
            Some(index)
        });
        let mut isolated = Isolated::of_device(vram, dev, used, Entries::new(&mut src, &mut dst));
        if isolated.len() == 0 {
            return Ok(moved);
        }
        for index in 0..isolated.len() {
            if let Some(Source::Page(_)) = isolated.source(index) {
                isolated.set_destination(index, LockedPage::new_system()?)?;
            }
        }
        placement::transfer(vram, dev, &isolated, cause)?;
        moved += isolated.commit().count();
    }
}

/// Empties the device before it is left. Nothing may be moved to it any more.
///
/// Pages can be busy for a while (pinned for I/O, just being faulted in, in a list of some CPU), so this tries until
/// all have gone. It gives up only on a device that no longer copies; whoever has pages there gets `SIGBUS` on touching
/// them.
pub(crate) fn empty(vram: &Vram, dev: &Device<Bound>) {
    let mut attempts = 0;
    while pages_in_use(vram) > 0 {
        if vram.memory().engine.channel().is_lost() {
            dev_err!(
                dev,
                "{} pages are lost with the device; waiting for their processes to end\n",
                pages_in_use(vram)
            );
            return;
        }
        attempts += 1;
        let moved = evict(vram, dev, Cause::Unbind);
        if matches!(moved, Ok(0)) && attempts % DRAIN_ATTEMPTS == 1 {
            // Without memory for it there is only longer to wait.
            let _ = drain_cpu_lists();
        }
        match moved {
            Ok(0) | Err(_) if attempts % REPORT_ATTEMPTS == 0 => {
                dev_notice!(dev, "still waiting for {} busy pages to leave\n", pages_in_use(vram));
            }
            _ => {}
        }
        if pages_in_use(vram) > 0 {
            fsleep(Delta::from_millis(PAUSE_MS));
        }
    }
}

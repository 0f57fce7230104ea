// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether all pages of VRAM came back.

use std::time::{Duration, Instant};

use crate::device::Device;
use crate::pattern::PAGE;
use crate::runner::drain_page_lists;

/// How long pages may take to come back: they are freed behind an RCU grace period.
const SETTLING: Duration = Duration::from_secs(4);

/// Pages that are still in use though fewer were before; none if the device is gone.
pub fn missing_pages(device: &Device, free_before: u64) -> u64 {
    let deadline = Instant::now() + SETTLING;
    loop {
        let free = device.try_info().map_or(free_before, |info| info.vram_free);
        if free >= free_before || Instant::now() > deadline {
            return free_before.saturating_sub(free) / PAGE as u64;
        }
        drain_page_lists();
        std::thread::sleep(Duration::from_millis(2));
    }
}

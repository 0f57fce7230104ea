// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How fast the driver answers the device's faults, and where the time goes.
//!
//! A fault is timed as the process sees it: a kernel that reads one word of each piece of memory, once when the device has to fault at it
//! and once when it has not; the difference is what the faults took.

use std::time::Duration;

use ersatz_uapi::{Advice, Advise};

use super::{Figure, SIZES, fits, median, timed};
use crate::compute::Compute;
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::region::{HUGE_PAGE, Region, Span};
use crate::statistics::Statistics;

/// Faults at once, and threads that raise them.
const CHANNELS: [usize; 3] = [1, 2, 4];
/// Pieces of 64 KiB that a thread of the storm faults at: one fault each.
const STORM_PIECES: usize = 64;
/// The largest piece that a fault moves.
const LARGEST: usize = HUGE_PAGE / PAGE;

/// Measures the sizes up to that which a fault moves at most, then storms.
pub fn run(device: &Device, mut tell: impl FnMut(&Figure)) {
    let info = device.info();
    let mut figure = |name: String, value: f64, unit| tell(&Figure { name, value, unit });
    for size in SIZES.iter().filter(|size| size.pages <= LARGEST && fits(size, &info)) {
        let before = Statistics::read();
        let times = (0..size.runs).map(|_| moving_fault(size.pages)).collect();
        let after = Statistics::read();
        figure(format!("svm_{}_device_pagefault_us", size.label), median(times).as_secs_f64() * 1e6, "us");
        let count = after.get("svm_device_pagefault_count") - before.get("svm_device_pagefault_count");
        for step in ["migrate", "bind", "replay"] {
            let name = format!("svm_device_pagefault_{step}_us");
            let mean = (after.get(&name) - before.get(&name)) as f64 / count as f64;
            figure(format!("svm_{}_device_pagefault_{step}_us", size.label), mean, "us");
        }
    }
    let times = (0..51).map(|_| fault_in_place()).collect();
    figure("svm_in_place_device_pagefault_us".into(), median(times).as_secs_f64() * 1e6, "us");
    for channels in CHANNELS {
        let times = (0..5).map(|_| storm(channels)).collect();
        let rate = (channels * STORM_PIECES) as f64 / median(times).as_secs_f64();
        figure(format!("device_pagefaults_{channels}_channels"), rate, "1/s");
    }
}

/// How much longer a kernel takes with faults than a second time.
fn with_faults(compute: &Compute, span: Span) -> Duration {
    let read = || {
        timed(|| {
            compute.try_read(span).expect("reading");
            span.length
        })
    };
    let first = read();
    first.saturating_sub(read())
}

/// The time of one fault that moves a piece to the device.
fn moving_fault(pages: usize) -> Duration {
    let compute = Compute::bind();
    // A piece of 2 MiB that is not aligned would have two faults.
    let region = Region::filled(2 * pages, Pattern::new(1));
    let start = (region.span().address as usize).next_multiple_of(pages * PAGE) as u64;
    let Span { address, length } = Span { address: start, length: (pages * PAGE) as u64 };
    let request = Advise { address, length, advice: Advice::PreferDevice as u32, flags: 0 };
    compute.try_advise(request).expect("advice");
    let time = with_faults(&compute, Span { address, length: 8 });
    assert_eq!(compute.device().on_device(Span { address, length }), pages, "the memory did not move");
    time
}

/// The time of one fault at memory that stays in the system.
fn fault_in_place() -> Duration {
    let (compute, region) = (Compute::bind(), Region::filled(1, Pattern::new(1)));
    with_faults(&compute, Span { length: 8, ..region.span() })
}

/// The time in which threads, each with a channel, have all their faults answered. Memory is mapped where it is.
fn storm(threads: usize) -> Duration {
    let compute = Compute::bind();
    let regions: Vec<Region> = (0..threads).map(|_| Region::filled(STORM_PIECES * 16, Pattern::new(1))).collect();
    timed(|| {
        std::thread::scope(|scope| {
            for region in &regions {
                let compute = &compute;
                scope.spawn(move || compute.try_read(region.span()).expect("reading"));
            }
        });
        threads as u64
    })
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Steps about the device.

use std::thread::sleep;
use std::time::{Duration, Instant};

use ersatz_scenario::call::{Expectation, state_name};
use ersatz_scenario::range::Range;
use ersatz_uapi::{Direction, PageState};

use crate::device::Device;
use crate::scenario::context::{Context, Done, Failure, done, done_with};

/// How long pages may stay busy that are to go, or to be freed.
const SETTLING: Duration = Duration::from_secs(2);

fn device<'a>(context: &'a Context<'_>) -> Result<&'a Device, Failure> {
    context.device.as_ref().ok_or_else(|| String::from("there is no device").into())
}

pub fn migrate(context: &Context<'_>, range: &Range, direction: Direction, all: bool) -> Done {
    let (device, span) = (device(context)?, context.ranges.place(range)?.span());
    let deadline = Instant::now() + SETTLING;
    let mut moved = 0;
    loop {
        let request = device.try_migrate(span, direction)?;
        moved += request.moved;
        if !all || request.left == 0 {
            return done_with(format!("moved {moved}, left {}", request.left));
        }
        if Instant::now() > deadline {
            return Err(format!("{} of {} pages never went", request.left, span.pages()).into());
        }
        sleep(Duration::from_millis(1));
    }
}

pub fn evict(context: &Context<'_>) -> Done {
    let request = device(context)?.evict();
    done_with(format!("moved {}, left {}", request.moved, request.left))
}

pub fn expect(context: &Context<'_>, expectation: &Expectation) -> Done {
    match expectation {
        Expectation::Pages { range, state } => expect_pages(context, range, *state),
        Expectation::DeviceEmpty => expect_empty(context),
    }
}

fn expect_pages(context: &Context<'_>, range: &Range, expected: PageState) -> Done {
    let states = device(context)?.residency(context.ranges.place(range)?.span());
    let others = states.iter().filter(|&&state| state != expected).count();
    match states.iter().position(|&state| state != expected) {
        None => done(),
        Some(index) => Err(format!(
            "page {index} of {} is {}, not {}; {others} pages are not",
            states.len(),
            state_name(states[index]),
            state_name(expected)
        )
        .into()),
    }
}

/// Freed pages are the allocator's again a moment after their last use.
fn expect_empty(context: &Context<'_>) -> Done {
    let deadline = Instant::now() + SETTLING / 4;
    loop {
        let free = device(context)?.try_info()?.vram_free;
        if free >= context.free_before {
            return done();
        }
        if Instant::now() > deadline {
            let pages = (context.free_before - free) / crate::pattern::PAGE as u64;
            return Err(format!("{pages} pages of VRAM are in use that were not before").into());
        }
        sleep(Duration::from_millis(1));
    }
}

// SPDX-License-Identifier: GPL-2.0
//! Pages that come back because a CPU touched them, and those around them.

use super::{
    gpu::Gpu,
    parameters, poison,
    statistics::Stopwatch,
    transfer::{self, Preparation},
};
use crate::{
    kernel_ext::tracepoints,
    zone_device::{
        fault::{CpuFault, FaultEnd},
        folio::LockedFolio,
        migrate::{Isolated, Source},
        pagemap::{BoundMap, DeviceMemory, Kind},
        stand_in,
    },
};
use core::ops::Range;
use kernel::{
    device::Device,
    page::PAGE_SHIFT,
    prelude::*,
    time::{delay::fsleep, Delta},
};

/// How long a CPU waits before it tries again to get at a page that somebody else is moving: the page's holder needs the time more.
const CONTENTION_PAUSE_US: i64 = 50;

impl DeviceMemory for Gpu {
    fn migrate_to_ram(map: BoundMap<'_, Self>, fault: &CpuFault<'_>) -> FaultEnd {
        if map.has_lost(fault) {
            return FaultEnd::Poisoned;
        }
        let mut watch = Stopwatch::start();
        let window = fault.window(parameters::fault_chunk());
        let pages = window.len() >> PAGE_SHIFT;
        let result = bring_back(map, fault, window.clone());
        if let Ok(false) = result {
            fsleep(Delta::from_micros(CONTENTION_PAUSE_US));
            return FaultEnd::Retry;
        }
        let result = result.map(|_| ());
        map.memory().faults.add(&result);
        map.memory().statistics.add_fault(pages, watch.lap());
        map.memory().follow(map, fault.vma(), window);
        let end = FaultEnd::from(result);
        tracepoints::cpu_fault(map.dev(), fault.address(), pages, end.into_raw());
        end
    }

    fn poisoned(map: BoundMap<'_, Self>, index: usize) {
        poison::tell(&map.memory().registers, index);
    }

    fn memory_failure(map: BoundMap<'_, Self>, index: usize) -> Result {
        let result = match map.kind() {
            // The users are told when they touch the page.
            Kind::Private => Ok(()),
            Kind::Coherent => match stand_in::replace(map, core::iter::once(index)) {
                Ok(0) => Err(EBUSY),
                result => result.map(|_| ()),
            },
        };
        dev_err!(
            map.dev(),
            "page {index} of VRAM is poisoned{}\n",
            if result.is_err() { ", and still in use" } else { "" }
        );
        result
    }

    fn freed(dev: &Device, pages: Range<usize>) {
        tracepoints::free(dev, pages.start, pages.len());
    }
}

/// Moves the page of a fault to system memory, with those around it. Returns `false` if it is not there to be moved.
fn bring_back(map: BoundMap<'_, Gpu>, fault: &CpuFault<'_>, window: Range<usize>) -> Result<bool> {
    let touched = (fault.address() - window.start) >> PAGE_SHIFT;
    let mut watch = Stopwatch::start();
    let mut isolated = Isolated::of_fault(map, fault, window.clone())?;
    let collect = watch.lap();
    let mut is_there = false;
    let mut at = 0;
    while let Some(run) = isolated.next_run(at) {
        at = run.end();
        if run.source == Source::Hole {
            continue;
        }
        let is_touched = (run.first..run.end()).contains(&touched);
        let failing = &map.map().memory().failing_allocation;
        let allocate = |order, index: usize| {
            failing.or(|| LockedFolio::new_for_vma(order, &fault.vma(), window.start + (index << PAGE_SHIFT)).ok())
        };
        let is_served = isolated.assign(&run, |order| allocate(order, run.first), |index| allocate(0, index))?;
        if is_touched && !is_served {
            return Err(ENOMEM);
        }
        is_there |= is_touched;
    }
    if !is_there {
        return Ok(false);
    }
    transfer::complete_fault(map, isolated, Preparation { collect, allocate: watch.lap() }, touched)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernels on a device whose fault records, acknowledgements, fences and interrupts are late, lost, doubled or made up: their results are
//! exact all the same, or a clean error says that they have none.

use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ersatz_uapi::FaultAccess;
use nix::errno::Errno;
use nix::sys::mman::{MmapAdvise, ProtFlags};
use serde_json::{Value, json};

use super::{WORDS, check_counting, sum_by_cpu, sum_by_device};
use crate::bus::{Function, load, load_with, unload, wait_for_device};
use crate::compute::{Compute, LaunchError};
use crate::device_rules::DeviceRules;
use crate::region::Region;
use crate::suite::{Need, test_list};

test_list! { "hazards":
    each_alone_leaves_results_exact.needs(NEEDS).patience(2);
    any_two_leave_results_exact.needs(NEEDS).patience(4);
    any_two_report_the_page_that_cannot_be_written.needs(NEEDS).patience(4);
    a_storm_of_faults_passes.needs(NEEDS);
    a_record_that_is_announced_and_does_not_come_ends_one_kernel.needs(NEEDS);
    an_acknowledgement_that_does_not_come_costs_the_device.needs(NEEDS).disruptive();
}

const NEEDS: &[Need] = &[Need::ControlWindow];
/// Pages of a kernel.
const PAGES: usize = 12;

/// What can go wrong, and when.
struct Hazard {
    name: &'static str,
    on: Value,
    action: Value,
}

fn hazard(name: &'static str, kind: &str, every: u64, action: Value) -> Hazard {
    Hazard { name, on: json!({ "event": { "kinds": [kind] }, "occurrence": { "every-nth": every } }), action }
}

/// All of them. The faults that are made up are of the first channel behind those of the copy engines, in address space `asid`.
fn hazards(asid: u32, region: &Region) -> Vec<Hazard> {
    let made_up = |address| {
        let (access, count) = ("write", 6);
        json!({ "kind": "fault", "channel": 2, "asid": asid, "address": address, "access": access, "count": count })
    };
    vec![
        hazard("records-late", "fault-recorded", 3, json!({ "kind": "delay", "ns": 1_000_000 })),
        hazard("records-out-of-order", "fault-recorded", 2, json!({ "kind": "reorder", "ns": 1_000_000 })),
        hazard("records-lost", "fault-recorded", 3, json!({ "kind": "drop" })),
        hazard("records-twice", "fault-recorded", 1, json!({ "kind": "double" })),
        hazard("records-announced", "fault-recorded", 2, json!({ "kind": "announce-early", "ns": 500_000 })),
        hazard("records-one-too-many", "fault-recorded", 4, json!({ "kind": "overflow" })),
        hazard("faults-made-up-here", "command-start", 1, made_up(region.span().address)),
        hazard("faults-made-up-nowhere", "command-start", 1, made_up(0x7000)),
        hazard("acknowledgements-late", "invalidate-requested", 1, json!({ "kind": "delay", "ns": 300_000 })),
        hazard("fences-late", "fence", 1, json!({ "kind": "delay", "ns": 500_000 })),
        hazard("interrupts-late", "interrupt", 1, json!({ "kind": "delay", "ns": 1_000_000 })),
        hazard("interrupts-out-of-order", "interrupt", 2, json!({ "kind": "reorder", "ns": 1_000_000 })),
        hazard("interrupts-lost", "interrupt", 2, json!({ "kind": "drop" })),
        hazard("interrupts-twice", "interrupt", 1, json!({ "kind": "double" })),
        hazard("interrupts-made-up", "command-start", 1, json!({ "kind": "spurious-interrupt", "vector": 3 })),
    ]
}

/// Runs `work` with each of the hazards, or each two of them, and says which they were if it panics.
fn with_each(pairs: bool, work: impl Fn(&Compute, &Region)) {
    let (compute, region) = (Compute::unbound(), Region::new(PAGES));
    let asid = compute.try_bind().expect("ERSATZ_IOC_BIND");
    let all = hazards(asid, &region);
    let mut fired = vec![0; all.len()];
    for first in 0..all.len() {
        let seconds = if pairs { first + 1..all.len() } else { first..first + 1 };
        for second in seconds {
            let rules = DeviceRules::of(compute.device());
            let mut chosen = vec![first, second];
            chosen.dedup();
            for &index in &chosen {
                rules.add(all[index].name, &all[index].on, &all[index].action);
            }
            println!("{}", chosen.iter().map(|&index| all[index].name).collect::<Vec<_>>().join(", "));
            work(&compute, &region);
            for index in chosen {
                fired[index] += rules.fired(all[index].name);
            }
        }
    }
    for (hazard, fired) in all.iter().zip(fired) {
        assert!(fired > 0, "{} never happened", hazard.name);
    }
}

/// Kernels over memory that is not there, that is, that was discarded, and that is read-only for a while.
fn check_kernels(compute: &Compute, region: &Region) {
    region.advise(0..PAGES, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
    compute.write(region.span(), 7);
    check_counting(region, 7);
    region.advise(2..5, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
    compute.atomic_add(region.part(2..5), 3);
    assert!(region.atomics(2 * super::PAGE, 3 * WORDS).iter().all(|word| word.load(Ordering::Relaxed) == 3));
    compute.device().to_device(region.part(4..8));
    assert_eq!(sum_by_device(compute, region), sum_by_cpu(region));
}

fn each_alone_leaves_results_exact() {
    with_each(false, check_kernels);
}

fn any_two_leave_results_exact() {
    with_each(true, check_kernels);
}

fn any_two_report_the_page_that_cannot_be_written() {
    with_each(true, |compute, region| {
        compute.write(region.span(), 2);
        region.protect(3..PAGES, ProtFlags::PROT_READ);
        let refused = Err(LaunchError::Fault(region.page(3).address, FaultAccess::Write));
        assert_eq!(compute.try_write(region.span(), 1), refused);
        region.protect(3..PAGES, crate::region::READ_WRITE);
    });
}

fn a_storm_of_faults_passes() {
    let (compute, region) = (Compute::unbound(), Region::new(PAGES));
    let asid = compute.try_bind().expect("ERSATZ_IOC_BIND");
    let rules = DeviceRules::of(compute.device());
    for (name, channel, address) in [("own", 2, region.span().address), ("other", 3, 0), ("no channel's", 250, 1 << 40)]
    {
        let on = json!({ "event": { "kinds": ["command-start"] } });
        let storm = json!({ "kind": "fault", "channel": channel, "asid": asid, "address": address, "access": "read", "count": 1000 });
        rules.add(name, &on, &storm);
    }
    for round in 0..5 {
        region.advise(0..PAGES, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
        compute.write(region.span(), round);
        check_counting(&region, round);
    }
}

fn a_record_that_is_announced_and_does_not_come_ends_one_kernel() {
    const LATE: Duration = Duration::from_secs(2);
    let (compute, region) = (Compute::bind(), Region::new(PAGES));
    let rules = DeviceRules::of(compute.device());
    let on = json!({ "event": { "kinds": ["fault-recorded"] }, "limit": 1 });
    rules.add("late", &on, &json!({ "kind": "announce-early", "ns": LATE.as_nanos() as u64 }));
    let begun = Instant::now();
    match compute.try_write(region.span(), 1) {
        Err(LaunchError::Other(Errno::ETIMEDOUT | Errno::EIO)) => {}
        other => panic!("{other:x?}"),
    }
    // The device writes to its place in the ring until then.
    while let Err(error) = compute.try_write(region.span(), 2) {
        assert!(begun.elapsed() < 5 * LATE, "{error:x?}");
        sleep(Duration::from_millis(50));
    }
    check_counting(&region, 2);
    assert!(begun.elapsed() >= LATE, "nothing was late");
}

/// The driver, loaded with other parameters until the end.
struct Loaded;

impl Loaded {
    fn with(parameters: &str) -> Self {
        unload().expect("unloading the driver");
        wait_for_device(false);
        load_with(parameters);
        Self
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        unload().expect("unloading the driver");
        wait_for_device(false);
        load();
    }
}

fn an_acknowledgement_that_does_not_come_costs_the_device() {
    let _loaded = Loaded::with("timeout_ms=1000");
    let (compute, region) = (Compute::bind(), Region::new(PAGES));
    let function = Function::of(compute.device());
    compute.write(region.span(), 1);
    let rules = DeviceRules::of(compute.device());
    let on = json!({ "event": { "kinds": ["invalidate-requested"] }, "limit": 1 });
    rules.add("lost", &on, &json!({ "kind": "drop" }));
    // The kernel waits for the driver, and the driver gives up.
    region.advise(0..1, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
    region.check_zero(0..1);
    assert_eq!(rules.fired("lost"), 1);
    assert_eq!(compute.try_read(region.span()), Err(LaunchError::Other(Errno::EIO)));
    drop((rules, compute));
    function.unbind();
    function.bind();
    let compute = Compute::bind();
    compute.write(region.span(), 5);
    check_counting(&region, 5);
}

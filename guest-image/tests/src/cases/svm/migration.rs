// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages on the device, huge ones among them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ersatz_abi::counter::Counter;
use ersatz_uapi::{FaultAccess, PageState};
use nix::sys::mman::ProtFlags;

use super::super::fixture::send;
use super::{WORDS, check_counting, sum_by_cpu, sum_by_device};
use crate::compute::{Compute, LaunchError};
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::region::Region;
use crate::suite::{Need, test_list};

test_list! { "svm":
    pages_on_the_device_are_used_there;
    device_writes_on_the_device_come_back;
    migration_both_ways_while_bound;
    migration_during_kernels.patience(3);
    evicted_memory_is_found;
    huge_pages.needs(&[Need::HugePages]);
    huge_pages_on_the_device.needs(&[Need::HugePages, Need::VramPages(2048)]);
}

fn pages_on_the_device_are_used_there() {
    let (compute, region) = (Compute::bind(), Region::filled(32, Pattern::new(1)));
    let expected = sum_by_cpu(&region);
    send(compute.device(), &region);
    let watch = compute.device().watch();
    assert_eq!(sum_by_device(&compute, &region), expected);
    compute.device().assert_all(region.span(), PageState::Device);
    watch.assert_pages(Counter::BytesToSystem, 0);
    watch.assert_pages(Counter::BytesCpuFault, 0);
    region.check(Pattern::new(1));
}

fn device_writes_on_the_device_come_back() {
    let (compute, region) = (Compute::bind(), Region::filled(32, Pattern::new(1)));
    send(compute.device(), &region);
    compute.write(region.span(), 11);
    compute.device().assert_all(region.span(), PageState::Device);
    compute.device().to_system(region.span());
    check_counting(&region, 11);
    compute.atomic_add(region.span(), 1);
    check_counting(&region, 12);
}

fn migration_both_ways_while_bound() {
    let (compute, region) = (Compute::bind(), Region::new(24));
    compute.write(region.span(), 0);
    for round in 1..6 {
        compute.device().to_device(region.span());
        compute.atomic_add(region.span(), 1);
        compute.device().to_system(region.span());
        compute.atomic_add(region.span(), 1);
        // Touched by the CPU on the device, too.
        compute.device().to_device(region.part(0..12));
        check_counting(&region, 2 * round);
    }
}

fn migration_during_kernels() {
    const ROUNDS: u64 = 4;
    let (compute, region, stop) = (Compute::bind(), Region::new(24), AtomicBool::new(false));
    compute.write(region.span(), 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let device = Device::open();
            while !stop.load(Ordering::Relaxed) {
                device.migrate(region.span(), ersatz_uapi::Direction::ToDevice);
                device.migrate(region.span(), ersatz_uapi::Direction::ToSystem);
                // Kernels get on between two journeys.
                thread::sleep(Duration::from_millis(2));
            }
        });
        for _ in 0..ROUNDS {
            compute.atomic_add(region.span(), 1);
        }
        stop.store(true, Ordering::Relaxed);
    });
    check_counting(&region, ROUNDS);
}

fn evicted_memory_is_found() {
    let (compute, region) = (Compute::bind(), Region::new(32));
    compute.write(region.span(), 1);
    compute.device().to_device(region.span());
    compute.write(region.span(), 2);
    assert_eq!(compute.device().evict().left, 0);
    assert_eq!(sum_by_device(&compute, &region), (0..32 * WORDS as u64).map(|index| 2 + index).sum::<u64>());
    check_counting(&region, 2);
}

fn huge_pages() {
    let (compute, region) = (Compute::bind(), Region::huge(2));
    compute.write(region.span(), 1);
    check_counting(&region, 1);
    region.protect(100..101, ProtFlags::PROT_READ);
    let page = region.page(100);
    assert_eq!(compute.try_write(region.span(), 2), Err(LaunchError::Fault(page.address, FaultAccess::Write)));
    assert_eq!(region.atomic(100 * PAGE).load(Ordering::Relaxed), 1 + 100 * WORDS as u64);
}

fn huge_pages_on_the_device() {
    let (compute, region) = (Compute::bind(), Region::huge(2));
    region.fill(Pattern::new(1));
    let expected = sum_by_cpu(&region);
    compute.device().to_device(region.span());
    // Not from where the folio begins.
    let (part, result) = (region.part(700..1024), Region::new(1));
    compute.sum(part, result.span().address);
    let of_part = region.atomics(700 * PAGE, 324 * WORDS);
    assert_eq!(sum_by_device(&compute, &region), expected);
    compute.device().assert_all(region.span(), PageState::Device);
    let sum = of_part.iter().fold(0, |sum: u64, word| sum.wrapping_add(word.load(Ordering::Relaxed)));
    assert_eq!(result.atomic(0).load(Ordering::Relaxed), sum);
}

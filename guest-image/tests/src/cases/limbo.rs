// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages that nobody maps any more, but that a list of some CPU still holds: they are let go of, never moved.
//!
//! A page that is unmapped while it is locked gets into a list of the CPU that did it, and stays there while that CPU is idle.
//! To migrate it then would walk the reverse map of a process that may be gone.

use ersatz_abi::counter::Counter;
use ersatz_uapi::PageState;

use super::cpu::run_on;
use super::fixture::{assert_works, on_device, send};
use crate::bus::Function;
use crate::device::Device;
use crate::pattern::Pattern;
use crate::process::{Child, Event};
use crate::region::Region;
use crate::suite::test_list;

test_list! { "limbo":
    pages_of_a_dead_process_are_not_evicted;
    pages_unmapped_while_locked_are_not_evicted;
    pages_of_a_dead_process_do_not_keep_others.patience(2);
    pages_of_dead_processes_leave_with_the_driver.disruptive().patience(2);
    pages_of_many_dead_processes.patience(2);
    pages_of_a_dead_process_shared_with_a_live_one;
}

/// Locked pages: fewer than a list of a CPU has room for.
const FEW: usize = 8;

/// A process on the other CPU that locks pages, sends them to the device, and ends.
fn die_with_locked_pages(tag: u64) {
    Child::spawn(|| {
        run_on(1);
        let device = Device::open();
        let region = Region::filled(FEW, Pattern::new(tag));
        region.lock();
        send(&device, &region);
        std::mem::forget(region);
    })
    .succeed();
}

/// Evicts once, and asserts that nothing was copied for it and that nothing stays.
fn assert_nothing_to_evict(device: &Device, free: u64) {
    let watch = device.watch();
    let done = device.evict();
    watch.assert_pages(Counter::BytesEvicted, 0);
    assert_eq!((done.moved, done.left), (0, 0), "pages in nobody's use that EVICT moved, and left");
    device.assert_free(free);
}

fn pages_of_a_dead_process_are_not_evicted() {
    run_on(0);
    let device = Device::open();
    let free = device.free_pages();
    for tag in 0..5 {
        die_with_locked_pages(tag);
        assert_nothing_to_evict(&device, free);
    }
}

fn pages_unmapped_while_locked_are_not_evicted() {
    let device = Device::open();
    let free = device.free_pages();
    for tag in 0..5 {
        run_on(1);
        let region = Region::filled(FEW, Pattern::new(tag));
        region.lock();
        send(&device, &region);
        drop(region);
        run_on(0);
        assert_nothing_to_evict(&device, free);
    }
}

fn pages_of_a_dead_process_do_not_keep_others() {
    run_on(0);
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let free = device.free_pages();
    // Low pages of VRAM in limbo, higher ones in use: eviction comes to the former first.
    die_with_locked_pages(2);
    let region = on_device(&device, 1500, pattern);
    let watch = device.watch();
    let done = device.evict();
    assert_eq!((done.moved, done.left), (1500, 0));
    watch.assert_pages(Counter::BytesEvicted, 1500);
    device.assert_all(region.span(), PageState::System);
    device.assert_free(free);
    region.check(pattern);
}

fn pages_of_dead_processes_leave_with_the_driver() {
    run_on(0);
    let function = Function::of(&Device::open());
    for tag in 0..3 {
        die_with_locked_pages(tag);
        let before = Device::open().count(Counter::BytesUnbind);
        function.unbind();
        let after = function.counter(Counter::BytesUnbind);
        function.bind();
        assert_eq!(after, before, "bytes copied of pages in nobody's use");
    }
    assert_works();
}

fn pages_of_many_dead_processes() {
    run_on(0);
    let device = Device::open();
    let free = device.free_pages();
    let children: Vec<Child> = (0..6)
        .map(|tag| {
            Child::spawn(move || {
                run_on((tag % 2) as usize);
                let region = Region::filled(FEW, Pattern::new(tag));
                region.lock();
                Device::open().to_device(region.span());
            })
        })
        .collect();
    children.into_iter().for_each(Child::succeed);
    assert_nothing_to_evict(&device, free);
}

/// One process of two is gone, with its list: the pages are in use all the same, and go.
fn pages_of_a_dead_process_shared_with_a_live_one() {
    run_on(0);
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, FEW, pattern);
    let locked = Event::new();
    Child::spawn(|| {
        run_on(1);
        // Locking brings private pages back; sent again, they are the device's in both processes.
        region.lock();
        Device::open().to_device(region.span());
        locked.signal();
    })
    .succeed();
    locked.wait();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while device.evict().left != 0 {
        assert!(std::time::Instant::now() < deadline, "pages of a live process never leave");
    }
    assert_eq!(device.on_device(region.span()), 0);
    region.check(pattern);
}

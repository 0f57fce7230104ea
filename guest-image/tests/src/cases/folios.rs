// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Huge pages go to the device whole, and come back whole, whatever brings them.

use ersatz_abi::counter::Counter;
use ersatz_uapi::{Direction, PageState};
use nix::sys::mman::ProtFlags;

use super::fixture::{assert_touched, assert_works, send, state_after_touch};
use super::folio::{HUGE, NEEDS, WHOLE, assert_huge, check, huge, huge_on_device, small};
use crate::bus::Function;
use crate::device::Device;
use crate::pattern::Pattern;
use crate::process::Child;
use crate::region::{READ_WRITE, Region};
use crate::suite::test_list;

test_list! { "folios":
    come_back_whole.needs(WHOLE);
    come_back_whole_by_one_touch.needs(WHOLE);
    come_back_whole_for_the_kernel.needs(WHOLE);
    take_few_list_entries.needs(WHOLE);
    are_evicted_whole.needs(WHOLE);
    leave_whole_with_the_driver.needs(WHOLE).disruptive().patience(2);
    fill_holes_whole.needs(WHOLE);
    holes_of_several_go_in_one_call.needs(NEEDS);
    the_huge_zero_page_is_not_copied.needs(NEEDS);
    go_again_and_again.needs(NEEDS).patience(2);
    written_between_their_journeys.needs(NEEDS);
    read_only_ones_go.needs(NEEDS);
    locked_ones_go.needs(NEEDS);
    half_of_one_goes.needs(NEEDS);
    a_range_that_begins_and_ends_inside_of_one.needs(NEEDS);
    every_second_one_goes.needs(NEEDS);
    of_a_dead_process_are_given_back.needs(NEEDS);
    of_two_processes_go_at_once.needs(NEEDS);
    are_touched_by_many_threads.needs(NEEDS);
}

fn come_back_whole() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge_on_device(&device, 2, pattern);
    let watch = device.watch();
    assert_eq!(device.to_system(region.span()), 2 * HUGE as u64);
    watch.assert_pages(Counter::BytesMigratedToSystem, 2 * HUGE);
    assert_huge(region.span(), 2);
    region.check(pattern);
}

fn come_back_whole_by_one_touch() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge_on_device(&device, 2, pattern);
    let (watch, faults) = (device.watch(), device.info().cpu_faults);
    assert_eq!(region.touch(HUGE + 77), pattern.page(HUGE + 77)[0]);
    watch.assert_pages(Counter::BytesCpuFault, HUGE);
    assert_eq!(device.info().cpu_faults - faults, 1, "CPU faults");
    device.assert_all(region.part(0..HUGE), PageState::Device);
    device.assert_all(region.part(HUGE..2 * HUGE), PageState::System);
    // The kernel counts the one on the device, too.
    assert_huge(region.span(), 2);
    region.check(pattern);
}

/// A system call that reads the memory faults it in by other ways than a CPU.
fn come_back_whole_for_the_kernel() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge_on_device(&device, 1, pattern);
    drop(super::pin::Pin::new(&region, 9..10));
    device.assert_all(region.span(), PageState::System);
    assert_huge(region.span(), 1);
    region.check(pattern);
}

fn take_few_list_entries() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge(2, pattern);
    let watch = device.watch();
    send(&device, &region);
    device.to_system(region.span());
    let entries = watch.count(Counter::CopyEntries);
    assert!(entries <= 8, "{entries} list entries for two huge pages there and back");
    region.check(pattern);
}

fn are_evicted_whole() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge_on_device(&device, 2, pattern);
    let watch = device.watch();
    let done = device.evict();
    assert_eq!((done.moved, done.left), (2 * HUGE as u64, 0));
    watch.assert_pages(Counter::BytesEvicted, 2 * HUGE);
    assert_huge(region.span(), 2);
    region.check(pattern);
}

fn leave_whole_with_the_driver() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let function = Function::of(&device);
    let region = huge_on_device(&device, 2, pattern);
    drop(device);
    function.evacuate(2 * HUGE as u64, || function.unbind());
    // Bound again before anything can fail: the tests after this one need it.
    function.bind();
    assert_huge(region.span(), 2);
    region.check(pattern);
    assert_works();
}

fn fill_holes_whole() {
    let (device, region) = (Device::open(), Region::huge(2));
    let watch = device.watch();
    device.to_device(region.span());
    watch.assert_pages(Counter::BytesFilled, 2 * HUGE);
    watch.assert_pages(Counter::BytesToVram, 0);
    device.to_system(region.span());
    assert_huge(region.span(), 2);
    region.check_zero(0..2 * HUGE);
}

/// A single migration reaches across the borders of page tables, each of which may be missing.
fn holes_of_several_go_in_one_call() {
    let (device, region) = (Device::open(), Region::huge(3));
    let done = device.migrate(region.span(), Direction::ToDevice);
    assert_eq!((done.moved, done.left), (3 * HUGE as u64, 0));
    device.assert_all(region.span(), PageState::Device);
    region.check_zero(0..3 * HUGE);
}

fn the_huge_zero_page_is_not_copied() {
    let (device, region) = (Device::open(), Region::huge(2));
    region.check_zero(0..2 * HUGE); // reading maps the huge zero page
    let watch = device.watch();
    device.to_device(region.span());
    device.assert_all(region.span(), PageState::Device);
    watch.assert_pages(Counter::BytesFilled, 2 * HUGE);
    watch.assert_pages(Counter::BytesToVram, 0);
    region.check_zero(0..2 * HUGE);
    region.fill(Pattern::new(1));
    region.check(Pattern::new(1));
}

/// VRAM has had folios of one order, then of another, then of the first again.
fn go_again_and_again() {
    let device = Device::open();
    let free = device.free_pages();
    for round in 0..4 {
        let (first, second) = (Pattern::new(2 * round), Pattern::new(2 * round + 1));
        let region = huge_on_device(&device, 2, first);
        check(&device, &region, 0..2 * HUGE, first);
        drop(region);
        device.assert_free(free);
        let region = small(2 * HUGE, second);
        send(&device, &region);
        check(&device, &region, 0..2 * HUGE, second);
        drop(region);
        device.assert_free(free);
    }
}

fn written_between_their_journeys() {
    let device = Device::open();
    let region = huge(2, Pattern::new(0));
    for round in 1..5 {
        device.to_device(region.span());
        region.write(round as usize * 100, &Pattern::new(round).page(0));
        device.to_device(region.span());
        device.to_system(region.span());
    }
    for index in 0..2 * HUGE {
        let round = (1..5).find(|round| index == round * 100);
        let expected = round.map_or_else(|| Pattern::new(0).page(index), |round| Pattern::new(round as u64).page(0));
        assert!(region.read(index) == expected, "page {index} does not hold what was written last");
    }
}

fn read_only_ones_go() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge(2, pattern);
    region.protect(0..2 * HUGE, ProtFlags::PROT_READ);
    send(&device, &region);
    let watch = device.watch();
    check(&device, &region, 0..2 * HUGE, pattern);
    assert_touched(&device, &watch, &region, 2 * HUGE);
    region.protect(0..2 * HUGE, READ_WRITE);
    region.fill(Pattern::new(2));
    region.check(Pattern::new(2));
}

fn locked_ones_go() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge(1, pattern);
    region.lock();
    send(&device, &region);
    check(&device, &region, 0..HUGE, pattern);
    device.to_device(region.span());
    device.to_system(region.span());
    region.check(pattern);
}

fn half_of_one_goes() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge(1, pattern);
    device.to_device(region.part(0..HUGE / 2));
    device.assert_all(region.part(0..HUGE / 2), PageState::Device);
    check(&device, &region, 0..HUGE, pattern);
    device.to_device(region.part(HUGE / 2..HUGE));
    device.assert_all(region.part(HUGE / 2..HUGE), PageState::Device);
    check(&device, &region, 0..HUGE, pattern);
}

fn a_range_that_begins_and_ends_inside_of_one() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge(3, pattern);
    let pages = 100..2 * HUGE + 300;
    device.to_device(region.part(pages.clone()));
    device.assert_all(region.part(pages.clone()), PageState::Device);
    check(&device, &region, 0..3 * HUGE, pattern);
    device.to_device(region.part(pages.clone()));
    device.to_system(region.part(pages));
    region.check(pattern);
}

fn every_second_one_goes() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge(4, pattern);
    for count in [0, 2] {
        device.to_device(region.part(count * HUGE..(count + 1) * HUGE));
    }
    assert_eq!(device.on_device(region.span()), 2 * HUGE);
    let watch = device.watch();
    device.to_device(region.span());
    watch.assert_pages(Counter::BytesToVram, 2 * HUGE);
    check(&device, &region, 0..4 * HUGE, pattern);
}

fn of_a_dead_process_are_given_back() {
    let device = Device::open();
    let free = device.free_pages();
    let watch = device.watch();
    Child::spawn(|| {
        let region = huge_on_device(&Device::open(), 3, Pattern::new(1));
        std::mem::forget(region);
    })
    .succeed();
    device.assert_free(free);
    watch.assert_pages(Counter::BytesToSystem, 0);
}

fn of_two_processes_go_at_once() {
    let start = |tag| {
        Child::spawn(move || {
            let (device, pattern) = (Device::open(), Pattern::new(tag));
            let region = huge(2, pattern);
            for _ in 0..5 {
                device.to_device(region.span());
                device.assert_digests(region.span(), 2 * HUGE, |index| pattern.digest(index));
                device.to_system(region.span());
            }
            region.check(pattern);
        })
    };
    [start(1), start(2)].into_iter().for_each(Child::succeed);
}

fn are_touched_by_many_threads() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge(1, pattern);
    for _ in 0..5 {
        device.to_device(region.span());
        let watch = device.watch();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let region = &region;
                scope.spawn(move || {
                    for step in 0..HUGE {
                        let index = (step * 61 + thread * 128) % HUGE;
                        assert_eq!(region.touch(index), pattern.page(index)[0], "page {index}");
                    }
                });
            }
        });
        device.assert_all(region.span(), state_after_touch(&device));
        assert!(watch.pages(Counter::BytesCpuFault) <= 4 * HUGE as u64);
    }
    region.check(pattern);
}

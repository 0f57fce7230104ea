// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A CPU's touch brings back more than its page, but nothing that it must not.
//!
//! How much is the driver's choice, up to a huge page's worth. What the tests hold is that fewer faults than pages are needed, and
//! that all around is as it was.

use std::ops::Range;
use std::sync::Barrier;

use ersatz_abi::counter::Counter;
use ersatz_uapi::PageState;
use nix::sys::mman::{MmapAdvise, ProtFlags};

use super::fixture::send;
use super::folio::{HUGE, check, small};
use super::remap::{lock_part, move_part_to};
use crate::device::Device;
use crate::pattern::Pattern;
use crate::process::Child;
use crate::region::{READ_WRITE, Region};
use crate::suite::{Need, test_list};

const NEEDS: &[Need] = &[Need::Private, Need::HugePages, Need::VramPages(4 * HUGE as u64)];

test_list! { "chunks":
    fewer_faults_than_pages.needs(NEEDS);
    fewer_faults_than_pages_backwards.needs(NEEDS);
    holes_around_stay_holes.needs(NEEDS);
    pages_of_the_system_around_are_not_copied.needs(NEEDS);
    another_mapping_is_left_alone.needs(NEEDS);
    memory_without_access_is_left_alone.needs(NEEDS);
    pages_moved_in_from_elsewhere.needs(NEEDS);
    locked_pages_around.needs(NEEDS);
    shared_pages_around.needs(NEEDS);
    both_ends_at_once.needs(NEEDS);
    writes_at_both_ends_at_once.needs(NEEDS);
    one_page_alone.needs(NEEDS);
}

/// A huge page's worth of small pages from a huge page's boundary on, on the device.
fn start(pattern: Pattern) -> (Device, Region) {
    let (device, region) = (Device::open(), Region::huge(1));
    region.advise(0..HUGE, MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
    region.fill(pattern);
    send(&device, &region);
    (device, region)
}

/// Asserts that touching pages in this order takes less than a fault for eight of them, and copies each once.
fn assert_few_faults(order: impl Iterator<Item = usize>) {
    let pattern = Pattern::new(1);
    let (device, region) = start(pattern);
    let (watch, before) = (device.watch(), device.info().cpu_faults);
    order.for_each(|index| assert_eq!(region.touch(index), pattern.page(index)[0], "page {index}"));
    let faults = device.info().cpu_faults - before;
    assert!(faults <= HUGE as u64 / 8, "{faults} faults for {HUGE} pages");
    watch.assert_pages(Counter::BytesCpuFault, HUGE);
    region.check(pattern);
}

fn fewer_faults_than_pages() {
    assert_few_faults(0..HUGE);
}

fn fewer_faults_than_pages_backwards() {
    assert_few_faults((0..HUGE).rev());
}

/// Asserts that as many pages were copied for faults as have left these places.
fn assert_copied(device: &Device, region: &Region, watch: &crate::device::Watch<'_>, pages: &[Range<usize>]) {
    let left: usize = pages.iter().map(|pages| pages.len() - device.on_device(region.part(pages.clone()))).sum();
    assert!(left >= 1, "no page came back");
    watch.assert_pages(Counter::BytesCpuFault, left);
}

fn holes_around_stay_holes() {
    let pattern = Pattern::new(1);
    let (device, region) = start(pattern);
    region.advise(100..200, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
    let watch = device.watch();
    for index in [99, 200] {
        assert_eq!(region.touch(index), pattern.page(index)[0]);
    }
    device.assert_all(region.part(100..200), PageState::None);
    assert_copied(&device, &region, &watch, &[0..100, 200..HUGE]);
    region.check_zero(100..200);
    check(&device, &region, 0..100, pattern);
    check(&device, &region, 200..HUGE, pattern);
}

fn pages_of_the_system_around_are_not_copied() {
    let pattern = Pattern::new(1);
    let (device, region) = start(pattern);
    device.to_system(region.part(50..300));
    let watch = device.watch();
    for index in [49, 300] {
        assert_eq!(region.touch(index), pattern.page(index)[0]);
    }
    assert_copied(&device, &region, &watch, &[0..50, 300..HUGE]);
    check(&device, &region, 0..HUGE, pattern);
}

fn another_mapping_is_left_alone() {
    let pattern = Pattern::new(1);
    let (device, region) = start(pattern);
    // Other advice makes it another mapping for the kernel.
    region.advise(HUGE / 2..HUGE, MmapAdvise::MADV_DONTDUMP).expect("MADV_DONTDUMP");
    assert_eq!(region.touch(HUGE / 2 - 1), pattern.page(HUGE / 2 - 1)[0]);
    device.assert_all(region.part(HUGE / 2..HUGE), PageState::Device);
    check(&device, &region, 0..HUGE, pattern);
}

fn memory_without_access_is_left_alone() {
    let pattern = Pattern::new(1);
    let (device, region) = start(pattern);
    region.protect(64..128, ProtFlags::PROT_NONE);
    let watch = device.watch();
    for index in [63, 128] {
        assert_eq!(region.touch(index), pattern.page(index)[0]);
    }
    region.protect(64..128, READ_WRITE);
    device.assert_all(region.part(64..128), PageState::Device);
    assert_copied(&device, &region, &watch, &[0..64, 128..HUGE]);
    check(&device, &region, 0..HUGE, pattern);
}

/// Neighbours in the page table need be no neighbours in VRAM, nor of the same process's doing.
fn pages_moved_in_from_elsewhere() {
    let (pattern, other) = (Pattern::new(1), Pattern::new(2));
    let (device, region) = start(pattern);
    let elsewhere = small(32, other);
    send(&device, &elsewhere);
    move_part_to(&elsewhere, 0..32, &region, 100);
    drop(elsewhere);
    assert_eq!(region.touch(99), pattern.page(99)[0]);
    (0..32).for_each(|index| assert!(region.read(100 + index) == other.page(index), "page {index}"));
    check(&device, &region, 0..100, pattern);
    check(&device, &region, 132..HUGE, pattern);
}

fn locked_pages_around() {
    let pattern = Pattern::new(1);
    let (device, region) = start(pattern);
    lock_part(&region, 10..30);
    device.to_device(region.span());
    for index in [9, 30, 20] {
        assert_eq!(region.touch(index), pattern.page(index)[0]);
    }
    check(&device, &region, 0..HUGE, pattern);
}

fn shared_pages_around() {
    let pattern = Pattern::new(1);
    let (device, region) = start(pattern);
    Child::spawn(|| {
        region.write(40, &Pattern::new(2).page(40));
        region.check_part(40..41, Pattern::new(2));
        check(&Device::open(), &region, 41..HUGE, pattern);
        check(&Device::open(), &region, 0..40, pattern);
    })
    .succeed();
    region.write(60, &Pattern::new(3).page(60));
    check(&device, &region, 60..61, Pattern::new(3));
    check(&device, &region, 0..60, pattern);
    check(&device, &region, 61..HUGE, pattern);
}

/// Two threads, each from its end on, until both have seen all pages.
fn from_both_ends(body: impl Fn(&Region, usize, usize) + Sync) -> (Device, Region) {
    let (device, region) = start(Pattern::new(1));
    let begin = Barrier::new(2);
    std::thread::scope(|scope| {
        for end in 0..2 {
            let (region, begin, body) = (&region, &begin, &body);
            scope.spawn(move || {
                begin.wait();
                (0..HUGE).for_each(|step| body(region, end, if end == 0 { step } else { HUGE - 1 - step }));
            });
        }
    });
    (device, region)
}

fn both_ends_at_once() {
    for _ in 0..5 {
        let (device, region) = from_both_ends(|region, _, index| {
            assert_eq!(region.touch(index), Pattern::new(1).page(index)[0], "page {index}");
        });
        device.assert_all(region.span(), PageState::System);
        region.check(Pattern::new(1));
    }
}

fn writes_at_both_ends_at_once() {
    for _ in 0..5 {
        let (device, region) = from_both_ends(|region, end, index| {
            region
                .atomic(index * crate::pattern::PAGE + 8 * end)
                .store(index as u64, std::sync::atomic::Ordering::Relaxed);
        });
        device.to_device(region.span());
        for index in 0..HUGE {
            let mut expected = Pattern::new(1).page(index);
            for end in 0..2 {
                expected[8 * end..8 * end + 8].copy_from_slice(&(index as u64).to_ne_bytes());
            }
            assert!(region.read(index) == expected, "page {index}");
        }
    }
}

fn one_page_alone() {
    let pattern = Pattern::new(1);
    let device = Device::open();
    let region = small(1, pattern);
    send(&device, &region);
    let watch = device.watch();
    region.check(pattern);
    watch.assert_pages(Counter::BytesCpuFault, 1);
}

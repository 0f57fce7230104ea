// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Content survives every way there and back.

use std::sync::atomic::Ordering;

use ersatz_abi::counter::Counter;
use ersatz_uapi::{Direction, PageState};

use super::fixture::{assert_touched, on_device, send, state_after_touch};
use super::setting;
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::region::Region;
use crate::suite::{Need, test_list};

test_list! { "roundtrip":
    one_page_there_and_back;
    many_pages_there_and_back;
    device_reads_what_the_cpu_wrote;
    device_reads_system_memory;
    cpu_reads_bring_back_or_stay;
    cpu_writes_on_the_device_are_kept;
    one_byte_touched_of_many_pages;
    every_second_page_touched;
    twenty_times_with_new_content;
    twice_the_same_way_is_idle;
    to_system_of_system_memory_is_idle;
    a_private_page_comes_back_alone.needs(&[Need::Private]);
    a_private_page_comes_back_with_its_chunk.needs(&[Need::Private]);
    the_device_sees_cpu_writes_in_place.needs(&[Need::Coherent]);
    many_touches_in_place.needs(&[Need::Coherent]);
    sixteen_mebibytes.needs(&[Need::VramPages(4096)]);
}

fn one_page_there_and_back() {
    there_and_back(1);
}

fn many_pages_there_and_back() {
    there_and_back(300);
}

fn sixteen_mebibytes() {
    there_and_back(4096);
}

fn there_and_back(pages: usize) {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, pages, pattern);
    device.assert_digests(region.span(), pages, |index| pattern.digest(index));
    let watch = device.watch();
    assert_eq!(device.to_system(region.span()), pages as u64);
    device.assert_all(region.span(), PageState::System);
    watch.assert_pages(Counter::BytesMigratedToSystem, pages);
    watch.assert_pages(Counter::BytesToSystem, pages);
    region.check(pattern);
    watch.assert_pages(Counter::BytesCpuFault, 0);
}

fn device_reads_what_the_cpu_wrote() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 33, pattern);
    let watch = device.watch();
    device.assert_digests(region.span(), 33, |index| pattern.digest(index));
    watch.assert_pages(Counter::BytesDigested, 33);
    watch.assert_pages(Counter::BytesToSystem, 0);
    device.assert_all(region.span(), PageState::Device);
}

fn device_reads_system_memory() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(20, pattern);
    let watch = device.watch();
    device.assert_digests(region.span(), 0, |index| pattern.digest(index));
    watch.assert_pages(Counter::BytesDigested, 20);
    watch.assert_pages(Counter::BytesToVram, 0);
    device.assert_all(region.span(), PageState::System);
}

fn cpu_reads_bring_back_or_stay() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 64, pattern);
    let faults = device.info().cpu_faults;
    let watch = device.watch();
    region.check(pattern);
    assert_touched(&device, &watch, &region, 64);
    device.assert_all(region.span(), state_after_touch(&device));
    let answered = device.info().cpu_faults - faults;
    assert_eq!(answered == 0, device.is_coherent(), "{answered} CPU faults answered");
}

fn cpu_writes_on_the_device_are_kept() {
    let (device, before, after) = (Device::open(), Pattern::new(1), Pattern::new(2));
    let region = on_device(&device, 48, before);
    let watch = device.watch();
    region.fill(after);
    assert_touched(&device, &watch, &region, 48);
    region.check(after);
    let in_vram = if device.is_coherent() { 48 } else { 0 };
    device.assert_digests(region.span(), in_vram, |index| after.digest(index));
    device.to_system(region.span());
    region.check(after);
}

fn one_byte_touched_of_many_pages() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 32, pattern);
    let watch = device.watch();
    assert_eq!(region.touch(17), pattern.page(17)[0]);
    assert_touched(&device, &watch, &region, 1);
    assert_eq!(device.residency(region.page(17)), [state_after_touch(&device)]);
    device.to_device(region.span());
    device.assert_digests(region.span(), 32, |index| pattern.digest(index));
}

fn every_second_page_touched() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 64, pattern);
    let watch = device.watch();
    for index in (0..64).step_by(2) {
        assert_eq!(region.touch(index), pattern.page(index)[0]);
    }
    assert_touched(&device, &watch, &region, 32);
    region.check(pattern);
}

fn twenty_times_with_new_content() {
    let device = Device::open();
    let region = Region::new(40);
    for round in 0..20 {
        let pattern = Pattern::new(round);
        region.fill(pattern);
        if !device.is_coherent() || round == 0 {
            send(&device, &region);
        }
        device.assert_digests(region.span(), 40, |index| pattern.digest(index));
        region.check(pattern);
    }
}

fn twice_the_same_way_is_idle() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 16, pattern);
    let watch = device.watch();
    let again = device.migrate(region.span(), Direction::ToDevice);
    assert_eq!((again.moved, again.left), (0, 0));
    watch.assert_pages(Counter::BytesToVram, 0);
    watch.assert_pages(Counter::BytesWithinVram, 0);
    device.assert_digests(region.span(), 16, |index| pattern.digest(index));
}

fn to_system_of_system_memory_is_idle() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(16, pattern);
    let watch = device.watch();
    let done = device.migrate(region.span(), Direction::ToSystem);
    assert_eq!((done.moved, done.left), (0, 0));
    watch.assert_pages(Counter::BytesToSystem, 0);
    region.check(pattern);
}

fn a_private_page_comes_back_alone() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let _chunk = setting::fault_chunk(PAGE);
    let region = on_device(&device, 32, pattern);
    let (free, faults) = (device.free_pages(), device.info().cpu_faults);
    let watch = device.watch();
    assert_eq!(region.touch(9), pattern.page(9)[0]);
    watch.assert_pages(Counter::BytesToSystem, 1);
    assert_eq!(device.on_device(region.span()), 31);
    assert_eq!(device.free_pages(), free + 1);
    assert_eq!(device.info().cpu_faults, faults + 1);
}

fn a_private_page_comes_back_with_its_chunk() {
    const CHUNK: usize = 16;
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let _chunk = setting::fault_chunk(CHUNK * PAGE);
    let region = on_device(&device, 4 * CHUNK, pattern);
    // The first page of a chunk inside the region, however that is aligned.
    let first = (0..CHUNK).find(|index| (region.pointer(0).as_ptr().addr() / PAGE + index) % CHUNK == 0).unwrap();
    let watch = device.watch();
    assert_eq!(region.touch(first + 9), pattern.page(first + 9)[0]);
    watch.assert_pages(Counter::BytesToSystem, CHUNK);
    assert_eq!(device.on_device(region.part(first..first + CHUNK)), 0);
    assert_eq!(device.on_device(region.span()), 3 * CHUNK);
    region.check(pattern);
}

fn the_device_sees_cpu_writes_in_place() {
    let (device, before) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 32, before);
    let watch = device.watch();
    for tag in 2..12 {
        let after = Pattern::new(tag);
        region.fill(after);
        device.assert_digests(region.span(), 32, |index| after.digest(index));
    }
    watch.assert_pages(Counter::BytesToVram, 0);
    watch.assert_pages(Counter::BytesToSystem, 0);
    watch.assert_pages(Counter::BytesDigested, 320);
}

/// Our VMM counts the exits of a guest's processors: what the CPU does here must not be among them.
fn many_touches_in_place() {
    const ROUNDS: u64 = 2000;
    let device = Device::open();
    let region = on_device(&device, 64, Pattern::new(1));
    let word = |page: usize| region.atomic(page * PAGE + 8 * page);
    (0..64).for_each(|page| word(page).store(0, Ordering::Relaxed));
    let watch = device.watch();
    for _ in 0..ROUNDS {
        (0..64).for_each(|page| _ = word(page).fetch_add(1, Ordering::Relaxed));
    }
    assert_touched(&device, &watch, &region, 64);
    watch.assert_pages(Counter::BytesToSystem, 0);
    (0..64).for_each(|page| assert_eq!(word(page).load(Ordering::Relaxed), ROUNDS, "additions to page {page}"));
}

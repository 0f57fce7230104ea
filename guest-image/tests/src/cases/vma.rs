// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A process changes its mappings while their pages are on the device.

use ersatz_abi::counter::Counter;
use ersatz_uapi::PageState;
use nix::sys::mman::MmapAdvise;

use super::fixture::{assert_touched, on_device};
use crate::device::Device;
use crate::pattern::Pattern;
use crate::region::Region;
use crate::suite::test_list;

test_list! { "vma":
    unmapping_frees_vram;
    unmapping_a_part_keeps_the_rest;
    unmapping_every_other_page;
    growing_by_remap;
    shrinking_by_remap_frees_vram;
    moving_by_remap_takes_the_pages_along;
    moving_onto_device_pages_frees_those;
    unneeded_pages_read_as_zero;
    free_advice_keeps_or_clears;
    cold_advice_loses_nothing;
    populate_advice_on_the_device;
}

fn unmapping_frees_vram() {
    let device = Device::open();
    let free = device.free_pages();
    let region = on_device(&device, 100, Pattern::new(1));
    let watch = device.watch();
    drop(region);
    device.assert_free(free);
    watch.assert_pages(Counter::BytesToSystem, 0);
}

fn unmapping_a_part_keeps_the_rest() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let free = device.free_pages();
    let region = on_device(&device, 60, pattern);
    region.unmap(20..40);
    device.assert_free(free - 40);
    device.assert_digests(region.part(0..20), 20, |index| pattern.digest(index));
    device.assert_digests(region.part(40..60), 20, |index| pattern.digest(40 + index));
    region.check_part(0..20, pattern);
    region.check_part(40..60, pattern);
}

fn unmapping_every_other_page() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let free = device.free_pages();
    let region = on_device(&device, 40, pattern);
    for index in (0..40).step_by(2) {
        region.unmap(index..index + 1);
    }
    device.assert_free(free - 20);
    for index in (1..40).step_by(2) {
        region.check_part(index..index + 1, pattern);
    }
}

fn growing_by_remap() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 16, pattern);
    let watch = device.watch();
    let region = region.resize(2048);
    device.assert_digests(region.part(0..16), 16, |index| pattern.digest(index));
    watch.assert_pages(Counter::BytesToSystem, 0);
    region.check_zero(16..32);
    region.check_part(0..16, pattern);
    let left = 16 - device.on_device(region.part(0..16));
    watch.assert_pages(Counter::BytesCpuFault, left);
}

fn shrinking_by_remap_frees_vram() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let free = device.free_pages();
    let region = on_device(&device, 50, pattern).resize(10);
    device.assert_free(free - 10);
    device.assert_digests(region.span(), 10, |index| pattern.digest(index));
    region.check(pattern);
}

fn moving_by_remap_takes_the_pages_along() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 32, pattern);
    let watch = device.watch();
    let moved = region.move_onto(Region::new(32));
    device.assert_all(moved.span(), PageState::Device);
    device.assert_digests(moved.span(), 32, |index| pattern.digest(index));
    watch.assert_pages(Counter::BytesToSystem, 0);
    moved.check_part(0..8, pattern);
    assert_touched(&device, &watch, &moved, 8);
    device.to_system(moved.span());
    moved.check(pattern);
}

fn moving_onto_device_pages_frees_those() {
    let (device, kept, replaced) = (Device::open(), Pattern::new(1), Pattern::new(2));
    let free = device.free_pages();
    let target = on_device(&device, 24, replaced);
    let region = on_device(&device, 24, kept).move_onto(target);
    device.assert_free(free - 24);
    device.assert_digests(region.span(), 24, |index| kept.digest(index));
    region.check(kept);
}

fn unneeded_pages_read_as_zero() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let free = device.free_pages();
    let region = on_device(&device, 30, pattern);
    let watch = device.watch();
    region.advise(10..20, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
    device.assert_free(free - 20);
    device.assert_all(region.part(10..20), PageState::None);
    watch.assert_pages(Counter::BytesToSystem, 0);
    region.check_zero(10..20);
    region.check_part(0..10, pattern);
    region.check_part(20..30, pattern);
}

fn free_advice_keeps_or_clears() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 16, pattern);
    region.advise(0..16, MmapAdvise::MADV_FREE).expect("MADV_FREE");
    for index in 0..16 {
        let page = region.read(index);
        assert!(page == pattern.page(index) || page == [0; 4096], "page {index} is neither kept nor cleared");
    }
    // Written after the advice, content is to be kept.
    region.fill(pattern);
    device.to_device(region.span());
    device.assert_digests(region.span(), 16, |index| pattern.digest(index));
    region.check(pattern);
}

fn cold_advice_loses_nothing() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 32, pattern);
    for advice in [MmapAdvise::MADV_COLD, MmapAdvise::MADV_PAGEOUT, MmapAdvise::MADV_WILLNEED] {
        region.advise(0..32, advice).unwrap_or_else(|error| panic!("{advice:?}: {error}"));
        let in_vram = device.on_device(region.span());
        device.assert_digests(region.span(), in_vram, |index| pattern.digest(index));
    }
    region.check(pattern);
}

fn populate_advice_on_the_device() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 16, pattern);
    let watch = device.watch();
    region.advise(0..16, MmapAdvise::MADV_POPULATE_WRITE).expect("MADV_POPULATE_WRITE");
    assert_touched(&device, &watch, &region, 16);
    region.check(pattern);
}

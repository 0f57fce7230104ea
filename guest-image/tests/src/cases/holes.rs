// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that was never written: holes and the zero page.

use ersatz_abi::counter::Counter;
use ersatz_uapi::{Direction, PageState};

use super::fixture::assert_touched;
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::region::Region;
use crate::suite::test_list;

test_list! { "holes":
    never_touched_memory_is_zero_on_the_device;
    the_zero_page_is_not_copied;
    between_written_pages;
    written_on_the_device;
    looking_fills_no_hole;
    to_system_leaves_holes;
    unmapped_memory_is_left;
    stale_vram_never_shows;
}

fn zero_digest() -> u64 {
    u64::from(crc32c::crc32c(&[0; PAGE]))
}

fn never_touched_memory_is_zero_on_the_device() {
    let device = Device::open();
    let region = Region::new(32);
    let watch = device.watch();
    device.to_device(region.span());
    device.assert_all(region.span(), PageState::Device);
    watch.assert_pages(Counter::BytesFilled, 32);
    watch.assert_pages(Counter::BytesToVram, 0);
    device.assert_digests(region.span(), 32, |_| zero_digest());
    let watch = device.watch();
    region.check_zero(0..32);
    assert_touched(&device, &watch, &region, 32);
}

fn the_zero_page_is_not_copied() {
    let device = Device::open();
    let region = Region::new(32);
    region.check_zero(0..32); // reading maps the zero page everywhere
    let watch = device.watch();
    device.to_device(region.span());
    device.assert_all(region.span(), PageState::Device);
    watch.assert_pages(Counter::BytesFilled, 32);
    watch.assert_pages(Counter::BytesToVram, 0);
    device.assert_digests(region.span(), 32, |_| zero_digest());
    region.check_zero(0..32);
}

fn between_written_pages() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::new(60);
    let written = |index: usize| index % 3 == 0;
    for index in (0..60).filter(|&index| written(index)) {
        region.write(index, &pattern.page(index));
    }
    region.touch(1);
    let watch = device.watch();
    device.to_device(region.span());
    watch.assert_pages(Counter::BytesToVram, 20);
    watch.assert_pages(Counter::BytesFilled, 40);
    device.assert_digests(
        region.span(),
        60,
        |index| {
            if written(index) { pattern.digest(index) } else { zero_digest() }
        },
    );
    for index in 0..60 {
        if written(index) {
            region.check_part(index..index + 1, pattern);
        } else {
            region.check_zero(index..index + 1);
        }
    }
}

fn written_on_the_device() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::new(16);
    let watch = device.watch();
    device.to_device(region.span());
    watch.assert_pages(Counter::BytesFilled, 16);
    region.fill(pattern);
    assert_touched(&device, &watch, &region, 16);
    device.to_device(region.span());
    device.assert_digests(region.span(), 16, |index| pattern.digest(index));
    region.check(pattern);
}

fn looking_fills_no_hole() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::new(9);
    region.write(4, &pattern.page(4));
    let watch = device.watch();
    for _ in 0..2 {
        let states = device.residency(region.span());
        for (index, state) in states.into_iter().enumerate() {
            assert_eq!(state, if index == 4 { PageState::System } else { PageState::None }, "page {index}");
        }
    }
    assert_eq!(watch.count(Counter::Commands), 0);
}

fn to_system_leaves_holes() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::new(12);
    for index in 0..4 {
        region.write(index, &pattern.page(index));
    }
    device.to_device(region.part(0..4));
    let watch = device.watch();
    let done = device.migrate(region.span(), Direction::ToSystem);
    assert_eq!((done.moved, done.left), (4, 8));
    watch.assert_pages(Counter::BytesMigratedToSystem, 4);
    device.assert_all(region.part(0..4), PageState::System);
    device.assert_all(region.part(4..12), PageState::None);
    region.check_part(0..4, pattern);
}

fn unmapped_memory_is_left() {
    let device = Device::open();
    let region = Region::new(10);
    region.unmap(0..10);
    let watch = device.watch();
    for direction in [Direction::ToDevice, Direction::ToSystem] {
        let done = device.migrate(region.span(), direction);
        assert_eq!((done.moved, done.left), (0, 10), "{direction:?}");
    }
    device.assert_all(region.span(), PageState::None);
    assert_eq!(watch.count(Counter::Commands), 0);
}

/// VRAM that another process's secrets were in is cleared before it stands for a hole.
fn stale_vram_never_shows() {
    let device = Device::open();
    for round in 0..4 {
        drop(super::fixture::on_device(&device, 128, Pattern::new(round)));
        let region = Region::new(128);
        let watch = device.watch();
        device.to_device(region.span());
        watch.assert_pages(Counter::BytesFilled, 128);
        device.assert_digests(region.span(), 128, |_| zero_digest());
        region.check_zero(0..128);
    }
}

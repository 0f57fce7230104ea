// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Parts of a region migrate, the rest stays.

use ersatz_abi::counter::Counter;
use ersatz_uapi::{Direction, PageState};
use nix::sys::mman::ProtFlags;

use super::fixture::on_device;
use crate::device::Device;
use crate::pattern::Pattern;
use crate::region::Region;
use crate::suite::test_list;

test_list! { "parts":
    the_middle;
    first_and_last_page;
    every_other_page_by_itself;
    ranges_that_overlap;
    back_in_pieces;
    across_mappings;
    across_a_gap;
    a_page_at_a_time;
    mixed_places_end_in_one;
}

/// Which of the region's pages are on the device.
fn on_device_set(device: &Device, region: &Region) -> Vec<usize> {
    let states = device.residency(region.span());
    (0..states.len()).filter(|&index| states[index] == PageState::Device).collect()
}

fn the_middle() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(64, pattern);
    let watch = device.watch();
    assert_eq!(device.to_device(region.part(20..30)), 10);
    watch.assert_pages(Counter::BytesMigratedToDevice, 10);
    assert_eq!(on_device_set(&device, &region), Vec::from_iter(20..30));
    device.assert_digests(region.span(), 10, |index| pattern.digest(index));
    region.check(pattern);
}

fn first_and_last_page() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(50, pattern);
    let watch = device.watch();
    device.to_device(region.page(0));
    device.to_device(region.page(49));
    watch.assert_pages(Counter::BytesMigratedToDevice, 2);
    assert_eq!(on_device_set(&device, &region), [0, 49]);
    region.check(pattern);
}

fn every_other_page_by_itself() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(40, pattern);
    let watch = device.watch();
    for index in (1..40).step_by(2) {
        assert_eq!(device.to_device(region.page(index)), 1);
    }
    watch.assert_pages(Counter::BytesMigratedToDevice, 20);
    assert_eq!(on_device_set(&device, &region), Vec::from_iter((1..40).step_by(2)));
    device.assert_digests(region.span(), 20, |index| pattern.digest(index));
    region.check(pattern);
}

fn ranges_that_overlap() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(60, pattern);
    let watch = device.watch();
    assert_eq!(device.to_device(region.part(0..40)), 40);
    assert_eq!(device.to_device(region.part(20..60)), 20);
    watch.assert_pages(Counter::BytesMigratedToDevice, 60);
    device.assert_digests(region.span(), 60, |index| pattern.digest(index));
    region.check(pattern);
}

fn back_in_pieces() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 48, pattern);
    let watch = device.watch();
    for start in [32, 0, 16] {
        assert_eq!(device.to_system(region.part(start..start + 16)), 16);
    }
    watch.assert_pages(Counter::BytesMigratedToSystem, 48);
    device.assert_all(region.span(), PageState::System);
    region.check(pattern);
}

fn across_mappings() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(60, pattern);
    // Other protections make mappings of their own.
    region.protect(20..40, ProtFlags::PROT_READ);
    let watch = device.watch();
    assert_eq!(device.to_device(region.span()), 60);
    watch.assert_pages(Counter::BytesMigratedToDevice, 60);
    device.assert_digests(region.span(), 60, |index| pattern.digest(index));
    assert_eq!(device.to_system(region.span()), 60);
    watch.assert_pages(Counter::BytesMigratedToSystem, 60);
    region.check(pattern);
}

fn across_a_gap() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(60, pattern);
    region.unmap(25..35);
    let watch = device.watch();
    let done = device.migrate(region.span(), Direction::ToDevice);
    assert_eq!((done.moved, done.left), (50, 10));
    watch.assert_pages(Counter::BytesMigratedToDevice, 50);
    assert_eq!(on_device_set(&device, &region), Vec::from_iter((0..25).chain(35..60)));
    assert!(device.residency(region.part(25..35)).iter().all(|&state| state == PageState::None));
    region.check_part(0..25, pattern);
    region.check_part(35..60, pattern);
}

fn a_page_at_a_time() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(30, pattern);
    let watch = device.watch();
    for index in 0..30 {
        device.to_device(region.page(index));
    }
    watch.assert_pages(Counter::BytesMigratedToDevice, 30);
    for index in (0..30).rev() {
        device.to_system(region.page(index));
    }
    watch.assert_pages(Counter::BytesMigratedToSystem, 30);
    region.check(pattern);
}

fn mixed_places_end_in_one() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(45, pattern);
    for index in (0..45).step_by(3) {
        device.to_device(region.page(index));
    }
    let watch = device.watch();
    assert_eq!(device.to_device(region.span()), 30);
    watch.assert_pages(Counter::BytesMigratedToDevice, 30);
    device.assert_digests(region.span(), 45, |index| pattern.digest(index));
    assert_eq!(device.to_system(region.part(10..20)), 10);
    assert_eq!(device.to_system(region.span()), 35);
    region.check(pattern);
}

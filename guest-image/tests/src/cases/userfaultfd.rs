// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory whose faults user space answers: protection is not lost on the device, and holes are nobody's to fill.

use std::thread;
use std::time::Duration;

use ersatz_uapi::{Direction, PageState};
use nix::sys::mman::MmapAdvise;

use super::page_map::entries;
use super::userfault::{Fault, MISSING, PROTECT_UNPOPULATED, REPORT_WRITE_PROTECT, Userfault, WRITE_PROTECT};
use crate::device::Device;
use crate::pattern::Pattern;
use crate::region::{Region, Span};
use crate::suite::{Need, test_list};

test_list! { "userfaultfd":
    protection_of_the_zero_page_stays;
    protection_of_the_huge_zero_page_stays.needs(&[Need::HugePages]);
    protection_of_written_pages_stays;
    protection_of_huge_pages_stays.needs(&[Need::HugePages, Need::VramPages(1024)]);
    protection_of_holes_stays;
    holes_that_somebody_fills_stay;
    holes_beside_protected_pages_stay;
    protection_on_the_device_is_lifted_there;
}

/// How long a write may take to be reported.
const PATIENCE: Duration = Duration::from_secs(10);

fn small_pages(pages: usize) -> Region {
    let region = Region::new(pages);
    region.advise(0..pages, MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
    region
}

/// Protects a region from writes, which are then reported.
fn protected(region: &Region, features: u64) -> Userfault {
    let userfault = Userfault::open(REPORT_WRITE_PROTECT | features);
    userfault.register(region.span(), WRITE_PROTECT);
    userfault.protect(region.span());
    assert_protected(region.span());
    userfault
}

fn assert_protected(span: Span) {
    let lost: Vec<usize> =
        entries(span).iter().enumerate().filter(|(_, entry)| !entry.is_protected()).map(|(index, _)| index).collect();
    assert!(lost.is_empty(), "pages that are no longer protected: {lost:?}");
}

/// Moves memory there and back, as far as it goes.
fn round_trip(device: &Device, span: Span) {
    device.migrate(span, Direction::ToDevice);
    assert_protected(span);
    device.migrate(span, Direction::ToSystem);
    assert_protected(span);
}

/// Asserts that a write to each of these pages waits until the protection is lifted.
fn assert_writes_are_reported(userfault: &Userfault, region: &Region, pages: impl Iterator<Item = usize>) {
    for index in pages {
        let page = region.page(index);
        thread::scope(|scope| {
            scope.spawn(|| region.write(index, &Pattern::new(3).page(index)));
            let fault = userfault.next(PATIENCE);
            // Before the assertion: the scope ends only when the write has.
            userfault.unprotect(page);
            assert_eq!(fault, Some(Fault { address: page.address, protected: true }), "write to page {index}");
        });
        region.check_part(index..index + 1, Pattern::new(3));
    }
}

fn protection_of_the_zero_page_stays() {
    let (device, pattern, region) = (Device::open(), Pattern::new(1), small_pages(4));
    (0..2).for_each(|index| region.write(index, &pattern.page(index)));
    region.check_zero(2..4); // reading maps the zero page
    let userfault = protected(&region, 0);
    round_trip(&device, region.span());
    region.check_part(0..2, pattern);
    region.check_zero(2..4);
    assert_writes_are_reported(&userfault, &region, 0..4);
}

fn protection_of_the_huge_zero_page_stays() {
    let (device, region) = (Device::open(), Region::huge(1));
    region.touch(0); // maps the huge zero page, or zero pages one by one
    let last = region.pages() - 1;
    region.check_zero(last..last + 1);
    let userfault = protected(&region, 0);
    round_trip(&device, region.part(0..1));
    round_trip(&device, region.span());
    assert_writes_are_reported(&userfault, &region, [0, 100, last].into_iter());
    region.check_zero(1..2);
}

fn protection_of_written_pages_stays() {
    let (device, pattern, region) = (Device::open(), Pattern::new(1), small_pages(16));
    region.fill(pattern);
    let userfault = protected(&region, 0);
    round_trip(&device, region.span());
    region.check(pattern);
    assert_writes_are_reported(&userfault, &region, 0..16);
}

fn protection_of_huge_pages_stays() {
    let (device, pattern, region) = (Device::open(), Pattern::new(1), Region::huge(1));
    region.fill(pattern);
    let userfault = protected(&region, 0);
    round_trip(&device, region.span());
    device.migrate(region.span(), Direction::ToDevice);
    region.check(pattern);
    assert_protected(region.span());
    assert_writes_are_reported(&userfault, &region, [0, 255, 511].into_iter());
    region.check_part(1..255, pattern);
}

fn protection_of_holes_stays() {
    let (device, region) = (Device::open(), small_pages(8));
    let userfault = protected(&region, PROTECT_UNPOPULATED);
    round_trip(&device, region.span());
    assert_eq!(device.on_device(region.span()), 0, "protected holes that the device has filled");
    assert_writes_are_reported(&userfault, &region, 0..8);
}

fn holes_that_somebody_fills_stay() {
    let (device, pattern, region) = (Device::open(), Pattern::new(1), small_pages(12));
    (0..4).for_each(|index| region.write(index, &pattern.page(index)));
    let userfault = Userfault::open(0);
    userfault.register(region.span(), MISSING);
    device.migrate(region.span(), Direction::ToDevice);
    device.assert_all(region.part(0..4), PageState::Device);
    device.assert_all(region.part(4..12), PageState::None);
    userfault.fill(region.part(4..8), &Region::filled(4, Pattern::new(2)));
    device.to_device(region.part(0..8));
    device.assert_all(region.part(8..12), PageState::None);
    region.check_part(0..4, pattern);
    (4..8).for_each(|index| assert!(region.read(index) == Pattern::new(2).page(index - 4), "page {index}"));
}

/// A hole has no protection of its own; the driver cannot know whether it is to have one once it is filled.
fn holes_beside_protected_pages_stay() {
    let (device, pattern, region) = (Device::open(), Pattern::new(1), small_pages(12));
    (0..6).for_each(|index| region.write(index, &pattern.page(index)));
    let userfault = Userfault::open(REPORT_WRITE_PROTECT);
    userfault.register(region.span(), WRITE_PROTECT);
    userfault.protect(region.part(0..6));
    device.migrate(region.span(), Direction::ToDevice);
    assert_protected(region.part(0..6));
    device.assert_all(region.part(6..12), PageState::None);
    assert_writes_are_reported(&userfault, &region, 0..6);
    region.check_zero(6..12);
}

fn protection_on_the_device_is_lifted_there() {
    let (device, pattern, region) = (Device::open(), Pattern::new(1), small_pages(16));
    region.fill(pattern);
    let userfault = Userfault::open(REPORT_WRITE_PROTECT);
    userfault.register(region.span(), WRITE_PROTECT);
    device.to_device(region.span());
    userfault.protect(region.span());
    assert_protected(region.span());
    userfault.unprotect(region.part(8..16));
    (8..16).for_each(|index| region.write(index, &Pattern::new(2).page(index)));
    region.check_part(0..8, pattern);
    region.check_part(8..16, Pattern::new(2));
    assert_protected(region.part(0..8));
    assert_writes_are_reported(&userfault, &region, 0..8);
}

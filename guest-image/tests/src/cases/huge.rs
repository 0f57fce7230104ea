// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory in transparent huge pages goes to the device and comes back, whole and in parts.

use ersatz_abi::counter::Counter;
use ersatz_uapi::PageState;
use nix::sys::mman::ProtFlags;

use super::fixture::{assert_touched, send};
use crate::device::Device;
use crate::pattern::Pattern;
use crate::proc_fs::smaps_kib;
use crate::process::Child;
use crate::region::{HUGE_PAGE, READ_WRITE, Region};
use crate::suite::{Need, test_list};

const NEEDS: &[Need] = &[Need::HugePages, Need::VramPages(2048)];
/// Pages in a huge page.
const MANY: usize = HUGE_PAGE / crate::pattern::PAGE;

test_list! { "huge":
    there_and_back.needs(NEEDS);
    one_page_of_many.needs(NEEDS);
    touched_on_the_device.needs(NEEDS);
    never_touched_is_zero.needs(NEEDS);
    partly_unmapped_on_the_device.needs(NEEDS);
    partly_protected_on_the_device.needs(NEEDS);
    forked_on_the_device.needs(NEEDS);
}

/// Memory in huge pages with content.
fn filled(count: usize, pattern: Pattern) -> Region {
    let region = Region::huge(count);
    region.fill(pattern);
    let huge = smaps_kib(region.span(), "AnonHugePages");
    assert_eq!(huge, (count * HUGE_PAGE / 1024) as u64, "kB in huge pages");
    region
}

fn there_and_back() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = filled(2, pattern);
    send(&device, &region);
    device.assert_digests(region.span(), 2 * MANY, |index| pattern.digest(index));
    let watch = device.watch();
    assert_eq!(device.to_system(region.span()), 2 * MANY as u64);
    watch.assert_pages(Counter::BytesMigratedToSystem, 2 * MANY);
    region.check(pattern);
}

fn one_page_of_many() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = filled(1, pattern);
    let watch = device.watch();
    device.to_device(region.page(100));
    let moved = device.on_device(region.span());
    assert!(moved >= 1);
    watch.assert_pages(Counter::BytesMigratedToDevice, moved);
    device.assert_digests(region.span(), moved, |index| pattern.digest(index));
    region.check(pattern);
}

fn touched_on_the_device() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = filled(1, pattern);
    send(&device, &region);
    let watch = device.watch();
    for index in [0, 7, MANY - 1] {
        assert_eq!(region.touch(index), pattern.page(index)[0]);
    }
    assert_touched(&device, &watch, &region, 3);
    region.check(pattern);
}

fn never_touched_is_zero() {
    let device = Device::open();
    let region = Region::huge(1);
    let watch = device.watch();
    device.to_device(region.span());
    device.assert_all(region.span(), PageState::Device);
    watch.assert_pages(Counter::BytesFilled, MANY);
    region.check_zero(0..MANY);
}

fn partly_unmapped_on_the_device() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = filled(2, pattern);
    send(&device, &region);
    region.unmap(MANY / 2..MANY + 3);
    device.assert_digests(region.part(0..MANY / 2), MANY / 2, |index| pattern.digest(index));
    region.check_part(0..MANY / 2, pattern);
    region.check_part(MANY + 3..2 * MANY, pattern);
}

fn partly_protected_on_the_device() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = filled(1, pattern);
    send(&device, &region);
    region.protect(5..9, ProtFlags::PROT_READ);
    device.assert_digests(region.span(), MANY, |index| pattern.digest(index));
    device.to_system(region.span());
    region.check(pattern);
    region.protect(5..9, READ_WRITE);
    region.fill(Pattern::new(2));
    region.check(Pattern::new(2));
}

fn forked_on_the_device() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = filled(1, pattern);
    send(&device, &region);
    let watch = device.watch();
    Child::spawn(|| {
        region.check(pattern);
        region.fill(Pattern::new(2));
        region.check(Pattern::new(2));
    })
    .succeed();
    region.check(pattern);
    let faulted = watch.pages(Counter::BytesCpuFault);
    assert_eq!(faulted > 0, !device.is_coherent(), "{faulted} pages came back by CPU faults");
}

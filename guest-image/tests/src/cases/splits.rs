// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Something is done to part of a huge page that is on the device: the part is what it was done to, the rest stays good.

use ersatz_abi::counter::Counter;
use ersatz_uapi::{Direction, PageState};
use nix::sys::mman::{MmapAdvise, ProtFlags};

use super::fixture::state_after_touch;
use super::folio::{HUGE, NEEDS, WHOLE, assert_huge, check, huge_on_device};
use crate::device::Device;
use crate::pattern::Pattern;
use crate::process::{Child, Event};
use crate::region::{READ_WRITE, Region};
use crate::suite::{Need, test_list};

test_list! { "splits":
    head_unmapped.needs(NEEDS);
    tail_unmapped.needs(NEEDS);
    middle_unmapped.needs(NEEDS);
    all_but_one_page_unmapped.needs(NEEDS);
    unmapped_across_a_border.needs(NEEDS);
    half_emptied.needs(NEEDS);
    middle_emptied.needs(NEEDS);
    wholly_emptied.needs(NEEDS);
    half_read_only.needs(NEEDS);
    middle_without_access.needs(NEEDS);
    half_moved_elsewhere.needs(NEEDS);
    moved_whole.needs(WHOLE);
    moved_off_its_boundary.needs(NEEDS);
    half_locked.needs(NEEDS);
    no_longer_to_be_huge.needs(NEEDS);
    half_brought_back.needs(NEEDS);
    one_page_brought_back.needs(NEEDS);
    one_page_touched.needs(NEEDS);
    forked_and_read.needs(NEEDS);
    forked_and_written_by_the_child.needs(NEEDS);
    forked_and_written_by_the_parent.needs(NEEDS);
    forked_and_half_unmapped.needs(NEEDS);
    forked_and_sent_again.needs(FORKED_NEEDS);
    evicted_in_parts.needs(NEEDS);
    free_room_is_used_again.needs(NEEDS);
}

/// What [`NEEDS`] has, and a kernel that does not stop over a folio that is shared.
const FORKED_NEEDS: &[Need] = &[Need::HugePages, Need::VramPages(6 * HUGE as u64), Need::NoDebugVm];

const HALF: usize = HUGE / 2;

/// One huge page on the device.
fn start() -> (Device, Pattern, Region) {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge_on_device(&device, 1, pattern);
    (device, pattern, region)
}

fn head_unmapped() {
    let (device, pattern, region) = start();
    region.unmap(0..HALF);
    check(&device, &region, HALF..HUGE, pattern);
}

fn tail_unmapped() {
    let (device, pattern, region) = start();
    region.unmap(HALF..HUGE);
    check(&device, &region, 0..HALF, pattern);
}

fn middle_unmapped() {
    let (device, pattern, region) = start();
    region.unmap(100..400);
    check(&device, &region, 400..HUGE, pattern);
    check(&device, &region, 0..100, pattern);
}

fn all_but_one_page_unmapped() {
    let (device, pattern, region) = start();
    let free = device.free_pages();
    region.unmap(0..300);
    region.unmap(301..HUGE);
    check(&device, &region, 300..301, pattern);
    device.to_device(region.page(300));
    device.assert_free(free + HUGE as u64 - 1);
    device.to_system(region.page(300));
    device.assert_free(free + HUGE as u64);
    region.check_part(300..301, pattern);
}

fn unmapped_across_a_border() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge_on_device(&device, 2, pattern);
    region.unmap(HUGE - 1..HUGE + 1);
    check(&device, &region, 0..HUGE - 1, pattern);
    check(&device, &region, HUGE + 1..2 * HUGE, pattern);
}

fn empty(region: &Region, pages: std::ops::Range<usize>) {
    region.advise(pages, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
}

fn half_emptied() {
    let (device, pattern, region) = start();
    empty(&region, 0..HALF);
    region.check_zero(0..HALF);
    check(&device, &region, HALF..HUGE, pattern);
}

fn middle_emptied() {
    let (device, pattern, region) = start();
    empty(&region, 37..203);
    check(&device, &region, 0..37, pattern);
    check(&device, &region, 203..HUGE, pattern);
    region.check_zero(37..203);
    device.to_device(region.span());
    region.check_zero(37..203);
}

fn wholly_emptied() {
    let (device, _, region) = start();
    let free = device.free_pages();
    let watch = device.watch();
    empty(&region, 0..HUGE);
    device.assert_free(free + HUGE as u64);
    watch.assert_pages(Counter::BytesToSystem, 0);
    region.check_zero(0..HUGE);
}

fn half_read_only() {
    let (device, pattern, region) = start();
    region.protect(0..HALF, ProtFlags::PROT_READ);
    (HALF..HUGE).for_each(|index| region.write(index, &Pattern::new(2).page(index)));
    check(&device, &region, 0..HALF, pattern);
    check(&device, &region, HALF..HUGE, Pattern::new(2));
    region.protect(0..HALF, READ_WRITE);
    region.fill(Pattern::new(3));
    device.to_device(region.span());
    check(&device, &region, 0..HUGE, Pattern::new(3));
}

fn middle_without_access() {
    let (device, pattern, region) = start();
    region.protect(128..256, ProtFlags::PROT_NONE);
    check(&device, &region, 0..128, pattern);
    // What has no access is not looked at, so it does not count as moved.
    device.migrate(region.span(), Direction::ToDevice);
    device.migrate(region.span(), Direction::ToSystem);
    region.protect(128..256, READ_WRITE);
    check(&device, &region, 0..HUGE, pattern);
}

fn half_moved_elsewhere() {
    let (device, pattern, region) = start();
    let elsewhere = super::remap::move_part(&region, HALF..HUGE, Region::new(HALF));
    check(&device, &region, 0..HALF, pattern);
    for index in 0..HALF {
        assert!(elsewhere.read(index) == pattern.page(HALF + index), "page {index} of the half that moved");
    }
    drop(region);
    device.migrate(elsewhere.span(), Direction::ToDevice);
    assert!(elsewhere.read(0) == pattern.page(HALF));
}

fn moved_whole() {
    let (device, pattern, region) = start();
    let watch = device.watch();
    let region = region.move_onto(Region::huge(1));
    device.assert_all(region.span(), PageState::Device);
    watch.assert_pages(Counter::BytesToSystem, 0);
    device.assert_digests(region.span(), HUGE, |index| pattern.digest(index));
    device.to_system(region.span());
    assert_huge(region.span(), 1);
    region.check(pattern);
}

fn moved_off_its_boundary() {
    let (device, pattern, region) = start();
    // One huge page, and a small one before it: no longer at a boundary.
    let target = Region::huge(2);
    let moved = super::remap::move_part_to(&region, 0..HUGE, &target, 1);
    device.assert_digests(moved, device.on_device(moved), |index| pattern.digest(index));
    for index in 0..HUGE {
        assert!(target.read(1 + index) == pattern.page(index), "page {index}");
    }
}

fn half_locked() {
    let (device, pattern, region) = start();
    super::remap::lock_part(&region, 0..HALF);
    check(&device, &region, 0..HUGE, pattern);
    device.to_device(region.span());
    device.assert_digests(region.span(), HUGE, |index| pattern.digest(index));
    region.unmap(0..HALF);
    check(&device, &region, HALF..HUGE, pattern);
}

fn no_longer_to_be_huge() {
    let (device, pattern, region) = start();
    region.advise(0..HALF, MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
    check(&device, &region, 0..HUGE, pattern);
    device.to_device(region.span());
    check(&device, &region, 0..HUGE, pattern);
}

fn half_brought_back() {
    let (device, pattern, region) = start();
    device.to_system(region.part(HALF..HUGE));
    device.assert_all(region.part(HALF..HUGE), PageState::System);
    check(&device, &region, 0..HUGE, pattern);
}

fn one_page_brought_back() {
    let (device, pattern, region) = start();
    for index in [0, 1, 255, 256, HUGE - 1] {
        device.to_system(region.page(index));
        device.assert_all(region.page(index), PageState::System);
        region.check_part(index..index + 1, pattern);
    }
    check(&device, &region, 0..HUGE, pattern);
}

fn one_page_touched() {
    let (device, pattern, region) = start();
    for index in [300, 0, HUGE - 1] {
        assert_eq!(region.touch(index), pattern.page(index)[0]);
        device.assert_all(region.page(index), state_after_touch(&device));
    }
    check(&device, &region, 0..HUGE, pattern);
}

fn forked_and_read() {
    let (device, pattern, region) = start();
    Child::spawn(|| {
        check(&Device::open(), &region, 0..HALF, pattern);
        region.check(pattern);
    })
    .succeed();
    check(&device, &region, 0..HUGE, pattern);
}

fn forked_and_written_by_the_child() {
    let (device, pattern, region) = start();
    Child::spawn(|| {
        (100..200).for_each(|index| region.write(index, &Pattern::new(2).page(index)));
        region.check_part(100..200, Pattern::new(2));
        region.check_part(0..100, pattern);
        region.check_part(200..HUGE, pattern);
        Device::open().to_device(region.span());
        check(&Device::open(), &region, 100..200, Pattern::new(2));
    })
    .succeed();
    check(&device, &region, 0..HUGE, pattern);
}

fn forked_and_written_by_the_parent() {
    let (device, pattern, region) = start();
    let written = Event::new();
    let child = Child::spawn(|| {
        written.wait();
        region.check(pattern);
    });
    (0..HALF).for_each(|index| region.write(index, &Pattern::new(2).page(index)));
    written.signal();
    child.succeed();
    check(&device, &region, 0..HALF, Pattern::new(2));
    check(&device, &region, HALF..HUGE, pattern);
}

fn forked_and_half_unmapped() {
    let (device, pattern, region) = start();
    let unmapped = Event::new();
    let child = Child::spawn(|| {
        unmapped.wait();
        region.unmap(HALF..HUGE);
        check(&Device::open(), &region, 0..HALF, pattern);
    });
    region.unmap(0..HALF);
    unmapped.signal();
    child.succeed();
    check(&device, &region, HALF..HUGE, pattern);
}

fn forked_and_sent_again() {
    let (device, pattern, region) = start();
    Child::spawn(|| {
        region.check_part(0..1, pattern);
        let device = Device::open();
        device.migrate(region.span(), Direction::ToDevice);
        check(&device, &region, 0..HUGE, pattern);
    })
    .succeed();
    device.migrate(region.span(), Direction::ToDevice);
    check(&device, &region, 0..HUGE, pattern);
}

fn evicted_in_parts() {
    let (device, pattern, region) = start();
    device.to_system(region.part(10..20));
    region.protect(30..40, ProtFlags::PROT_READ);
    region.unmap(50..60);
    let there = device.on_device(region.part(0..50)) + device.on_device(region.part(60..HUGE));
    let watch = device.watch();
    let done = device.evict();
    assert_eq!((done.moved, done.left), (there as u64, 0));
    watch.assert_pages(Counter::BytesEvicted, there);
    check(&device, &region, 0..50, pattern);
    check(&device, &region, 60..HUGE, pattern);
}

/// Parts of a huge page are given back at different times; then there is room for another one.
fn free_room_is_used_again() {
    let (device, pattern, region) = start();
    let free = device.free_pages();
    for quarter in [2, 0, 3, 1] {
        region.unmap(quarter * HUGE / 4..(quarter + 1) * HUGE / 4);
    }
    device.assert_free(free + HUGE as u64);
    let next = huge_on_device(&device, 1, Pattern::new(2));
    device.assert_free(free);
    check(&device, &next, 0..HUGE, Pattern::new(2));
    drop((region, pattern));
}

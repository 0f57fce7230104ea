// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Folios of all orders, alone and beside each other in one range.

use ersatz_abi::counter::Counter;
use ersatz_uapi::PageState;
use nix::libc;
use nix::sys::mman::{MmapAdvise, ProtFlags};

use super::fixture::{assert_touched, send};
use super::folio::{
    HUGE, MEDIUM, NEEDS, assert_huge, check, huge, huge_on_device, in_folios, medium, order_setting, small,
};
use super::remap::move_part_to;
use super::setting::Setting;
use crate::device::Device;
use crate::pattern::{PAGE, Pattern, dice};
use crate::process::Child;
use crate::region::{READ_WRITE, Region};
use crate::suite::test_list;

test_list! { "orders":
    medium_folios_go_and_come_back.needs(NEEDS);
    medium_folios_are_touched.needs(NEEDS);
    medium_folios_in_parts.needs(NEEDS);
    medium_folios_partly_unmapped_before.needs(NEEDS);
    medium_folios_forked.needs(NEEDS);
    medium_folios_partly_protected.needs(NEEDS);
    medium_folios_moved_off_their_boundary.needs(NEEDS);
    every_order_there_is.needs(NEEDS).patience(2);
    all_in_one_range.needs(NEEDS);
    all_in_one_range_touched_at_random.needs(NEEDS);
    all_in_one_range_evicted.needs(NEEDS);
    a_hole_in_each_half_of_a_huge_page.needs(NEEDS);
    collapsed_after_coming_back.needs(NEEDS);
    collapsed_while_on_the_device.needs(NEEDS);
}

fn medium_folios_go_and_come_back() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let (region, _setting) = medium(8, pattern);
    for _ in 0..3 {
        send(&device, &region);
        device.assert_digests(region.span(), 8 * MEDIUM, |index| pattern.digest(index));
        let watch = device.watch();
        device.to_system(region.span());
        watch.assert_pages(Counter::BytesMigratedToSystem, 8 * MEDIUM);
    }
    region.check(pattern);
}

fn medium_folios_are_touched() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let (region, _setting) = medium(8, pattern);
    send(&device, &region);
    let watch = device.watch();
    for folio in 0..8 {
        let index = folio * MEDIUM + 2 * folio;
        assert_eq!(region.touch(index), pattern.page(index)[0]);
    }
    assert_touched(&device, &watch, &region, 8);
    check(&device, &region, 0..8 * MEDIUM, pattern);
}

fn medium_folios_in_parts() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let (region, _setting) = medium(4, pattern);
    let pages = MEDIUM / 2..3 * MEDIUM + 3;
    device.to_device(region.part(pages.clone()));
    device.assert_all(region.part(pages), PageState::Device);
    check(&device, &region, 0..4 * MEDIUM, pattern);
    device.to_device(region.span());
    device.to_system(region.part(MEDIUM + 1..MEDIUM + 2));
    check(&device, &region, 0..4 * MEDIUM, pattern);
}

fn medium_folios_partly_unmapped_before() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let (region, _setting) = medium(4, pattern);
    region.unmap(4..6);
    region.unmap(2 * MEDIUM - 1..2 * MEDIUM + 1);
    for pages in [0..4, 6..2 * MEDIUM - 1, 2 * MEDIUM + 1..4 * MEDIUM] {
        device.to_device(region.part(pages.clone()));
        device.assert_all(region.part(pages.clone()), PageState::Device);
        check(&device, &region, pages, pattern);
    }
}

fn medium_folios_forked() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let (region, _setting) = medium(4, pattern);
    Child::spawn(|| {
        let device = Device::open();
        device.to_device(region.span());
        (0..MEDIUM).for_each(|index| region.write(index, &Pattern::new(2).page(index)));
        check(&device, &region, 0..MEDIUM, Pattern::new(2));
        check(&device, &region, MEDIUM..4 * MEDIUM, pattern);
    })
    .succeed();
    check(&device, &region, 0..4 * MEDIUM, pattern);
}

fn medium_folios_partly_protected() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let (region, _setting) = medium(4, pattern);
    region.protect(5..MEDIUM + 5, ProtFlags::PROT_READ);
    device.to_device(region.span());
    device.assert_all(region.span(), PageState::Device);
    check(&device, &region, 0..4 * MEDIUM, pattern);
    region.protect(5..MEDIUM + 5, READ_WRITE);
    region.fill(Pattern::new(2));
    check(&device, &region, 0..4 * MEDIUM, Pattern::new(2));
}

fn medium_folios_moved_off_their_boundary() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let (region, _setting) = medium(4, pattern);
    let target = Region::new(4 * MEDIUM + 3);
    let moved = move_part_to(&region, 0..4 * MEDIUM, &target, 3);
    device.to_device(moved);
    device.assert_digests(moved, 4 * MEDIUM, |index| pattern.digest(index));
    (0..4 * MEDIUM).for_each(|index| assert!(target.read(3 + index) == pattern.page(index), "page {index}"));
}

fn every_order_there_is() {
    let device = Device::open();
    for order in 1..9 {
        let (pages, pattern) = (1 << order, Pattern::new(order));
        if !std::path::Path::new(&order_setting(pages)).exists() {
            continue;
        }
        // Together less than a huge page, or the memory would be one.
        let (region, _setting) = in_folios(pages, (HUGE / 2 / pages).min(6), pattern);
        send(&device, &region);
        device.assert_digests(region.span(), region.pages(), |index| pattern.digest(index));
        region.touch(region.pages() / 2);
        device.to_device(region.span());
        device.to_system(region.span());
        region.check(pattern);
    }
}

/// The pages of [`mixed`] that were written.
fn is_written(index: usize) -> bool {
    index < HUGE || (HUGE + 64..HUGE + 128).contains(&index) || (HUGE + 200..HUGE + 290).contains(&index)
}

/// A huge page, then a huge page's worth of holes, folios of 64 KiB, small pages and zero pages.
fn mixed(pattern: Pattern) -> Region {
    let region = huge(2, pattern);
    region.advise(HUGE..2 * HUGE, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
    region.advise(HUGE..2 * HUGE, MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
    let write = |pages: std::ops::Range<usize>| pages.for_each(|index| region.write(index, &pattern.page(index)));
    write(HUGE + 200..HUGE + 290);
    (HUGE + 300..HUGE + 310).for_each(|index| assert_eq!(region.touch(index), 0));
    // Only part of the range, and that not large enough to be huge, may have folios from here on.
    region.advise(HUGE + 64..HUGE + 128, MmapAdvise::MADV_HUGEPAGE).expect("MADV_HUGEPAGE");
    let _setting = Setting::set(order_setting(MEDIUM), "madvise");
    write(HUGE + 64..HUGE + 128);
    region
}

fn check_mixed(region: &Region, pattern: Pattern) {
    for index in 0..2 * HUGE {
        let expected = if is_written(index) { pattern.page(index) } else { [0; PAGE] };
        assert!(region.read(index) == expected, "page {index}");
    }
}

fn mixed_digest(index: usize, pattern: Pattern) -> u64 {
    if is_written(index) { pattern.digest(index) } else { u64::from(crc32c::crc32c(&[0; PAGE])) }
}

fn all_in_one_range() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = mixed(pattern);
    let watch = device.watch();
    device.to_device(region.span());
    device.assert_all(region.span(), PageState::Device);
    let written = (0..2 * HUGE).filter(|&index| is_written(index)).count();
    watch.assert_pages(Counter::BytesToVram, written);
    watch.assert_pages(Counter::BytesFilled, 2 * HUGE - written);
    device.assert_digests(region.span(), 2 * HUGE, |index| mixed_digest(index, pattern));
    device.to_system(region.span());
    check_mixed(&region, pattern);
}

fn all_in_one_range_touched_at_random() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = mixed(pattern);
    device.to_device(region.span());
    let mut dice = dice(2);
    for _ in 0..100 {
        let index = dice.usize(0..2 * HUGE);
        let expected = if is_written(index) { pattern.page(index)[7] } else { 0 };
        assert_eq!(region.read(index)[7], expected, "page {index}");
    }
    device.to_device(region.span());
    check_mixed(&region, pattern);
}

fn all_in_one_range_evicted() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = mixed(pattern);
    device.to_device(region.span());
    let watch = device.watch();
    let done = device.evict();
    assert_eq!((done.moved, done.left), (2 * HUGE as u64, 0));
    watch.assert_pages(Counter::BytesEvicted, 2 * HUGE);
    check_mixed(&region, pattern);
}

fn a_hole_in_each_half_of_a_huge_page() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge(1, pattern);
    for index in [13, 300] {
        region.advise(index..index + 1, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
    }
    device.to_device(region.span());
    device.assert_all(region.span(), PageState::Device);
    for index in [13, 300] {
        region.check_zero(index..index + 1);
    }
    for pages in [0..13, 14..300, 301..HUGE] {
        check(&device, &region, pages, pattern);
    }
}

/// Has the kernel make one huge page of what is there. Whether it can is its own affair.
fn collapse(region: &Region) -> bool {
    // SAFETY: the memory is the region's own and keeps its content.
    unsafe { libc::madvise(region.pointer(0).as_ptr().cast(), region.pages() * PAGE, libc::MADV_COLLAPSE) == 0 }
}

fn collapsed_after_coming_back() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge_on_device(&device, 1, pattern);
    device.to_system(region.part(0..HUGE / 2));
    device.to_system(region.span());
    assert!(collapse(&region), "MADV_COLLAPSE: {}", std::io::Error::last_os_error());
    assert_huge(region.span(), 1);
    send(&device, &region);
    check(&device, &region, 0..HUGE, pattern);
}

/// The kernel takes entries of private pages for pages that are swapped out; it may bring them back, or give up.
fn collapsed_while_on_the_device() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::huge(1);
    region.advise(0..HUGE, MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
    region.fill(pattern);
    region.advise(0..HUGE, MmapAdvise::MADV_HUGEPAGE).expect("MADV_HUGEPAGE");
    device.to_device(region.part(100..140));
    println!("collapsed: {}", collapse(&region));
    check(&device, &region, 0..HUGE, pattern);
    device.to_device(region.span());
    println!("collapsed: {}", collapse(&region));
    check(&device, &region, 0..HUGE, pattern);
    let small = small(MEDIUM, pattern);
    device.to_device(small.span());
    small.check(pattern);
}

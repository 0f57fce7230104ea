// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One page that cannot move keeps no other from it.

use std::thread;
use std::time::{Duration, Instant};

use ersatz_abi::counter::Counter;
use ersatz_uapi::{Direction, PageState};
use nix::sys::mman::MmapAdvise;

use super::fixture::{assert_works, on_device};
use super::folio::{HUGE, MEDIUM, medium};
use super::page_map::{entries, folio_pages};
use super::pin::Pin;
use crate::bus::Function;
use crate::device::Device;
use crate::pattern::Pattern;
use crate::region::{Region, Span};
use crate::suite::{Need, test_list};

test_list! { "pinned":
    the_first_page_does_not_keep_others_from_eviction.needs(&[Need::Coherent]);
    pages_all_over_do_not_keep_others_from_eviction.needs(&[Need::Coherent]);
    a_page_does_not_keep_others_from_unbinding.needs(&[Need::Coherent]).disruptive().patience(2);
    a_page_does_not_keep_others_from_coming_back.needs(&[Need::Coherent]);
    a_folio_does_not_keep_the_ones_behind_it.needs(&[Need::HugePages]);
    a_folio_does_not_keep_small_pages_behind_it.needs(&[Need::HugePages]);
    a_huge_page_does_not_keep_the_ones_behind_it.needs(&[Need::HugePages, Need::VramPages(2048)]);
    a_page_of_a_huge_page_goes_once_released.needs(&[Need::HugePages, Need::VramPages(1024)]);
}

/// More pages than any driver moves at a time.
const MANY: usize = 2048;
/// Evicts a few times and asserts that only these pages are left.
fn assert_evicted_but(device: &Device, region: &Region, pinned: &[usize]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while device.evict().left > pinned.len() as u64 {
        assert!(
            Instant::now() < deadline,
            "{} of {} pages never leave the device, and {} are pinned",
            device.on_device(region.span()),
            region.pages(),
            pinned.len()
        );
    }
    for (index, state) in device.residency(region.span()).into_iter().enumerate() {
        let expected = if pinned.contains(&index) { PageState::Device } else { PageState::System };
        assert_eq!(state, expected, "page {index}");
    }
}

fn the_first_page_does_not_keep_others_from_eviction() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, MANY, pattern);
    let pin = Pin::new(&region, 0..1);
    assert_evicted_but(&device, &region, &[0]);
    drop(pin);
    assert_evicted_but(&device, &region, &[]);
    region.check(pattern);
}

fn pages_all_over_do_not_keep_others_from_eviction() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, MANY, pattern);
    let pinned: Vec<usize> = (0..MANY).step_by(100).collect();
    let pins: Vec<Pin> = pinned.iter().map(|&index| Pin::new(&region, index..index + 1)).collect();
    let watch = device.watch();
    assert_evicted_but(&device, &region, &pinned);
    // A page may be copied before the kernel finds that it is in use.
    assert!(watch.pages(Counter::BytesEvicted) >= (MANY - pinned.len()) as u64);
    drop(pins);
    assert_evicted_but(&device, &region, &[]);
    region.check(pattern);
}

/// Whether all pages of a range have other page frames than those.
fn have_moved(span: Span, frames: &[Option<u64>]) -> bool {
    entries(span).iter().zip(frames).all(|(entry, before)| entry.frame().is_some() && entry.frame() != *before)
}

fn a_page_does_not_keep_others_from_unbinding() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let function = Function::of(&device);
    let region = on_device(&device, MANY, pattern);
    drop(device);
    let pin = Pin::new(&region, 0..1);
    let frames: Vec<_> = entries(region.span()).iter().map(|entry| entry.frame()).collect();
    let moved = thread::scope(|scope| {
        let unbinding = scope.spawn(|| function.unbind());
        let deadline = Instant::now() + Duration::from_secs(20);
        let moved = loop {
            let moved = have_moved(region.part(1..MANY), &frames[1..]);
            if moved || Instant::now() > deadline {
                break moved;
            }
            thread::sleep(Duration::from_millis(10));
        };
        assert!(!unbinding.is_finished(), "the driver let go of a page that was pinned");
        // Before the assertion: unbinding waits for it.
        drop(pin);
        unbinding.join().expect("the thread that unbinds");
        moved
    });
    assert!(moved, "pages that nobody pinned stayed with the one that was");
    region.check(pattern);
    function.bind();
    assert_works();
}

fn a_page_does_not_keep_others_from_coming_back() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, MANY, pattern);
    let pin = Pin::new(&region, 700..701);
    device.migrate(region.span(), Direction::ToSystem);
    let states = device.residency(region.span());
    let left = states.iter().filter(|&&state| state == PageState::Device).count();
    assert_eq!((left, states[700]), (1, PageState::Device));
    drop(pin);
    device.to_system(region.span());
    region.check(pattern);
}

/// Asserts that all pages but at most these went to the device in the second attempt at the latest.
fn assert_goes_but(device: &Device, region: &Region, stays: std::ops::Range<usize>) {
    for _ in 0..2 {
        device.migrate(region.span(), Direction::ToDevice);
    }
    for (index, state) in device.residency(region.span()).into_iter().enumerate() {
        assert!(state == PageState::Device || stays.contains(&index), "page {index} stays behind {stays:?}");
    }
}

fn a_folio_does_not_keep_the_ones_behind_it() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let (region, _setting) = medium(4, pattern);
    let pin = Pin::new(&region, MEDIUM + 5..MEDIUM + 6);
    assert_goes_but(&device, &region, MEDIUM..2 * MEDIUM);
    assert_eq!(device.on_device(region.page(MEDIUM + 5)), 0, "a page that was pinned went to the device");
    drop(pin);
    device.to_device(region.span());
    device.assert_digests(region.span(), 4 * MEDIUM, |index| pattern.digest(index));
    region.check(pattern);
}

fn a_folio_does_not_keep_small_pages_behind_it() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let (region, setting) = medium(2, pattern);
    setting.change("never");
    region.advise(MEDIUM..2 * MEDIUM, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
    (MEDIUM..2 * MEDIUM).for_each(|index| region.write(index, &pattern.page(index)));
    assert_eq!(folio_pages(region.page(MEDIUM)), 1, "pages in a folio that was to be small");
    let _pin = Pin::new(&region, 0..1);
    assert_goes_but(&device, &region, 0..MEDIUM);
    region.check(pattern);
}

fn a_huge_page_does_not_keep_the_ones_behind_it() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::huge(3);
    region.fill(pattern);
    let pin = Pin::new(&region, 3..4);
    assert_goes_but(&device, &region, 0..HUGE);
    drop(pin);
    device.to_device(region.span());
    region.check(pattern);
}

fn a_page_of_a_huge_page_goes_once_released() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::huge(1);
    region.fill(pattern);
    let pin = Pin::new(&region, 200..201);
    device.migrate(region.span(), Direction::ToDevice);
    assert_eq!(device.on_device(region.page(200)), 0, "a page that was pinned went to the device");
    region.check(pattern);
    drop(pin);
    device.to_device(region.span());
    device.assert_digests(region.span(), region.pages(), |index| pattern.digest(index));
    region.check(pattern);
}

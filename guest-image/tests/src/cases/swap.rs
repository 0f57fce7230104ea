// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages that are swapped out are neither holes nor pages: they are reported as such and stay where they are.

use std::ops::Deref;

use ersatz_uapi::{Direction, PageState, Residency};
use nix::sys::mman::MmapAdvise;

use super::cpu::run_on;
use super::fixture::send;
use super::page_map::entries;
use crate::device::Device;
use crate::pattern::Pattern;
use crate::process::Child;
use crate::region::Region;
use crate::runner::drain_page_lists;
use crate::suite::test_list;
use crate::swap_disk::SwapDisk;

test_list! { "swap":
    pages_filled_on_another_cpu_are_swapped_out;
    swapped_pages_are_reported;
    swapped_pages_do_not_migrate;
    swapped_pages_are_read_by_the_device;
    pages_swapped_in_go_to_the_device;
    swapped_pages_of_two_processes;
}

/// Pages that a test swaps out.
const PAGES: usize = 32;

/// Memory that is swapped out, with content.
struct Swapped {
    // In the order in which they must go.
    region: Region,
    _swap: SwapDisk,
}

impl Deref for Swapped {
    type Target = Region;

    fn deref(&self) -> &Region {
        &self.region
    }
}

fn swapped(pattern: Pattern) -> Swapped {
    let swap = SwapDisk::on();
    let region = Region::new(PAGES);
    region.advise(0..PAGES, MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
    region.fill(pattern);
    swap_out(&region);
    Swapped { region, _swap: swap }
}

fn swap_out(region: &Region) {
    for _ in 0..100 {
        // What waits in the list of another CPU to go to an LRU list is not on one, and stays.
        drain_page_lists();
        region.advise(0..region.pages(), MmapAdvise::MADV_PAGEOUT).expect("MADV_PAGEOUT");
        if entries(region.span()).iter().all(|entry| entry.is_swapped()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("the kernel swaps nothing out");
}

fn raw_states(device: &Device, region: &Region) -> Vec<u8> {
    let (span, mut states) = (region.span(), vec![u8::MAX; region.pages()]);
    let request = Residency { address: span.address, length: span.length, states: states.as_mut_ptr().addr() as u64 };
    // SAFETY: the array has one byte a page of the range.
    unsafe { device.try_residency_raw(request) }.unwrap_or_else(|error| panic!("ERSATZ_IOC_RESIDENCY: {error}"));
    states
}

/// Of what the tests here stand on: a page that another CPU has not put on an LRU list yet, and an idle one never does, is swapped out too.
fn pages_filled_on_another_cpu_are_swapped_out() {
    let _swap = SwapDisk::on();
    run_on(1);
    let region = Region::filled(PAGES / 2, Pattern::new(1));
    run_on(0);
    swap_out(&region);
    region.check(Pattern::new(1));
}

fn swapped_pages_are_reported() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = swapped(pattern);
    assert_eq!(raw_states(&device, &region), [PageState::Swapped as u8; PAGES]);
    region.check_part(0..4, pattern);
    let states = raw_states(&device, &region);
    assert_eq!(states[..4], [PageState::System as u8; 4]);
    region.check(pattern);
}

fn swapped_pages_do_not_migrate() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = swapped(pattern);
    let done = device.migrate(region.span(), Direction::ToDevice);
    assert_eq!((done.moved, done.left), (0, PAGES as u64));
    assert!(entries(region.span()).iter().all(|entry| entry.is_swapped()));
    region.check(pattern);
}

fn swapped_pages_are_read_by_the_device() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = swapped(pattern);
    device.assert_digests(region.span(), 0, |index| pattern.digest(index));
    region.check(pattern);
}

/// A page that was swapped in may still have its place in swap, which must not come with it.
fn pages_swapped_in_go_to_the_device() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = swapped(pattern);
    region.check(pattern);
    send(&device, &region);
    device.assert_digests(region.span(), PAGES, |index| pattern.digest(index));
    region.check(pattern);
    region.fill(Pattern::new(2));
    device.to_device(region.span());
    device.to_system(region.span());
    region.check(Pattern::new(2));
}

fn swapped_pages_of_two_processes() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = swapped(pattern);
    Child::spawn(|| {
        let device = Device::open();
        region.check(pattern);
        device.migrate(region.span(), Direction::ToDevice);
        region.check(pattern);
        region.fill(Pattern::new(2));
        region.check(Pattern::new(2));
    })
    .succeed();
    device.migrate(region.span(), Direction::ToDevice);
    region.check(pattern);
}

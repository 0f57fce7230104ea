// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Another driver that stands on `zone_device`: memory goes to a device whose memory is RAM, and comes back with its content.

use std::thread;

use ersatz_uapi::PageState;
use ersatz_uapi::ram::{PAGES, Pages};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise};
use nix::sys::signal::Signal;

use super::fixture::on_device;
use super::page_map::entries;
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::process::{Child, Event};
use crate::ram_device::{RamDevice, Way, unload};
use crate::region::Region;
use crate::suite::{Need, test_list};

test_list! { "second_user":
    pages_come_back_by_ioctl.needs(NEEDS);
    pages_come_back_by_touch.needs(NEEDS);
    a_write_brings_a_page_back.needs(NEEDS);
    huge_folios_go_whole.needs(&[Need::RamDevice, Need::HugePages]);
    part_of_a_huge_folio_comes_back.needs(&[Need::RamDevice, Need::HugePages]);
    holes_stay.needs(NEEDS);
    unmapping_frees.needs(NEEDS);
    moving_the_mapping.needs(NEEDS);
    fork_shares.needs(NEEDS);
    a_child_writes.needs(NEEDS);
    a_killed_process_frees.needs(NEEDS);
    many_threads_touch.needs(NEEDS);
    more_pages_than_there_are.needs(NEEDS);
    what_cannot_go_stays.needs(NEEDS);
    beside_the_gpu.needs(NEEDS);
    senseless_requests_are_refused.needs(NEEDS);
    an_open_file_keeps_the_module.needs(NEEDS);
    unloading_brings_pages_back.needs(NEEDS);
    unloading_brings_back_pages_of_others.needs(NEEDS);
    loading_again_and_again.needs(NEEDS).patience(2);
}

const NEEDS: &[Need] = &[Need::RamDevice];

/// Memory with content, all of it on the device.
fn there(device: &RamDevice, pages: usize, pattern: Pattern) -> Region {
    let region = Region::filled(pages, pattern);
    send(device, &region);
    region
}

fn send(device: &RamDevice, region: &Region) {
    let before = device.in_use();
    device.move_all(Way::There, region.span());
    assert_eq!(device.in_use() - before, region.pages() as u64, "pages of the device's memory");
    assert!(entries(region.span()).into_iter().all(|entry| entry.is_swapped()), "no CPU can reach them");
}

fn pages_come_back_by_ioctl() {
    let (device, pattern) = (RamDevice::open(), Pattern::new(1));
    let region = there(&device, 600, pattern);
    device.move_all(Way::Back, region.span());
    device.assert_in_use(0);
    assert!(entries(region.span()).into_iter().all(|entry| entry.frame().is_some()));
    region.check(pattern);
    assert_eq!(device.migrate(Way::Back, region.span()), 0, "they are there already");
}

fn pages_come_back_by_touch() {
    let (device, pattern) = (RamDevice::open(), Pattern::new(1));
    let region = there(&device, 40, pattern);
    region.touch(7);
    device.assert_in_use(39);
    region.check(pattern);
    device.assert_in_use(0);
}

fn a_write_brings_a_page_back() {
    let (device, pattern) = (RamDevice::open(), Pattern::new(1));
    let region = there(&device, 8, pattern);
    region.write(3, &Pattern::new(2).page(3));
    device.assert_in_use(7);
    send_rest(&device, &region, 1);
    region.check_part(3..4, Pattern::new(2));
    region.check_part(0..3, pattern);
    region.check_part(4..8, pattern);
}

/// Sends what is not there yet.
fn send_rest(device: &RamDevice, region: &Region, rest: u64) {
    let mut moved = 0;
    while moved < rest {
        moved += device.migrate(Way::There, region.span());
    }
    device.assert_in_use(region.pages());
}

fn huge_folios_go_whole() {
    let (device, pattern) = (RamDevice::open(), Pattern::new(1));
    let region = Region::huge(2);
    region.fill(pattern);
    send(&device, &region);
    // One of them, by a touch.
    region.touch(100);
    device.assert_in_use(512);
    region.check(pattern);
    device.assert_in_use(0);
}

fn part_of_a_huge_folio_comes_back() {
    let (device, pattern) = (RamDevice::open(), Pattern::new(1));
    let region = Region::huge(1);
    region.fill(pattern);
    send(&device, &region);
    region.unmap(100..200);
    assert!(device.migrate(Way::Back, region.part(0..50)) <= 512);
    region.check_part(0..100, pattern);
    region.check_part(200..512, pattern);
    device.assert_in_use(0);
}

fn holes_stay() {
    let (device, pattern) = (RamDevice::open(), Pattern::new(1));
    let region = Region::new(20);
    for index in [0, 5, 19] {
        region.write(index, &pattern.page(index));
    }
    send_part(&device, &region, 3);
    device.assert_in_use(3);
    for index in [0, 5, 19] {
        region.check_part(index..index + 1, pattern);
    }
    region.check_zero(1..5);
    device.assert_in_use(0);
}

/// Sends what there is of a region.
fn send_part(device: &RamDevice, region: &Region, pages: u64) {
    let mut moved = 0;
    while moved < pages {
        moved += device.migrate(Way::There, region.span());
    }
    assert_eq!(moved, pages);
}

fn unmapping_frees() {
    let (device, pattern) = (RamDevice::open(), Pattern::new(1));
    let region = there(&device, 64, pattern);
    region.unmap(10..20);
    device.assert_in_use(54);
    region.advise(20..30, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
    device.assert_in_use(44);
    region.check_zero(20..30);
    region.check_part(30..64, pattern);
    region.check_part(0..10, pattern);
    drop(region);
    device.assert_in_use(0);
}

fn moving_the_mapping() {
    let (device, pattern) = (RamDevice::open(), Pattern::new(1));
    let region = there(&device, 30, pattern).resize(700);
    device.assert_in_use(30);
    region.check_part(0..30, pattern);
    region.check_zero(30..700);
}

fn fork_shares() {
    let (device, pattern) = (RamDevice::open(), Pattern::new(1));
    let region = there(&device, 32, pattern);
    Child::spawn(|| region.check(pattern)).succeed();
    region.check(pattern);
    device.assert_in_use(0);
}

fn a_child_writes() {
    let (device, parents, childs) = (RamDevice::open(), Pattern::new(1), Pattern::new(2));
    let region = there(&device, 32, parents);
    Child::spawn(|| {
        region.fill(childs);
        device.migrate(Way::There, region.span());
        region.check(childs);
    })
    .succeed();
    region.check(parents);
    device.assert_in_use(0);
}

fn a_killed_process_frees() {
    let (device, ready) = (RamDevice::open(), Event::new());
    let child = Child::spawn(|| {
        let _region = there(&device, 100, Pattern::new(1));
        ready.signal();
        thread::park();
    });
    ready.wait();
    assert_eq!(device.in_use(), 100);
    child.signal(Signal::SIGKILL);
    child.die_of(Signal::SIGKILL);
    device.assert_in_use(0);
}

fn many_threads_touch() {
    let (device, pattern) = (RamDevice::open(), Pattern::new(1));
    for _ in 0..4 {
        let region = there(&device, 200, pattern);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| region.check(pattern));
            }
            scope.spawn(|| device.migrate(Way::Back, region.span()));
        });
        device.assert_in_use(0);
    }
}

fn more_pages_than_there_are() {
    let (device, pattern) = (RamDevice::open(), Pattern::new(1));
    let region = Region::filled(PAGES + 300, pattern);
    send_part(&device, &region, PAGES as u64);
    assert_eq!(device.migrate(Way::There, region.span()), 0);
    device.assert_in_use(PAGES);
    region.check(pattern);
    device.assert_in_use(0);
}

fn what_cannot_go_stays() {
    let (device, pattern) = (RamDevice::open(), Pattern::new(1));
    let shared = Region::shared(10);
    shared.fill(pattern);
    assert_eq!(device.migrate(Way::There, shared.span()), 0);
    let file = nix::sys::memfd::memfd_create(c"ersatz", nix::sys::memfd::MFdFlags::empty()).expect("memfd_create");
    let file = std::fs::File::from(file);
    file.set_len(10 * PAGE as u64).expect("ftruncate");
    let mapped = Region::of_file(&file, 10, MapFlags::MAP_PRIVATE);
    mapped.touch(0);
    assert_eq!(device.migrate(Way::There, mapped.span()), 0);
    assert_eq!(device.in_use(), 0);
    shared.check(pattern);
}

/// One process, two devices, each with pages of its own: neither takes the other's for the system's or for its own.
fn beside_the_gpu() {
    let (device, gpu) = (RamDevice::open(), Device::open());
    let (ours, its) = (Pattern::new(1), Pattern::new(2));
    let (here, beyond) = (there(&device, 50, ours), on_device(&gpu, 50, its));
    assert_eq!(device.migrate(Way::There, beyond.span()), 0, "pages of the GPU that went");
    assert_eq!(device.migrate(Way::Back, beyond.span()), 0, "pages of the GPU that came");
    assert_eq!(gpu.migrate(here.span(), ersatz_uapi::Direction::ToDevice).moved, 0);
    assert_eq!(gpu.migrate(here.span(), ersatz_uapi::Direction::ToSystem).moved, 0);
    assert_eq!((device.in_use(), gpu.on_device(beyond.span())), (50, 50));
    gpu.assert_all(beyond.span(), PageState::Device);
    here.check(ours);
    beyond.check(its);
    // From one to the other, by the system.
    gpu.to_device(here.span());
    gpu.to_system(here.span());
    device.move_all(Way::There, here.span());
    here.check(ours);
}

fn senseless_requests_are_refused() {
    let device = RamDevice::open();
    let region = Region::new(4);
    let address = region.span().address;
    for (address, length) in
        [(address, 0), (address + 8, PAGE as u64), (address, 100), (0u64.wrapping_sub(PAGE as u64), 2 * PAGE as u64)]
    {
        for way in [Way::There, Way::Back] {
            assert_eq!(device.try_move(way, address, length).map(drop), Err(Errno::EINVAL), "{address:#x} {length:#x}");
        }
    }
    // Nothing is mapped at the end of the address space.
    let far = device.try_move(Way::There, 1 << 46, PAGE as u64).expect("a range without mappings");
    assert_eq!(far.moved, 0);
    let mut request = Pages::default();
    // SAFETY: no ioctl has this number.
    let status = unsafe { nix::libc::ioctl(device.descriptor(), 0xe562, &raw mut request) };
    assert_eq!((status, Errno::last()), (-1, Errno::ENOTTY));
    // SAFETY: the kernel checks the address of the structure.
    let status = unsafe { nix::libc::ioctl(device.descriptor(), u64::from(ersatz_uapi::ram::IOC_TO_DEVICE), 8) };
    assert_eq!((status, Errno::last()), (-1, Errno::EFAULT));
}

fn an_open_file_keeps_the_module() {
    let (device, pattern) = (RamDevice::open(), Pattern::new(1));
    let region = there(&device, 16, pattern);
    assert_eq!(unload(), Err(Errno::EWOULDBLOCK));
    assert_eq!(device.in_use(), 16);
    region.check(pattern);
}

fn unloading_brings_pages_back() {
    let pattern = Pattern::new(1);
    let region = there(&RamDevice::open(), 700, pattern);
    unload().expect("unloading the module");
    assert!(entries(region.span()).into_iter().all(|entry| entry.frame().is_some()));
    region.check(pattern);
    let device = RamDevice::open();
    assert_eq!(device.in_use(), 0);
    send(&device, &region);
    region.check(pattern);
}

fn unloading_brings_back_pages_of_others() {
    let (ready, go) = (Event::new(), Event::new());
    drop(RamDevice::open());
    let start = |tag| {
        let (ready, go) = (&ready, &go);
        Child::spawn(move || {
            let (pattern, region) = (Pattern::new(tag), Region::filled(100, Pattern::new(tag)));
            RamDevice::open().move_all(Way::There, region.span());
            ready.signal();
            go.wait();
            region.check(pattern);
        })
    };
    let children: Vec<Child> = (1..=3).map(start).collect();
    children.iter().for_each(|_| ready.wait());
    unload().expect("unloading the module");
    children.iter().for_each(|_| go.signal());
    children.into_iter().for_each(Child::succeed);
}

fn loading_again_and_again() {
    let pattern = Pattern::new(1);
    let region = Region::filled(64, pattern);
    for _ in 0..5 {
        let device = RamDevice::open();
        send(&device, &region);
        region.touch(30);
        drop(device);
        unload().expect("unloading the module");
    }
    region.check(pattern);
}

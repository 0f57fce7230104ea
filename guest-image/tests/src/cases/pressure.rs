// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VRAM fills up: others make room, or what finds none stays in system memory, and nothing is lost.

use ersatz_abi::counter::Counter;
use ersatz_uapi::Direction;

use crate::device::Device;
use crate::pattern::Pattern;
use crate::process::{Child, Event};
use crate::region::Region;
use crate::suite::{Need, test_list};

/// 256 MiB: what a guest has memory and a test has time for.
const NEEDS: &[Need] = &[Need::FillableVram(65_536)];

/// Pages by which the tests ask for more than there is.
const EXCESS: usize = 200;
/// Pages of a huge folio, and of a block that is evicted at once.
const HUGE_PAGES: usize = 512;

test_list! { "pressure":
    what_does_not_fit_stays.needs(NEEDS).patience(3);
    freed_room_is_used.needs(NEEDS).patience(3);
    what_was_used_longest_ago_makes_room.needs(NEEDS).patience(3);
    a_full_device_still_takes_faults.needs(NEEDS).patience(3);
    two_processes_share_what_there_is.needs(NEEDS).patience(3);
    over_and_over.needs(NEEDS).patience(3);
}

/// Fills all VRAM there is, and has some memory left over; returns the memory and how many pages found room.
fn overfill(device: &Device, pattern: Pattern) -> (Region, usize) {
    let room = device.free_pages() as usize;
    let region = Region::filled(room + EXCESS, pattern);
    let watch = device.watch();
    let done = device.migrate(region.span(), Direction::ToDevice);
    let in_vram = device.on_device(region.span());
    assert_eq!(done.left as usize, region.pages() - in_vram);
    assert!(in_vram <= room, "{in_vram} pages in room for {room}");
    assert!(in_vram + EXCESS / 2 >= room, "only {in_vram} pages went where {room} had room");
    assert!(watch.pages(Counter::BytesMigratedToDevice) >= in_vram as u64);
    (region, in_vram)
}

fn what_does_not_fit_stays() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let (region, in_vram) = overfill(&device, pattern);
    device.assert_digests(region.span(), in_vram, |index| pattern.digest(index));
    region.check(pattern);
}

fn freed_room_is_used() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let (region, _) = overfill(&device, pattern);
    let more = Region::filled(EXCESS, Pattern::new(2));
    device.to_system(region.part(0..4 * HUGE_PAGES));
    let watch = device.watch();
    device.to_device(more.span());
    watch.assert_pages(Counter::BytesMigratedToDevice, EXCESS);
    watch.assert_pages(Counter::BytesEvicted, 0);
    device.assert_digests(more.span(), EXCESS, |index| Pattern::new(2).digest(index));
    more.check(Pattern::new(2));
    region.check(pattern);
}

fn what_was_used_longest_ago_makes_room() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let (region, in_vram) = overfill(&device, pattern);
    // The first part is used once more: the second is the oldest then.
    let recent = device.on_device(region.part(0..HUGE_PAGES));
    device.assert_digests(region.part(0..HUGE_PAGES), recent, |index| pattern.digest(index));
    let more = Region::filled(EXCESS, Pattern::new(2));
    let watch = device.watch();
    device.to_device(more.span());
    let evicted = watch.pages(Counter::BytesEvicted);
    let most = 2 * HUGE_PAGES as u64;
    assert!((EXCESS as u64..=most).contains(&evicted), "{evicted} pages of {in_vram} were evicted for {EXCESS}");
    assert_eq!(device.on_device(region.part(0..HUGE_PAGES)), recent);
    device.assert_digests(more.span(), EXCESS, |index| Pattern::new(2).digest(index));
    more.check(Pattern::new(2));
    region.check(pattern);
}

fn a_full_device_still_takes_faults() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let (region, _) = overfill(&device, pattern);
    let watch = device.watch();
    let step = region.pages() / 50;
    for index in (0..region.pages()).step_by(step) {
        region.check_part(index..index + 1, pattern);
    }
    let faulted = watch.pages(Counter::BytesCpuFault);
    assert_eq!(faulted > 0, !device.is_coherent(), "{faulted} pages came back by CPU faults");
    device.migrate(region.span(), Direction::ToDevice);
    region.check(pattern);
}

fn two_processes_share_what_there_is() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let half = device.free_pages() as usize / 2 + EXCESS;
    let (ready, go) = (Event::new(), Event::new());
    let start = |tag| {
        let (ready, go) = (&ready, &go);
        Child::spawn(move || {
            let (device, pattern) = (Device::open(), Pattern::new(tag));
            let region = Region::filled(half, pattern);
            device.migrate(region.span(), Direction::ToDevice);
            ready.signal();
            go.wait();
            region.check(pattern);
        })
    };
    let watch = device.watch();
    let children = [start(1), start(2)];
    children.iter().for_each(|_| ready.wait());
    assert!(watch.pages(Counter::BytesMigratedToDevice) >= 2 * (half - 2 * EXCESS) as u64);
    let extra = Region::filled(EXCESS, pattern);
    let done = device.migrate(extra.span(), Direction::ToDevice);
    assert_eq!(done.moved + done.left, EXCESS as u64);
    children.iter().for_each(|_| go.signal());
    children.into_iter().for_each(Child::succeed);
    extra.check(pattern);
}

fn over_and_over() {
    let device = Device::open();
    for round in 0..3 {
        let pattern = Pattern::new(round);
        let (region, in_vram) = overfill(&device, pattern);
        device.assert_digests(region.part(0..64), device.on_device(region.part(0..64)), |index| pattern.digest(index));
        assert!(in_vram > 0);
        if round == 1 {
            device.migrate(region.span(), Direction::ToSystem);
        }
        region.check_part(0..region.pages().min(512), pattern);
        drop(region);
        wait_for_room(&device, in_vram as u64);
    }
}

fn wait_for_room(device: &Device, pages: u64) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while device.free_pages() < pages {
        assert!(std::time::Instant::now() < deadline, "{} pages of VRAM free, not {pages}", device.free_pages());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

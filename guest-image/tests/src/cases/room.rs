// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VRAM is smaller than what is to be there: what was used longest ago makes room, and nothing is lost.

use std::ops::Range;

use ersatz_abi::counter::Counter;
use ersatz_uapi::{Direction, PageState};

use super::fixture::on_device;
use super::folio::{HUGE, check, small};
use super::limited::Limited;
use super::pin::Pin;
use crate::device::Device;
use crate::pattern::{Pattern, dice};
use crate::process::{Child, Event};
use crate::region::Region;
use crate::suite::{Need, test_list};

const NEEDS: &[Need] = &[Need::HugePages];
const COHERENT: &[Need] = &[Need::Coherent, Need::HugePages];

test_list! { "room":
    windows_of_small_pages.needs(NEEDS).disruptive().patience(3);
    windows_of_huge_pages.needs(NEEDS).disruptive().patience(3);
    windows_at_random.needs(NEEDS).disruptive().patience(3);
    a_range_larger_than_vram.needs(NEEDS).disruptive().patience(2);
    holes_larger_than_vram.needs(NEEDS).disruptive().patience(2);
    the_oldest_makes_room.needs(NEEDS).disruptive().patience(2);
    pages_of_other_processes_make_room.needs(NEEDS).disruptive().patience(2);
    two_processes_take_turns.needs(NEEDS).disruptive().patience(3);
    pinned_pages_make_no_room.needs(COHERENT).disruptive().patience(2);
    a_huge_page_into_fragments.needs(NEEDS).disruptive().patience(2);
    a_huge_page_into_almost_none.needs(NEEDS).disruptive().patience(2);
    small_pages_into_what_huge_pages_left.needs(NEEDS).disruptive().patience(2);
    faults_while_room_is_made.needs(NEEDS).disruptive().patience(3);
    eviction_on_request_of_a_full_device.needs(NEEDS).disruptive().patience(2);
    all_of_it_is_free_again.needs(NEEDS).disruptive().patience(3);
}

/// VRAM, in pages: four huge pages' worth.
const ROOM: usize = 4 * HUGE;
/// What is to be there: four times as much.
const WORKING_SET: usize = 4 * ROOM;

/// Moves a window to the device, which has to make room, and checks that the device reads it there.
fn visit(device: &Device, region: &Region, pages: Range<usize>, pattern: Pattern) {
    let span = region.part(pages.clone());
    device.to_device(span);
    let in_vram = device.on_device(span);
    assert!(in_vram >= pages.len() / 2, "{in_vram} of {} pages stayed where they were sent", pages.len());
    device.assert_digests(span, device.on_device(span), |index| pattern.digest(pages.start + index));
}

/// Goes through all of a working set twice, window by window.
fn go_through(device: &Device, region: &Region, pattern: Pattern) {
    let watch = device.watch();
    for _ in 0..2 {
        for start in (0..WORKING_SET).step_by(ROOM / 2) {
            visit(device, region, start..start + ROOM / 2, pattern);
        }
    }
    // All but what fits at last, in each pass.
    let evicted = watch.pages(Counter::BytesEvicted);
    assert!(evicted >= 2 * (WORKING_SET - ROOM) as u64 - ROOM as u64, "{evicted} pages made room");
    assert!(device.on_device(region.span()) <= ROOM);
    region.check(pattern);
}

fn windows_of_small_pages() {
    let _limited = Limited::to(ROOM);
    let pattern = Pattern::new(1);
    go_through(&Device::open(), &small(WORKING_SET, pattern), pattern);
}

fn huge_working_set(pattern: Pattern) -> Region {
    let region = Region::huge(WORKING_SET / HUGE);
    region.fill(pattern);
    region
}

fn windows_of_huge_pages() {
    let _limited = Limited::to(ROOM);
    let pattern = Pattern::new(1);
    go_through(&Device::open(), &huge_working_set(pattern), pattern);
}

fn windows_at_random() {
    let _limited = Limited::to(ROOM);
    let (device, pattern, mut dice) = (Device::open(), Pattern::new(1), dice(1));
    let region = huge_working_set(pattern);
    for _ in 0..40 {
        let length = dice.usize(1..ROOM / 2);
        let start = dice.usize(0..WORKING_SET - length);
        visit(&device, &region, start..start + length, pattern);
        let index = dice.usize(0..WORKING_SET);
        region.check_part(index..index + 1, pattern);
    }
    region.check(pattern);
}

/// It cannot be there as a whole; the call ends all the same, and says so.
fn a_range_larger_than_vram() {
    let _limited = Limited::to(ROOM);
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge_working_set(pattern);
    let done = device.migrate(region.span(), Direction::ToDevice);
    let there = device.on_device(region.span());
    assert!((ROOM / 2..=ROOM).contains(&there), "{there} pages in VRAM for {ROOM}");
    assert_eq!(done.left as usize, WORKING_SET - there);
    device.assert_digests(region.span(), there, |index| pattern.digest(index));
    region.check(pattern);
}

fn holes_larger_than_vram() {
    let _limited = Limited::to(ROOM);
    let (device, region) = (Device::open(), Region::huge(WORKING_SET / HUGE));
    device.migrate(region.span(), Direction::ToDevice);
    let there = device.on_device(region.span());
    assert!((ROOM / 2..=ROOM).contains(&there), "{there} pages in VRAM for {ROOM}");
    region.check_zero(0..WORKING_SET);
}

/// Blocks of VRAM are given up in the order in which they were last used.
fn the_oldest_makes_room() {
    let _limited = Limited::to(ROOM);
    let device = Device::open();
    let (room, quarter) = (device.free_pages() as usize, ROOM / 4);
    let parts: Vec<Region> = (0..4).map(|tag| small(quarter, Pattern::new(tag))).collect();
    parts.iter().for_each(|part| _ = device.to_device(part.span()));
    assert!(room >= 4 * quarter, "{room} pages of VRAM, not {ROOM}");
    let next = small(quarter / 2, Pattern::new(4));
    device.to_device(next.span());
    device.assert_all(next.span(), PageState::Device);
    device.assert_all(parts[3].span(), PageState::Device);
    device.assert_all(parts[2].span(), PageState::Device);
    let stayed = device.on_device(parts[0].span());
    assert!(stayed <= quarter / 2, "{stayed} of {quarter} pages of what was used longest ago stayed");
    (0..).zip(&parts).for_each(|(tag, part)| check(&device, part, 0..quarter, Pattern::new(tag)));
    next.check(Pattern::new(4));
}

fn pages_of_other_processes_make_room() {
    let _limited = Limited::to(ROOM);
    let (ready, go) = (Event::new(), Event::new());
    let start = |tag| {
        let (ready, go) = (&ready, &go);
        Child::spawn(move || {
            let pattern = Pattern::new(tag);
            let region = Region::huge(2);
            region.fill(pattern);
            Device::open().to_device(region.span());
            ready.signal();
            go.wait();
            region.check(pattern);
        })
    };
    let children = [start(1), start(2)];
    children.iter().for_each(|_| ready.wait());
    {
        let (device, pattern) = (Device::open(), Pattern::new(3));
        let region = Region::huge(2);
        region.fill(pattern);
        visit(&device, &region, 0..2 * HUGE, pattern);
        region.check(pattern);
    }
    children.iter().for_each(|_| go.signal());
    children.into_iter().for_each(Child::succeed);
}

fn two_processes_take_turns() {
    let _limited = Limited::to(ROOM);
    let start = |tag| {
        Child::spawn(move || {
            let (device, pattern) = (Device::open(), Pattern::new(tag));
            let region = Region::huge(ROOM / HUGE);
            region.fill(pattern);
            for round in 0..6 {
                let start = round % 3 * HUGE;
                // The other one may take the room back at once: what counts is that each gets it now and then.
                device.migrate(region.part(start..start + 2 * HUGE), Direction::ToDevice);
                check(&device, &region, start..start + HUGE, pattern);
            }
            region.check(pattern);
        })
    };
    let before = Device::open().count(Counter::BytesMigratedToDevice);
    [start(1), start(2)].into_iter().for_each(Child::succeed);
    assert!(Device::open().count(Counter::BytesMigratedToDevice) > before);
}

fn pinned_pages_make_no_room() {
    let _limited = Limited::to(ROOM);
    let (device, old, new) = (Device::open(), Pattern::new(1), Pattern::new(2));
    let full = device.free_pages() as usize;
    let region = on_device(&device, full, old);
    let pins = [Pin::new(&region, 0..4), Pin::new(&region, full / 2..full / 2 + 4)];
    let next = small(HUGE, new);
    device.to_device(next.span());
    device.assert_all(next.span(), PageState::Device);
    device.assert_all(region.part(0..4), PageState::Device);
    device.assert_all(region.part(full / 2..full / 2 + 4), PageState::Device);
    drop(pins);
    region.check(old);
    next.check(new);
}

/// Fills VRAM with small pages and brings back every second one.
fn fragmented(device: &Device, pattern: Pattern) -> Region {
    let region = small(device.free_pages() as usize, pattern);
    device.migrate(region.span(), Direction::ToDevice);
    for index in (0..region.pages()).step_by(2) {
        device.migrate(region.page(index), Direction::ToSystem);
    }
    region
}

fn a_huge_page_into_fragments() {
    let _limited = Limited::to(ROOM);
    let (device, old, new) = (Device::open(), Pattern::new(1), Pattern::new(2));
    let region = fragmented(&device, old);
    let huge = Region::huge(2);
    huge.fill(new);
    visit(&device, &huge, 0..2 * HUGE, new);
    huge.check(new);
    region.check(old);
}

fn a_huge_page_into_almost_none() {
    let _limited = Limited::to(ROOM);
    let (device, old, new) = (Device::open(), Pattern::new(1), Pattern::new(2));
    let region = small(device.free_pages() as usize - 100, old);
    device.to_device(region.span());
    let huge = Region::huge(1);
    huge.fill(new);
    visit(&device, &huge, 0..HUGE, new);
    huge.check(new);
    region.check(old);
}

fn small_pages_into_what_huge_pages_left() {
    let _limited = Limited::to(ROOM);
    let (device, old, new) = (Device::open(), Pattern::new(1), Pattern::new(2));
    let huge = Region::huge(ROOM / HUGE - 1);
    huge.fill(old);
    device.to_device(huge.span());
    // Odd parts of each.
    for count in 0..huge.pages() / HUGE {
        huge.unmap(count * HUGE + 33..count * HUGE + 77);
    }
    let small = small(HUGE + 2 * 44, new);
    visit(&device, &small, 0..HUGE + 2 * 44, new);
    small.check(new);
    huge.check_part(0..33, old);
    huge.check_part(77..HUGE, old);
}

fn faults_while_room_is_made() {
    let _limited = Limited::to(ROOM);
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::huge(2 * ROOM / HUGE);
    region.fill(pattern);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut dice = dice(1);
            for _ in 0..400 {
                let index = dice.usize(0..2 * ROOM);
                region.check_part(index..index + 1, pattern);
            }
        });
        for start in (0..2 * ROOM).step_by(ROOM / 4) {
            device.migrate(region.part(start..start + ROOM / 4), Direction::ToDevice);
        }
    });
    region.check(pattern);
}

fn eviction_on_request_of_a_full_device() {
    let _limited = Limited::to(ROOM);
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge_working_set(pattern);
    device.migrate(region.span(), Direction::ToDevice);
    let there = device.on_device(region.span()) as u64;
    let done = device.evict();
    assert_eq!((done.moved, done.left), (there, 0));
    assert_eq!(device.on_device(region.span()), 0);
    region.check(pattern);
}

fn all_of_it_is_free_again() {
    let _limited = Limited::to(ROOM);
    let device = Device::open();
    let free = device.free_pages();
    for round in 0..3 {
        let (one, other) = (Pattern::new(2 * round), Pattern::new(2 * round + 1));
        let region = huge_working_set(one);
        device.migrate(region.part(0..2 * ROOM), Direction::ToDevice);
        let small = small(HUGE + 5, other);
        device.migrate(small.span(), Direction::ToDevice);
        region.touch(0);
        small.check(other);
        drop((region, small));
        device.assert_free(free);
        let all = on_device(&device, free as usize, one);
        drop(all);
        device.assert_free(free);
    }
}

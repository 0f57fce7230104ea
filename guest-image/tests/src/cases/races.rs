// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages go away while a CPU's fault, or the device's reading, is on its way to them.

use std::sync::Barrier;
use std::thread;

use ersatz_uapi::Direction;
use nix::sys::mman::MmapAdvise;

use crate::device::Device;
use crate::pattern::{PAGE, dice};
use crate::region::Region;
use crate::suite::{Need, test_list};

test_list! { "races":
    zapping_while_a_cpu_touches.needs(&[Need::Private]).patience(2);
    zapping_while_cpus_touch_the_same_pages.patience(2);
    unmapping_beside_touched_pages.patience(2);
}

/// Pages in the range that two sides fight about.
const PAGES: usize = 64;
/// How often they do. Today's driver loses one round in twenty-five.
const ROUNDS: usize = 200;
/// The byte that pages are filled with.
const FULL: u8 = 0xa5;

fn fill(region: &Region, pages: std::ops::Range<usize>) {
    pages.for_each(|index| region.write(index, &[FULL; PAGE]));
}

/// Touches all pages, in an order that differs from round to round.
fn touch_all(region: &Region, round: usize) {
    for step in 0..PAGES {
        let index = (step * 37 + round) % PAGES;
        let byte = region.touch(index);
        assert!(byte == 0 || byte == FULL, "page {index} holds {byte:#04x}, which nobody wrote");
    }
}

/// A wait that differs from round to round, so that the sides meet anywhere in each other's way.
fn dawdle(dice: &mut fastrand::Rng) {
    (0..dice.u32(0..3000)).for_each(|_| std::hint::spin_loop());
}

fn zap(region: &Region) {
    region.advise(0..PAGES, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
}

/// Memory in small pages, each of which faults alone.
fn small_pages() -> Region {
    let region = Region::new(PAGES);
    region.advise(0..PAGES, MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
    region
}

/// A page that is gone by the time its fault is served is somebody else's doing, and no reason for SIGBUS.
fn zapping_while_a_cpu_touches() {
    let (device, region) = (Device::open(), small_pages());
    let begin = Barrier::new(3);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut dice = dice(1);
            for _ in 0..ROUNDS {
                begin.wait();
                dawdle(&mut dice);
                zap(&region);
                begin.wait();
            }
        });
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                begin.wait();
                device.try_digest(region.span()).expect("ERSATZ_IOC_DIGEST");
                begin.wait();
            }
        });
        for round in 0..ROUNDS {
            fill(&region, 0..PAGES);
            device.migrate(region.span(), Direction::ToDevice);
            begin.wait();
            touch_all(&region, round);
            begin.wait();
        }
    });
}

fn zapping_while_cpus_touch_the_same_pages() {
    let (device, region) = (Device::open(), small_pages());
    let begin = Barrier::new(3);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    begin.wait();
                    touch_all(&region, round);
                    begin.wait();
                }
            });
        }
        let mut dice = dice(1);
        for _ in 0..ROUNDS {
            fill(&region, 0..PAGES);
            device.migrate(region.span(), Direction::ToDevice);
            begin.wait();
            dawdle(&mut dice);
            zap(&region);
            begin.wait();
        }
    });
}

/// The kept half borders on what is unmapped: a fault that brings back more than its page reaches across.
fn unmapping_beside_touched_pages() {
    let device = Device::open();
    let begin = Barrier::new(2);
    let mut dice = dice(1);
    for round in 0..ROUNDS / 4 {
        let region = small_pages();
        fill(&region, 0..PAGES);
        device.migrate(region.span(), Direction::ToDevice);
        thread::scope(|scope| {
            scope.spawn(|| {
                begin.wait();
                for step in 0..PAGES / 2 {
                    let index = (step * 37 + round) % (PAGES / 2);
                    assert_eq!(region.touch(index), FULL, "page {index}");
                }
            });
            begin.wait();
            dawdle(&mut dice);
            region.unmap(PAGES / 2..PAGES);
        });
    }
}

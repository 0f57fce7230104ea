// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Threads touch, write and migrate the same memory at once.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use ersatz_abi::counter::Counter;
use ersatz_uapi::Direction;

use super::fixture::{assert_touched, on_device};
use crate::device::Device;
use crate::pattern::{PAGE, Pattern, dice};
use crate::region::{READ_WRITE, Region};
use crate::suite::test_list;

test_list! { "threads":
    faults_during_migrations.patience(2);
    increments_during_migrations_are_not_lost.patience(2);
    both_directions_at_once.patience(2);
    the_same_range_twice_at_once;
    one_page_faulted_by_all;
    ping_pong_between_writers.patience(2);
    ioctls_of_all_kinds_at_once.patience(2);
    remapping_during_migrations.patience(2);
    protecting_during_migrations.patience(2);
}

/// How often the region goes there and back while something else is done to it.
const CYCLES: usize = 40;

/// The migrations that run beside a test's own work.
struct Shuttle(AtomicBool);

impl Shuttle {
    /// Whether there are more to come.
    fn runs(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Repeats some work until there are no more, but does it once at least. It is the migrations that are counted: work
    /// that touches pages may be held up by each of them.
    fn repeat(&self, mut work: impl FnMut()) {
        work();
        while self.runs() {
            work();
        }
    }
}

/// Runs `body` while another thread migrates the region there and back; the device must have copied meanwhile.
fn beside_migrations(device: &Device, region: &Region, body: impl FnOnce(&Shuttle)) {
    let watch = device.watch();
    let shuttle = Shuttle(AtomicBool::new(true));
    // A thread maps a signal stack as it begins: not into a hole that a body makes, and unmaps again.
    let begun = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            begun.wait();
            for _ in 0..CYCLES {
                device.migrate(region.span(), Direction::ToDevice);
                device.migrate(region.span(), Direction::ToSystem);
            }
            shuttle.0.store(false, Ordering::Relaxed);
        });
        begun.wait();
        body(&shuttle);
    });
    let moved = watch.pages(Counter::BytesMigratedToDevice) + watch.pages(Counter::BytesFilled);
    assert!(moved > 0, "nothing went to the device meanwhile");
}

fn faults_during_migrations() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(128, pattern);
    beside_migrations(&device, &region, |shuttle| shuttle.repeat(|| region.check(pattern)));
    region.check(pattern);
}

fn increments_during_migrations_are_not_lost() {
    let device = Device::open();
    let region = Region::new(64);
    let number = |page: usize| region.atomic(page * PAGE + 8 * (page % 512));
    let rounds = AtomicU64::new(0);
    beside_migrations(&device, &region, |shuttle| {
        let count = || {
            shuttle.repeat(|| {
                (0..region.pages()).for_each(|page| _ = number(page).fetch_add(1, Ordering::Relaxed));
                rounds.fetch_add(1, Ordering::Relaxed);
            });
        };
        thread::scope(|scope| {
            scope.spawn(count);
            scope.spawn(count);
        });
    });
    for page in 0..region.pages() {
        assert_eq!(number(page).load(Ordering::Relaxed), rounds.load(Ordering::Relaxed), "increments of page {page}");
    }
}

fn both_directions_at_once() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(128, pattern);
    let watch = device.watch();
    let repeat = |direction| {
        for _ in 0..40 {
            device.migrate(region.span(), direction);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| repeat(Direction::ToDevice));
        scope.spawn(|| repeat(Direction::ToSystem));
    });
    assert!(watch.pages(Counter::BytesMigratedToDevice) > 0);
    region.check(pattern);
    device.to_device(region.span());
    device.assert_digests(region.span(), 128, |index| pattern.digest(index));
}

fn the_same_range_twice_at_once() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    for _ in 0..10 {
        let region = Region::filled(96, pattern);
        let start = Barrier::new(2);
        let watch = device.watch();
        let moved: u64 = thread::scope(|scope| {
            let send = || {
                start.wait();
                device.to_device(region.span())
            };
            let threads = [scope.spawn(send), scope.spawn(send)];
            threads.into_iter().map(|thread| thread.join().expect("a thread that migrates")).sum()
        });
        assert_eq!(moved, 96, "pages moved by both threads together");
        assert!(watch.pages(Counter::BytesMigratedToDevice) >= 96);
        device.assert_digests(region.span(), 96, |index| pattern.digest(index));
        region.check(pattern);
    }
}

fn one_page_faulted_by_all() {
    const THREADS: usize = 6;
    let (device, pattern) = (Device::open(), Pattern::new(1));
    for _ in 0..20 {
        let region = on_device(&device, 1, pattern);
        let start = Barrier::new(THREADS);
        let watch = device.watch();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    region.check(pattern);
                });
            }
        });
        let copied = watch.pages(Counter::BytesCpuFault);
        assert_eq!(copied > 0, !device.is_coherent(), "{copied} copies for CPU faults");
        assert!(copied <= THREADS as u64, "{copied} copies for {THREADS} touches");
    }
}

fn ping_pong_between_writers() {
    const ROUNDS: u64 = 100;
    let device = Device::open();
    let region = Region::new(4);
    let watch = device.watch();
    // Two threads take turns by a number that is in the migrating memory itself; each sends it to the device before
    // giving the turn away.
    let play = |own: u64| {
        let turn = region.atomic(0);
        for round in 0..ROUNDS {
            while turn.load(Ordering::Acquire) != 2 * round + own {
                thread::yield_now();
            }
            region.atomic(PAGE).fetch_add(1, Ordering::Relaxed);
            device.migrate(region.span(), Direction::ToDevice);
            turn.store(2 * round + own + 1, Ordering::Release);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| play(0));
        scope.spawn(|| play(1));
    });
    assert_eq!(region.atomic(PAGE).load(Ordering::Relaxed), 2 * ROUNDS);
    let moved = watch.pages(Counter::BytesMigratedToDevice) + watch.pages(Counter::BytesFilled);
    assert!(moved >= 4, "{moved} pages went to the device");
}

fn ioctls_of_all_kinds_at_once() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(64, pattern);
    beside_migrations(&device, &region, |shuttle| {
        thread::scope(|scope| {
            scope.spawn(|| {
                shuttle.repeat(|| {
                    let (digests, _) = device.try_digest(region.span()).expect("ERSATZ_IOC_DIGEST");
                    let wrong = (0..64).find(|&index| digests[index] != pattern.digest(index));
                    assert_eq!(wrong, None, "the page whose content the device read wrongly");
                });
            });
            scope.spawn(|| {
                shuttle.repeat(|| {
                    device.residency(region.span());
                    device.info();
                });
            });
        });
    });
    region.check(pattern);
}

fn remapping_during_migrations() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let arena = Region::filled(128, pattern);
    let mut dice = dice(1);
    beside_migrations(&device, &arena, |shuttle| {
        // A few pages at a time go, and others come, inside the range that is migrating and beside it.
        for _ in 0..8 {
            let start = dice.usize(0..120);
            arena.unmap(start..start + 8);
            let fresh = Region::filled(8, pattern);
            fresh.resize(16).check_part(0..8, pattern);
        }
        shuttle.repeat(|| drop(Region::filled(8, pattern)));
    });
    let mapped = device.residency(arena.span());
    for (index, state) in mapped.into_iter().enumerate() {
        if state != ersatz_uapi::PageState::None {
            arena.check_part(index..index + 1, pattern);
        }
    }
}

fn protecting_during_migrations() {
    use nix::sys::mman::ProtFlags;
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(96, pattern);
    let mut dice = dice(1);
    beside_migrations(&device, &region, |shuttle| {
        shuttle.repeat(|| {
            let start = dice.usize(0..80);
            region.protect(start..start + 16, ProtFlags::PROT_READ);
            region.check_part(start..start + 16, pattern);
            region.protect(start..start + 16, READ_WRITE);
            region.write(start, &pattern.page(start));
        });
    });
    let watch = device.watch();
    device.to_device(region.span());
    region.check(pattern);
    assert_touched(&device, &watch, &region, 96);
}

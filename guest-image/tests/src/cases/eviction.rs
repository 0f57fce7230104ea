// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device is emptied on request, whoever the pages belong to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ersatz_abi::counter::Counter;
use ersatz_uapi::{Direction, PageState};

use super::fixture::on_device;
use crate::device::Device;
use crate::pattern::Pattern;
use crate::process::{Child, Event};
use crate::region::Region;
use crate::suite::test_list;

test_list! { "eviction":
    moves_everything;
    of_an_empty_device_is_idle;
    takes_pages_of_other_processes;
    takes_pages_shared_by_fork;
    during_migrations.patience(2);
    during_faults.patience(2);
    by_several_during_faults.patience(6);
}

/// Evicts until nothing is left: pages may be busy for a moment. Returns how many pages moved.
fn evict_all(device: &Device) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut moved = 0;
    loop {
        let done = device.evict();
        moved += done.moved;
        if done.left == 0 {
            return moved;
        }
        assert!(Instant::now() < deadline, "{} pages never leave the device", done.left);
        thread::sleep(Duration::from_millis(2));
    }
}

fn moves_everything() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 150, pattern);
    let watch = device.watch();
    assert_eq!(evict_all(&device), 150);
    watch.assert_pages(Counter::BytesEvicted, 150);
    watch.assert_pages(Counter::BytesToSystem, 150);
    device.assert_all(region.span(), PageState::System);
    region.check(pattern);
    watch.assert_pages(Counter::BytesCpuFault, 0);
}

fn of_an_empty_device_is_idle() {
    let device = Device::open();
    evict_all(&device);
    let watch = device.watch();
    let done = device.evict();
    assert_eq!((done.moved, done.left), (0, 0));
    watch.assert_pages(Counter::BytesEvicted, 0);
}

fn takes_pages_of_other_processes() {
    let device = Device::open();
    let (ready, go) = (Event::new(), Event::new());
    let start = |tag| {
        let (ready, go) = (&ready, &go);
        Child::spawn(move || {
            let (device, pattern) = (Device::open(), Pattern::new(tag));
            let region = Region::filled(60, pattern);
            device.to_device(region.span());
            ready.signal();
            go.wait();
            device.assert_all(region.span(), PageState::System);
            region.check(pattern);
        })
    };
    let children = [start(1), start(2)];
    children.iter().for_each(|_| ready.wait());
    let watch = device.watch();
    assert_eq!(evict_all(&device), 120);
    watch.assert_pages(Counter::BytesEvicted, 120);
    children.iter().for_each(|_| go.signal());
    children.into_iter().for_each(Child::succeed);
}

fn takes_pages_shared_by_fork() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 40, pattern);
    let (go, written) = (Event::new(), Event::new());
    let child = Child::spawn(|| {
        go.wait();
        region.check(pattern);
        region.fill(Pattern::new(2));
        written.signal();
    });
    let watch = device.watch();
    assert_eq!(evict_all(&device), 40);
    watch.assert_pages(Counter::BytesEvicted, 40);
    go.signal();
    written.wait();
    region.check(pattern);
    child.succeed();
}

fn during_migrations() {
    const MIGRATIONS: usize = 80;
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(128, pattern);
    let done = AtomicBool::new(false);
    let watch = device.watch();
    let evicted = thread::scope(|scope| {
        scope.spawn(|| {
            (0..MIGRATIONS).for_each(|_| _ = device.migrate(region.span(), Direction::ToDevice));
            done.store(true, Ordering::Relaxed);
        });
        let mut evicted = 0;
        while !done.load(Ordering::Relaxed) {
            evicted += device.evict().moved;
        }
        evicted
    });
    let evicted = evicted + evict_all(&device);
    // A page may be copied, and stay after all because somebody touched it meanwhile.
    assert!(evicted > 0 && watch.pages(Counter::BytesEvicted) >= evicted, "{evicted} pages were evicted");
    region.check(pattern);
}

fn during_faults() {
    evict_during_faults(1, 25);
}

/// Each thread that evicts tries to isolate what others have isolated or moved, and so holds a reference to it for a moment. A driver that
/// asks twice whether a folio is held, before it gives it a destination and before it copies it, moves folios without their content.
/// One that moves what has moved already hangs the kernel.
fn by_several_during_faults() {
    evict_during_faults(4, 40);
}

/// Moves pages to the device and touches them, `rounds` times, while threads evict what is there.
fn evict_during_faults(threads: usize, rounds: usize) {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(96, pattern);
    let watch = device.watch();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    device.evict();
                }
            });
        }
        for _ in 0..rounds {
            device.migrate(region.span(), Direction::ToDevice);
            if let Err(panic) = std::panic::catch_unwind(|| region.check(pattern)) {
                stop.store(true, Ordering::Relaxed);
                std::panic::resume_unwind(panic);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(watch.pages(Counter::BytesMigratedToDevice) >= 96);
    assert_eq!(watch.count(Counter::ChannelErrors), 0);
    region.check(pattern);
}

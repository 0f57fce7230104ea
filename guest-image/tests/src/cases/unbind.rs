// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver is taken off the device with pages still there, and put back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ersatz_abi::counter::Counter;
use ersatz_uapi::Direction;
use nix::errno::Errno;

use super::fixture::on_device;
use crate::bus::Function;
use crate::device::Device;
use crate::pattern::Pattern;
use crate::process::{Child, Event};
use crate::region::Region;
use crate::suite::test_list;

test_list! { "unbind":
    pages_come_back_to_system_memory.disruptive().patience(2);
    open_files_are_told.disruptive().patience(2);
    pages_of_other_processes_come_back.disruptive().patience(2);
    ten_times.disruptive().patience(3);
    during_migrations.disruptive().patience(3);
    a_file_open_across_it_stays_dead.disruptive().patience(2);
}

/// Sends content to the device, and asserts that a device bound anew works as a whole.
fn assert_works() {
    let (device, pattern) = (Device::open(), Pattern::new(99));
    let region = on_device(&device, 32, pattern);
    device.assert_digests(region.span(), 32, |index| pattern.digest(index));
    device.to_system(region.span());
    region.check(pattern);
}

fn pages_come_back_to_system_memory() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let function = Function::of(&device);
    let region = on_device(&device, 200, pattern);
    drop(device);
    function.unbind();
    let copied = function.counter(Counter::BytesUnbind) / crate::pattern::PAGE as u64;
    assert!(copied >= 200, "the device copied {copied} pages for the unbind");
    region.check(pattern);
    function.bind();
    region.check(pattern);
    assert_works();
}

fn open_files_are_told() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let function = Function::of(&device);
    let region = on_device(&device, 64, pattern);
    function.unbind();
    assert_eq!(device.try_info().unwrap_err(), Errno::ENODEV);
    assert_eq!(device.try_counters().unwrap_err(), Errno::ENODEV);
    assert_eq!(device.try_migrate(region.span(), Direction::ToDevice).unwrap_err(), Errno::ENODEV);
    assert_eq!(device.try_digest(region.span()).unwrap_err(), Errno::ENODEV);
    region.check(pattern);
    drop(device);
    function.bind();
    assert_works();
}

fn pages_of_other_processes_come_back() {
    let function = Function::of(&Device::open());
    let (ready, go) = (Event::new(), Event::new());
    let start = |tag| {
        let (ready, go) = (&ready, &go);
        Child::spawn(move || {
            let pattern = Pattern::new(tag);
            let region = Region::filled(64, pattern);
            Device::open().to_device(region.span());
            ready.signal();
            go.wait();
            region.check(pattern);
        })
    };
    let children = [start(1), start(2), start(3)];
    children.iter().for_each(|_| ready.wait());
    function.unbind();
    assert!(function.counter(Counter::BytesUnbind) >= 192 * crate::pattern::PAGE as u64);
    children.iter().for_each(|_| go.signal());
    children.into_iter().for_each(Child::succeed);
    function.bind();
    assert_works();
}

fn ten_times() {
    let pattern = Pattern::new(1);
    let function = Function::of(&Device::open());
    let region = Region::filled(48, pattern);
    for _ in 0..10 {
        let device = Device::open();
        device.to_device(region.span());
        device.assert_digests(region.span(), 48, |index| pattern.digest(index));
        drop(device);
        function.unbind();
        function.bind();
    }
    region.check(pattern);
    assert_works();
}

fn during_migrations() {
    let pattern = Pattern::new(1);
    let region = Region::filled(128, pattern);
    for _ in 0..3 {
        let device = Device::open();
        let function = Function::of(&device);
        let started = AtomicBool::new(false);
        thread::scope(|scope| {
            let migrations = scope.spawn(|| {
                loop {
                    let there = device.try_migrate(region.span(), Direction::ToDevice);
                    started.store(true, Ordering::Relaxed);
                    if let Err(error) = there.and_then(|_| device.try_migrate(region.span(), Direction::ToSystem)) {
                        return error;
                    }
                }
            });
            while !started.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            function.unbind();
            assert_eq!(migrations.join().expect("the thread that migrates"), Errno::ENODEV);
        });
        region.check(pattern);
        drop(device);
        function.bind();
    }
    assert_works();
}

fn a_file_open_across_it_stays_dead() {
    let old = Device::open();
    let function = Function::of(&old);
    function.unbind();
    function.bind();
    assert_eq!(old.try_info().unwrap_err(), Errno::ENODEV);
    assert_works();
    drop(old);
    assert_works();
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver is taken off the device with pages still there, and put back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ersatz_abi::counter::Counter;
use ersatz_uapi::Direction;
use nix::errno::Errno;

use super::cpu::run_on;
use super::fixture::{assert_works, beside_owners, on_device, send};
use crate::bus::Function;
use crate::config_space::{self, ConfigSpace};
use crate::device::Device;
use crate::pattern::Pattern;
use crate::region::Region;
use crate::suite::test_list;

test_list! { "unbind":
    pages_come_back_to_system_memory.disruptive().patience(2);
    open_files_are_told.disruptive().patience(2);
    pages_of_other_processes_come_back.disruptive().patience(2);
    ten_times.disruptive().patience(3);
    during_migrations.disruptive().patience(3);
    a_file_open_across_it_stays_dead.disruptive().patience(2);
    calls_that_end_with_it_leave_the_next_driver_alone.disruptive().patience(3);
    pages_locked_on_an_idle_cpu_do_not_hold_it_up.disruptive().patience(2);
}

fn pages_come_back_to_system_memory() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let function = Function::of(&device);
    let region = on_device(&device, 200, pattern);
    drop(device);
    function.evacuate(200, || function.unbind());
    region.check(pattern);
    function.bind();
    region.check(pattern);
    assert_works();
}

fn open_files_are_told() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let function = Function::of(&device);
    let region = on_device(&device, 64, pattern);
    function.evacuate(64, || function.unbind());
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
    beside_owners(3, 64, || function.evacuate(192, || function.unbind()));
    function.bind();
    assert_works();
}

fn ten_times() {
    let pattern = Pattern::new(1);
    let function = Function::of(&Device::open());
    let region = Region::filled(48, pattern);
    for _ in 0..10 {
        let device = Device::open();
        send(&device, &region);
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
        let before = device.count(Counter::BytesMigratedToDevice);
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
            let migrated = function.counter(Counter::BytesMigratedToDevice);
            assert!(migrated > before, "nothing went to the device before it was unbound");
            assert_eq!(migrations.join().expect("the thread that migrates"), Errno::ENODEV);
        });
        region.check(pattern);
        drop(device);
        function.bind();
    }
    assert_works();
}

/// What a call holds of a device must not outlive that: its end would take bus mastering, or DMA memory, from the driver that comes next.
fn calls_that_end_with_it_leave_the_next_driver_alone() {
    for _ in 0..20 {
        let device = Device::open();
        let function = Function::of(&device);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| while device.try_info().is_ok() {});
            }
            function.unbind();
            function.bind();
        });
        let command = ConfigSpace::of(&function).read16(config_space::COMMAND);
        assert_ne!(command & config_space::COMMAND_MASTER, 0, "the bound device may not master the bus");
        assert_works();
    }
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

/// A coherent page that is unmapped while it is locked stays referenced in a list of the CPU that did it.
fn pages_locked_on_an_idle_cpu_do_not_hold_it_up() {
    let function = Function::of(&Device::open());
    for _ in 0..5 {
        let (device, pattern) = (Device::open(), Pattern::new(1));
        run_on(1);
        let region = Region::filled(8, pattern);
        region.lock();
        send(&device, &region);
        device.assert_digests(region.span(), 8, |index| pattern.digest(index));
        region.check(pattern);
        drop(region);
        run_on(0);
        drop(device);
        function.unbind();
        function.bind();
    }
    assert_works();
}

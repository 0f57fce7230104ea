// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver module is unloaded and loaded again, with pages on the device and with open files.

use nix::errno::Errno;

use super::fixture::on_device;
use crate::bus::{load, unload, wait_for_device};
use crate::device::Device;
use crate::pattern::Pattern;
use crate::process::{Child, Event};
use crate::region::Region;
use crate::suite::test_list;

test_list! { "module":
    an_open_file_keeps_it.disruptive();
    pages_survive_unloading.disruptive().patience(2);
    pages_of_other_processes_survive_unloading.disruptive().patience(2);
    reloading_five_times.disruptive().patience(3);
    parameters_survive_reloading.disruptive().patience(2);
}

fn assert_works() {
    let (device, pattern) = (Device::open(), Pattern::new(99));
    let region = on_device(&device, 32, pattern);
    device.assert_digests(region.span(), 32, |index| pattern.digest(index));
    device.to_system(region.span());
    region.check(pattern);
}

fn reload() {
    unload().expect("unloading the driver");
    wait_for_device(false);
    load();
}

fn an_open_file_keeps_it() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 32, pattern);
    assert_eq!(unload().unwrap_err(), Errno::EWOULDBLOCK);
    device.assert_digests(region.span(), 32, |index| pattern.digest(index));
    region.check(pattern);
}

fn pages_survive_unloading() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 200, pattern);
    drop(device);
    unload().expect("unloading the driver");
    region.check(pattern);
    wait_for_device(false);
    load();
    assert_works();
    region.check(pattern);
}

fn pages_of_other_processes_survive_unloading() {
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
    let children = [start(1), start(2)];
    children.iter().for_each(|_| ready.wait());
    unload().expect("unloading the driver");
    children.iter().for_each(|_| go.signal());
    children.into_iter().for_each(Child::succeed);
    load();
    assert_works();
}

fn reloading_five_times() {
    let pattern = Pattern::new(1);
    let region = Region::filled(64, pattern);
    for _ in 0..5 {
        let device = Device::open();
        device.to_device(region.span());
        device.assert_digests(region.span(), 64, |index| pattern.digest(index));
        drop(device);
        reload();
    }
    region.check(pattern);
    assert_works();
}

fn parameters_survive_reloading() {
    let before = Device::open().info();
    reload();
    let after = Device::open().info();
    assert_eq!(after.memory_type, before.memory_type);
    assert_eq!(after.vram_bytes, before.vram_bytes);
    assert_eq!(after.pci_address, before.pci_address);
    assert_eq!(after.cpu_faults, 0, "a driver loaded anew has answered no fault yet");
    assert_works();
}

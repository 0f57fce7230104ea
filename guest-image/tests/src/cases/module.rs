// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver module is unloaded and loaded again, with pages on the device and with open files.

use nix::errno::Errno;

use super::fixture::{assert_works, beside_owners, on_device, send};
use crate::bus::{Function, load, unload, wait_for_device};
use crate::device::Device;
use crate::pattern::Pattern;
use crate::region::Region;
use crate::suite::test_list;

test_list! { "module":
    an_open_file_keeps_it.disruptive();
    pages_survive_unloading.disruptive().patience(2);
    pages_of_other_processes_survive_unloading.disruptive().patience(2);
    reloading_five_times.disruptive().patience(3);
    parameters_survive_reloading.disruptive().patience(2);
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
    let function = Function::of(&device);
    let region = on_device(&device, 200, pattern);
    drop(device);
    function.evacuate(200, || unload().expect("unloading the driver"));
    region.check(pattern);
    wait_for_device(false);
    load();
    assert_works();
    region.check(pattern);
}

fn pages_of_other_processes_survive_unloading() {
    let function = Function::of(&Device::open());
    beside_owners(2, 64, || function.evacuate(128, || unload().expect("unloading the driver")));
    load();
    assert_works();
}

fn reloading_five_times() {
    let pattern = Pattern::new(1);
    let region = Region::filled(64, pattern);
    for _ in 0..5 {
        let device = Device::open();
        send(&device, &region);
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

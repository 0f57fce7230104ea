// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Several processes use the device, and end in every way.

use std::time::Duration;

use ersatz_abi::counter::Counter;
use ersatz_uapi::Direction;
use nix::sys::signal::Signal;

use super::fixture::on_device;
use super::setting;
use crate::device::Device;
use crate::pattern::{PAGE, Pattern, dice};
use crate::process::{Child, Event};
use crate::region::Region;
use crate::suite::test_list;

test_list! { "processes":
    exit_frees_vram;
    sigkill_frees_vram;
    sigkill_during_migrations.patience(2);
    exec_frees_vram;
    pages_outlive_the_file;
    an_inherited_file_serves_the_caller;
    several_files_of_one_process;
    two_processes_keep_apart;
    four_processes_at_once.patience(2);
}

fn exit_frees_vram() {
    let device = Device::open();
    let free = device.free_pages();
    let watch = device.watch();
    Child::spawn(|| std::mem::forget(on_device(&Device::open(), 100, Pattern::new(1)))).succeed();
    watch.assert_pages(Counter::BytesMigratedToDevice, 100);
    device.assert_free(free);
    watch.assert_pages(Counter::BytesToSystem, 0);
}

fn sigkill_frees_vram() {
    let device = Device::open();
    let free = device.free_pages();
    let ready = Event::new();
    let child = Child::spawn(|| {
        let _region = on_device(&Device::open(), 100, Pattern::new(1));
        ready.signal();
        std::thread::sleep(Duration::MAX);
    });
    ready.wait();
    assert_eq!(device.free_pages(), free - 100);
    child.signal(Signal::SIGKILL);
    child.die_of(Signal::SIGKILL);
    device.assert_free(free);
}

fn sigkill_during_migrations() {
    let device = Device::open();
    let free = device.free_pages();
    let watch = device.watch();
    for round in 0..20 {
        let started = Event::new();
        let child = Child::spawn(|| {
            let device = Device::open();
            let region = Region::filled(200, Pattern::new(1));
            started.signal();
            loop {
                device.migrate(region.span(), Direction::ToDevice);
                device.migrate(region.span(), Direction::ToSystem);
            }
        });
        started.wait();
        std::thread::sleep(Duration::from_micros(dice(round).u64(0..8_000)));
        child.signal(Signal::SIGKILL);
        child.die_of(Signal::SIGKILL);
    }
    assert!(watch.pages(Counter::BytesMigratedToDevice) > 0, "no migration was under way in any round");
    device.assert_free(free);
}

fn exec_frees_vram() {
    use std::os::unix::process::CommandExt;
    let device = Device::open();
    let free = device.free_pages();
    let watch = device.watch();
    Child::spawn(|| {
        std::mem::forget(on_device(&Device::open(), 50, Pattern::new(1)));
        let error =
            std::process::Command::new("/proc/self/exe").arg("--list").stdout(std::process::Stdio::null()).exec();
        panic!("exec: {error}");
    })
    .succeed();
    watch.assert_pages(Counter::BytesMigratedToDevice, 50);
    device.assert_free(free);
}

fn pages_outlive_the_file() {
    let pattern = Pattern::new(1);
    let _chunk = setting::fault_chunk(PAGE);
    let device = Device::open();
    let region = on_device(&device, 32, pattern);
    drop(device);
    region.check_part(0..16, pattern);
    let device = Device::open();
    let in_vram = if device.is_coherent() { 32 } else { 16 };
    device.assert_digests(region.span(), in_vram, |index| pattern.digest(index));
    region.check(pattern);
}

fn an_inherited_file_serves_the_caller() {
    let (device, parents, childs) = (Device::open(), Pattern::new(1), Pattern::new(2));
    let region = Region::filled(16, parents);
    let (sent, looked) = (Event::new(), Event::new());
    let watch = device.watch();
    let child = Child::spawn(|| {
        region.fill(childs);
        device.to_device(region.span());
        device.assert_digests(region.span(), 16, |index| childs.digest(index));
        sent.signal();
        looked.wait();
    });
    sent.wait();
    watch.assert_pages(Counter::BytesMigratedToDevice, 16);
    assert_eq!(device.on_device(region.span()), 0, "the child's ioctl moved the parent's pages");
    device.assert_digests(region.span(), 0, |index| parents.digest(index));
    looked.signal();
    child.succeed();
    region.check(parents);
}

fn several_files_of_one_process() {
    let pattern = Pattern::new(1);
    let devices: Vec<Device> = (0..8).map(|_| Device::open()).collect();
    let region = Region::filled(64, pattern);
    let watch = devices[0].watch();
    for (index, device) in devices.iter().enumerate() {
        assert_eq!(device.to_device(region.part(8 * index..8 * index + 8)), 8);
    }
    watch.assert_pages(Counter::BytesMigratedToDevice, 64);
    let mut devices = devices.into_iter();
    let last = devices.next_back().expect("there are eight");
    drop(devices);
    last.assert_digests(region.span(), 64, |index| pattern.digest(index));
    region.check(pattern);
}

fn two_processes_keep_apart() {
    let device = Device::open();
    let (first, second) = (Pattern::new(1), Pattern::new(2));
    let (ready, go) = (Event::new(), Event::new());
    let start = |pattern: Pattern| {
        let (ready, go) = (&ready, &go);
        Child::spawn(move || {
            let device = Device::open();
            let region = on_device_shared(&device, 64, pattern);
            ready.signal();
            go.wait();
            device.assert_digests(region.span(), 64, |index| pattern.digest(index));
            region.check(pattern);
        })
    };
    let watch = device.watch();
    let children = [start(first), start(second)];
    children.iter().for_each(|_| ready.wait());
    watch.assert_pages(Counter::BytesMigratedToDevice, 128);
    children.iter().for_each(|_| go.signal());
    children.into_iter().for_each(Child::succeed);
}

/// As [`on_device`], while other processes move the counters too.
fn on_device_shared(device: &Device, pages: usize, pattern: Pattern) -> Region {
    let region = Region::filled(pages, pattern);
    assert_eq!(device.to_device(region.span()), pages as u64);
    region
}

fn four_processes_at_once() {
    const ROUNDS: u64 = 15;
    let device = Device::open();
    let watch = device.watch();
    let start = |who: u64| {
        Child::spawn(move || {
            let device = Device::open();
            for round in 0..ROUNDS {
                let pattern = Pattern::new(100 * who + round);
                let region = on_device_shared(&device, 48, pattern);
                device.assert_digests(region.span(), 48, |index| pattern.digest(index));
                region.check_part(0..24, pattern);
                device.to_system(region.span());
                region.check(pattern);
            }
        })
    };
    let children: Vec<Child> = (1..=4).map(start).collect();
    children.into_iter().for_each(Child::succeed);
    watch.assert_pages(Counter::BytesMigratedToDevice, 4 * 48 * ROUNDS as usize);
    let back = watch.pages(Counter::BytesMigratedToSystem) + watch.pages(Counter::BytesCpuFault);
    assert_eq!(back, 4 * 48 * ROUNDS, "pages that came back, one way or the other");
}

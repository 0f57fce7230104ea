// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages on the device are shared by fork and copied on write, whoever comes first.

use ersatz_abi::counter::Counter;

use super::fixture::{assert_touched, on_device};
use crate::device::Device;
use crate::pattern::Pattern;
use crate::process::{Child, Event};
use crate::region::Region;
use crate::suite::test_list;

test_list! { "fork":
    child_reads_first;
    parent_reads_first;
    child_writes_first;
    parent_writes_first;
    both_write_the_same_pages;
    child_exits_with_pages_on_the_device;
    parent_exits_first;
    child_sends_what_it_inherited;
    shared_pages_go_to_the_device;
    grandchildren;
    eight_children_at_once;
    device_reads_what_each_process_has;
}

fn child_reads_first() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 32, pattern);
    let watch = device.watch();
    Child::spawn(|| region.check(pattern)).succeed();
    assert_faulted(&device, watch.pages(Counter::BytesCpuFault), 32);
    region.check(pattern);
}

fn parent_reads_first() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 32, pattern);
    let go = Event::new();
    let child = Child::spawn(|| {
        go.wait();
        region.check(pattern);
    });
    let watch = device.watch();
    region.check(pattern);
    assert_touched(&device, &watch, &region, 32);
    go.signal();
    child.succeed();
    region.check(pattern);
}

fn child_writes_first() {
    let (device, parents, childs) = (Device::open(), Pattern::new(1), Pattern::new(2));
    let region = on_device(&device, 32, parents);
    let watch = device.watch();
    Child::spawn(|| {
        region.fill(childs);
        region.check(childs);
    })
    .succeed();
    assert_faulted(&device, watch.pages(Counter::BytesCpuFault), 32);
    region.check(parents);
}

fn parent_writes_first() {
    let (device, old, new) = (Device::open(), Pattern::new(1), Pattern::new(2));
    let region = on_device(&device, 32, old);
    let go = Event::new();
    let child = Child::spawn(|| {
        go.wait();
        region.check(old);
    });
    let watch = device.watch();
    region.fill(new);
    assert_faulted(&device, watch.pages(Counter::BytesCpuFault), 32);
    go.signal();
    child.succeed();
    region.check(new);
}

fn both_write_the_same_pages() {
    let (device, old) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 64, old);
    let watch = device.watch();
    let child = Child::spawn(|| {
        for index in 0..64 {
            region.write(index, &Pattern::new(2).page(index));
        }
        region.check(Pattern::new(2));
    });
    for index in (0..64).rev() {
        region.write(index, &Pattern::new(3).page(index));
    }
    region.check(Pattern::new(3));
    child.succeed();
    region.check(Pattern::new(3));
    let faulted = watch.pages(Counter::BytesCpuFault);
    assert_eq!(faulted > 0, !device.is_coherent(), "{faulted} pages came back by CPU faults");
}

fn child_exits_with_pages_on_the_device() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 32, pattern);
    let watch = device.watch();
    Child::spawn(|| {}).succeed();
    watch.assert_pages(Counter::BytesToSystem, 0);
    device.assert_digests(region.span(), 32, |index| pattern.digest(index));
    region.check(pattern);
}

fn parent_exits_first() {
    let pattern = Pattern::new(1);
    let (gone, done) = (Event::new(), Event::new());
    let parent = Child::spawn(|| {
        let device = Device::open();
        let region = on_device(&device, 32, pattern);
        let child = Child::spawn(|| {
            gone.wait();
            device.assert_digests(region.span(), 32, |index| pattern.digest(index));
            let watch = device.watch();
            region.check(pattern);
            assert_touched(&device, &watch, &region, 32);
            done.signal();
        });
        std::mem::forget(child);
    });
    parent.succeed();
    gone.signal();
    done.wait();
}

fn child_sends_what_it_inherited() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(24, pattern);
    let watch = device.watch();
    Child::spawn(|| {
        let device = Device::open();
        device.to_device(region.span());
        device.assert_digests(region.span(), 24, |index| pattern.digest(index));
        region.check(pattern);
    })
    .succeed();
    watch.assert_pages(Counter::BytesMigratedToDevice, 24);
    region.check(pattern);
}

fn shared_pages_go_to_the_device() {
    let (device, old, new) = (Device::open(), Pattern::new(1), Pattern::new(2));
    let region = Region::filled(24, old);
    let (go, written) = (Event::new(), Event::new());
    let child = Child::spawn(|| {
        go.wait();
        region.check(old);
        region.fill(new);
        written.signal();
        region.check(new);
    });
    // Mapped by two processes, the pages move in both.
    let watch = device.watch();
    device.to_device(region.span());
    watch.assert_pages(Counter::BytesMigratedToDevice, 24);
    device.assert_digests(region.span(), 24, |index| old.digest(index));
    go.signal();
    written.wait();
    region.check(old);
    child.succeed();
}

fn grandchildren() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 16, pattern);
    let watch = device.watch();
    Child::spawn(|| {
        region.write(0, &Pattern::new(2).page(0));
        Child::spawn(|| {
            region.check_part(0..1, Pattern::new(2));
            region.fill(Pattern::new(3));
            region.check(Pattern::new(3));
        })
        .succeed();
        region.check_part(0..1, Pattern::new(2));
        region.check_part(1..16, pattern);
    })
    .succeed();
    region.check(pattern);
    let faulted = watch.pages(Counter::BytesCpuFault);
    assert_eq!(faulted > 0, !device.is_coherent(), "{faulted} pages came back by CPU faults");
}

fn eight_children_at_once() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 64, pattern);
    let go = Event::new();
    let start = |tag: u64| {
        let region = &region;
        let go = &go;
        Child::spawn(move || {
            go.wait();
            region.check(pattern);
            region.fill(Pattern::new(tag));
            region.check(Pattern::new(tag));
        })
    };
    let children: Vec<Child> = (10..18).map(start).collect();
    let watch = device.watch();
    children.iter().for_each(|_| go.signal());
    children.into_iter().for_each(Child::succeed);
    region.check(pattern);
    let faulted = watch.pages(Counter::BytesCpuFault);
    assert_eq!(faulted > 0, !device.is_coherent(), "{faulted} pages came back by CPU faults");
}

fn device_reads_what_each_process_has() {
    let (device, parents, childs) = (Device::open(), Pattern::new(1), Pattern::new(2));
    let region = on_device(&device, 16, parents);
    Child::spawn(|| {
        let device = Device::open();
        region.fill(childs);
        device.to_device(region.span());
        device.assert_digests(region.span(), 16, |index| childs.digest(index));
    })
    .succeed();
    device.to_device(region.span());
    device.assert_digests(region.span(), 16, |index| parents.digest(index));
    region.check(parents);
}

/// Asserts how many pages came back by CPU faults: none if the CPU uses VRAM in place.
fn assert_faulted(device: &Device, faulted: u64, touched: u64) {
    assert_eq!(faulted, if device.is_coherent() { 0 } else { touched }, "pages that came back by CPU faults");
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Protection holds on the device as it does in system memory.

use ersatz_abi::counter::Counter;
use nix::sys::mman::ProtFlags;
use nix::sys::signal::Signal;

use super::fixture::{assert_touched, on_device, send};
use crate::device::Device;
use crate::pattern::Pattern;
use crate::process::Child;
use crate::region::{READ_WRITE, Region};
use crate::suite::test_list;

test_list! { "protection":
    read_only_memory_there_and_back;
    read_only_memory_cannot_be_written_afterwards;
    made_read_only_on_the_device;
    made_writable_on_the_device;
    made_inaccessible_on_the_device;
    inaccessible_memory_keeps_its_content;
    split_by_protection_on_the_device;
}

/// Asserts that a write to a page kills the process that tries.
fn assert_write_is_refused(region: &Region, index: usize) {
    Child::spawn(|| region.write(index, &[0xff; 4096])).die_of(Signal::SIGSEGV);
}

fn read_only_memory_there_and_back() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(24, pattern);
    region.protect(0..24, ProtFlags::PROT_READ);
    send(&device, &region);
    device.assert_digests(region.span(), 24, |index| pattern.digest(index));
    let watch = device.watch();
    region.check_part(0..12, pattern);
    assert_touched(&device, &watch, &region, 12);
    device.to_system(region.span());
    region.check(pattern);
}

fn read_only_memory_cannot_be_written_afterwards() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(4, pattern);
    region.protect(0..4, ProtFlags::PROT_READ);
    send(&device, &region);
    assert_write_is_refused(&region, 0);
    region.check(pattern);
    assert_write_is_refused(&region, 1);
    device.to_device(region.span());
    device.to_system(region.span());
    assert_write_is_refused(&region, 2);
    region.check(pattern);
}

fn made_read_only_on_the_device() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 16, pattern);
    region.protect(0..16, ProtFlags::PROT_READ);
    device.assert_digests(region.span(), 16, |index| pattern.digest(index));
    assert_write_is_refused(&region, 3);
    let watch = device.watch();
    device.to_device(region.span());
    let moved = watch.pages(Counter::BytesMigratedToDevice);
    assert!(moved <= 1, "{moved} pages had left the device, of which only one was touched");
    region.check(pattern);
    assert_write_is_refused(&region, 4);
}

fn made_writable_on_the_device() {
    let (device, before, after) = (Device::open(), Pattern::new(1), Pattern::new(2));
    let region = Region::filled(16, before);
    region.protect(0..16, ProtFlags::PROT_READ);
    send(&device, &region);
    region.protect(0..16, READ_WRITE);
    let watch = device.watch();
    region.fill(after);
    assert_touched(&device, &watch, &region, 16);
    device.to_device(region.span());
    device.assert_digests(region.span(), 16, |index| after.digest(index));
    region.check(after);
}

fn made_inaccessible_on_the_device() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 16, pattern);
    region.protect(0..16, ProtFlags::PROT_NONE);
    Child::spawn(|| _ = region.touch(0)).die_of(Signal::SIGSEGV);
    region.protect(0..16, READ_WRITE);
    let watch = device.watch();
    region.check(pattern);
    let faulted = watch.pages(Counter::BytesCpuFault);
    assert_eq!(faulted, if device.is_coherent() { 0 } else { 16 }, "pages that came back by CPU faults");
}

fn inaccessible_memory_keeps_its_content() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(16, pattern);
    region.protect(0..16, ProtFlags::PROT_NONE);
    let watch = device.watch();
    let done = device.migrate(region.span(), ersatz_uapi::Direction::ToDevice);
    assert_eq!(done.moved + done.left, 16);
    watch.assert_pages(Counter::BytesMigratedToDevice, done.moved as usize);
    region.protect(0..16, READ_WRITE);
    region.check(pattern);
}

fn split_by_protection_on_the_device() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 48, pattern);
    region.protect(16..32, ProtFlags::PROT_READ);
    device.assert_digests(region.span(), 48, |index| pattern.digest(index));
    let watch = device.watch();
    assert_eq!(device.to_system(region.span()), 48);
    watch.assert_pages(Counter::BytesMigratedToSystem, 48);
    region.check(pattern);
    assert_write_is_refused(&region, 20);
    region.write(0, &pattern.page(1));
    region.write(47, &pattern.page(1));
}

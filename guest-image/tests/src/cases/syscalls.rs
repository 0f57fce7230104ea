// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel itself, on behalf of system calls, reads and writes memory that is on the device.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::slice;

use ersatz_abi::counter::Counter;
use nix::fcntl::{OFlag, SpliceFFlags, vmsplice};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};

use super::fixture::{assert_touched, on_device};
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::process::{Child, Event, pipe};
use crate::region::Region;
use crate::suite::test_list;

test_list! { "syscalls":
    write_from_the_device;
    read_onto_the_device;
    process_vm_readv_from_another_process;
    process_vm_writev_from_another_process;
    proc_mem_of_another_process;
    vmsplice_from_the_device;
    direct_io_on_the_device;
    a_futex_on_the_device;
}

/// The region's bytes, for a system call that takes a slice.
///
/// # Safety
///
/// Nothing may write to the region while the slice lives.
unsafe fn bytes(region: &Region) -> &[u8] {
    // SAFETY: the region is mapped as long as it is borrowed; the caller vouches for the rest.
    unsafe { slice::from_raw_parts(region.pointer(0).as_ptr(), region.pages() * PAGE) }
}

/// The same to write to.
///
/// # Safety
///
/// Nothing else may access the region while the slice lives.
unsafe fn bytes_mut(region: &mut Region) -> &mut [u8] {
    // SAFETY: the region is mapped as long as it is borrowed; the caller vouches for the rest.
    unsafe { slice::from_raw_parts_mut(region.pointer(0).as_ptr(), region.pages() * PAGE) }
}

fn write_from_the_device() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 12, pattern);
    let (out, into) = pipe();
    let watch = device.watch();
    // SAFETY: this test has one thread, and it only reads.
    File::from(into).write_all(unsafe { bytes(&region) }).expect("write to a pipe");
    assert_touched(&device, &watch, &region, 12);
    let mut piped = Vec::new();
    File::from(out).read_to_end(&mut piped).expect("read from a pipe");
    assert!(piped.chunks(PAGE).enumerate().all(|(index, page)| page == pattern.page(index)));
    assert_eq!(piped.len(), 12 * PAGE);
}

fn read_onto_the_device() {
    let (device, old, new) = (Device::open(), Pattern::new(1), Pattern::new(2));
    let mut region = on_device(&device, 12, old);
    let (out, into) = pipe();
    let mut into = File::from(into);
    (0..12).for_each(|index| into.write_all(&new.page(index)).expect("write to a pipe"));
    let watch = device.watch();
    // SAFETY: this test has one thread.
    File::from(out).read_exact(unsafe { bytes_mut(&mut region) }).expect("read from a pipe");
    assert_touched(&device, &watch, &region, 12);
    device.to_device(region.span());
    device.assert_digests(region.span(), 12, |index| new.digest(index));
    region.check(new);
}

/// A child with memory on the device, and what it does once the parent has had its way with that memory.
fn with_remote(before: Pattern, after: Pattern, visit: impl FnOnce(&Device, &Region, nix::unistd::Pid)) {
    let device = Device::open();
    let region = Region::new(16);
    let (ready, go) = (Event::new(), Event::new());
    let watch = device.watch();
    let child = Child::spawn(|| {
        let device = Device::open();
        region.fill(before);
        device.to_device(region.span());
        ready.signal();
        go.wait();
        region.check(after);
        device.to_device(region.span());
        device.assert_digests(region.span(), 16, |index| after.digest(index));
    });
    ready.wait();
    watch.assert_pages(Counter::BytesMigratedToDevice, 16);
    visit(&device, &region, child.pid());
    let faulted = watch.pages(Counter::BytesCpuFault);
    assert_eq!(faulted, if device.is_coherent() { 0 } else { 16 }, "pages that came back for another process");
    go.signal();
    child.succeed();
}

/// Where the region is in the child: where it is here.
fn remote(region: &Region) -> RemoteIoVec {
    RemoteIoVec { base: region.pointer(0).as_ptr().addr(), len: region.pages() * PAGE }
}

fn process_vm_readv_from_another_process() {
    let pattern = Pattern::new(1);
    with_remote(pattern, pattern, |_, region, pid| {
        let mut copy = vec![0; region.pages() * PAGE];
        let length = process_vm_readv(pid, &mut [IoSliceMut::new(&mut copy)], &[remote(region)]);
        assert_eq!(length, Ok(copy.len()));
        assert!(copy.chunks(PAGE).enumerate().all(|(index, page)| page == pattern.page(index)));
    });
}

fn process_vm_writev_from_another_process() {
    let (before, after) = (Pattern::new(1), Pattern::new(2));
    with_remote(before, after, |_, region, pid| {
        let content: Vec<u8> = (0..region.pages()).flat_map(|index| after.page(index)).collect();
        let length = process_vm_writev(pid, &[IoSlice::new(&content)], &[remote(region)]);
        assert_eq!(length, Ok(content.len()));
    });
}

fn proc_mem_of_another_process() {
    let pattern = Pattern::new(1);
    with_remote(pattern, pattern, |_, region, pid| {
        let mut copy = vec![0; region.pages() * PAGE];
        let memory = File::open(format!("/proc/{pid}/mem")).expect("/proc/PID/mem");
        memory.read_exact_at(&mut copy, region.span().address).expect("read of /proc/PID/mem");
        assert!(copy.chunks(PAGE).enumerate().all(|(index, page)| page == pattern.page(index)));
    });
}

fn vmsplice_from_the_device() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 8, pattern);
    let (out, into) = pipe();
    let watch = device.watch();
    // SAFETY: this test has one thread, and it only reads.
    let slices = [IoSlice::new(unsafe { bytes(&region) })];
    assert_eq!(vmsplice(&into, &slices, SpliceFFlags::empty()), Ok(8 * PAGE));
    assert_touched(&device, &watch, &region, 8);
    drop(into);
    let mut piped = Vec::new();
    File::from(out).read_to_end(&mut piped).expect("read from a pipe");
    assert!(piped.chunks(PAGE).enumerate().all(|(index, page)| page == pattern.page(index)));
    // Nothing holds the pages any more: they can go again.
    device.to_device(region.span());
    device.assert_digests(region.span(), 8, |index| pattern.digest(index));
}

fn direct_io_on_the_device() {
    let (device, old, new) = (Device::open(), Pattern::new(1), Pattern::new(2));
    let mut region = on_device(&device, 8, old);
    let path = format!("/tmp/direct-{}", std::process::id());
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .custom_flags(OFlag::O_DIRECT.bits())
        .open(&path)
        .unwrap_or_else(|error| panic!("cannot open {path} for direct I/O: {error}"));
    std::fs::remove_file(&path).expect("remove a file in /tmp");
    let watch = device.watch();
    // SAFETY: this test has one thread, and it only reads.
    file.write_all_at(unsafe { bytes(&region) }, 0).expect("direct write");
    assert_touched(&device, &watch, &region, 8);
    region.fill(new);
    device.to_device(region.span());
    // SAFETY: this test has one thread.
    file.read_exact_at(unsafe { bytes_mut(&mut region) }, 0).expect("direct read");
    region.check(old);
}

fn a_futex_on_the_device() {
    use nix::libc;
    let device = Device::open();
    let region = Region::new(1);
    let turn = region.atomic(0);
    let watch = device.watch();
    device.to_device(region.span());
    watch.assert_pages(Counter::BytesFilled, 1);
    let futex = |operation: libc::c_int, value: u32| {
        // SAFETY: the word stays mapped; a futex call does not write it.
        unsafe { libc::syscall(libc::SYS_futex, turn.as_ptr(), operation | libc::FUTEX_PRIVATE_FLAG, value, 0, 0, 0) }
    };
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            while turn.load(std::sync::atomic::Ordering::Acquire) == 0 {
                futex(libc::FUTEX_WAIT, 0);
            }
        });
        device.to_device(region.span());
        let watch = device.watch();
        turn.store(1, std::sync::atomic::Ordering::Release);
        while !sleeper.is_finished() {
            futex(libc::FUTEX_WAKE, 1);
            device.migrate(region.span(), ersatz_uapi::Direction::ToDevice);
        }
        assert_eq!(watch.count(Counter::ChannelErrors), 0);
    });
    assert_eq!(turn.load(std::sync::atomic::Ordering::Relaxed), 1);
}

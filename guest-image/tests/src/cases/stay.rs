// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that is not for the device to take stays where it is, with its content; other kinds of memory do go.

use std::os::fd::{AsFd, OwnedFd};

use ersatz_abi::counter::Counter;
use ersatz_uapi::Direction;
use nix::fcntl::{SpliceFFlags, vmsplice};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::MapFlags;

use super::fixture::{on_device, send};
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::process::pipe;
use crate::region::Region;
use crate::suite::test_list;

test_list! { "stay":
    shared_anonymous_memory;
    shared_file_memory;
    private_file_memory_not_written;
    private_file_memory_once_written_goes;
    pinned_pages_until_released;
    locked_memory_goes_and_comes_back;
}

/// Asserts that nothing of a region goes to the device, and nothing is lost.
fn assert_stays(device: &Device, region: &Region, pattern: Pattern) {
    let watch = device.watch();
    let done = device.migrate(region.span(), Direction::ToDevice);
    assert_eq!((done.moved, done.left), (0, region.pages() as u64));
    assert_eq!(device.on_device(region.span()), 0);
    device.assert_digests(region.span(), 0, |index| pattern.digest(index));
    watch.assert_pages(Counter::BytesDigested, region.pages());
    // The memory manager may refuse pages only after they were copied; what counts is that none was replaced.
    watch.assert_pages(Counter::BytesToSystem, 0);
    region.check(pattern);
}

fn file_with(pages: usize, pattern: Pattern) -> std::fs::File {
    let file = std::fs::File::from(memfd_create("migration-test", MFdFlags::MFD_CLOEXEC).expect("memfd_create"));
    for index in 0..pages {
        std::io::Write::write_all(&mut &file, &pattern.page(index)).expect("write to a memfd");
    }
    file
}

fn shared_anonymous_memory() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::shared(16);
    region.fill(pattern);
    assert_stays(&device, &region, pattern);
}

fn shared_file_memory() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let file = file_with(16, pattern);
    let region = Region::of_file(&file, 16, MapFlags::MAP_SHARED);
    region.check(pattern);
    assert_stays(&device, &region, pattern);
}

fn private_file_memory_not_written() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let file = file_with(16, pattern);
    let region = Region::of_file(&file, 16, MapFlags::MAP_PRIVATE);
    region.check(pattern);
    assert_stays(&device, &region, pattern);
}

fn private_file_memory_once_written_goes() {
    let (device, in_file, own) = (Device::open(), Pattern::new(1), Pattern::new(2));
    let file = file_with(16, in_file);
    let region = Region::of_file(&file, 16, MapFlags::MAP_PRIVATE);
    region.fill(own); // each page is the process's own copy now
    send(&device, &region);
    device.assert_digests(region.span(), 16, |index| own.digest(index));
    region.check(own);
    let again = Region::of_file(&file, 16, MapFlags::MAP_PRIVATE);
    again.check(in_file);
}

/// Puts references to pages into a pipe, which keeps them from moving until the pipe is read.
fn pin(region: &Region, pages: std::ops::Range<usize>, into: &OwnedFd) {
    let span = region.part(pages.clone());
    // SAFETY: the bytes are mapped and nothing writes them while the slice lives.
    let bytes = unsafe {
        std::slice::from_raw_parts(region.pointer(pages.start * PAGE).as_ptr().cast_const(), span.length as usize)
    };
    let length = vmsplice(into.as_fd(), &[std::io::IoSlice::new(bytes)], SpliceFFlags::empty()).expect("vmsplice");
    assert_eq!(length, bytes.len());
}

fn pinned_pages_until_released() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(12, pattern);
    let (out, into) = pipe();
    pin(&region, 4..8, &into);
    let watch = device.watch();
    let done = device.migrate(region.span(), Direction::ToDevice);
    assert_eq!((done.moved, done.left), (8, 4));
    watch.assert_pages(Counter::BytesMigratedToDevice, 8);
    assert_eq!(device.on_device(region.part(4..8)), 0);
    let mut piped = vec![0; 4 * PAGE];
    std::io::Read::read_exact(&mut std::fs::File::from(out), &mut piped).expect("read the pipe");
    assert!(piped.chunks(PAGE).enumerate().all(|(index, page)| page == pattern.page(4 + index)));
    assert_eq!(device.to_device(region.span()), 4);
    device.assert_digests(region.span(), 12, |index| pattern.digest(index));
    region.check(pattern);
}

fn locked_memory_goes_and_comes_back() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(16, pattern);
    region.lock();
    send(&device, &region);
    device.assert_digests(region.span(), 16, |index| pattern.digest(index));
    region.check(pattern);
    device.to_system(region.span());
    region.check(pattern);
    let later = on_device(&device, 8, pattern);
    later.lock(); // locking faults the pages in, from the device too
    later.check(pattern);
}

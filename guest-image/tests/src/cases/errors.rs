// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Arguments that make no sense are refused, change nothing, and leave the device in good health.

use std::fs::File;

use ersatz_abi::counter::Counter;
use ersatz_uapi::{Digest, Direction, IOC_INFO, IOC_MAGIC, Migrate, Residency};
use nix::errno::Errno;
use nix::libc;

use super::fixture::{assert_idle, on_device};
use crate::device::{Device, PATH};
use crate::pattern::{PAGE, Pattern};
use crate::region::Region;
use crate::suite::test_list;

test_list! { "errors":
    unaligned_ranges;
    empty_ranges;
    ranges_that_wrap;
    unknown_directions_and_flags;
    unknown_requests;
    pointers_to_nowhere;
    arrays_that_cannot_be_written;
    digest_of_a_gap;
    ranges_beyond_user_space;
    a_huge_range_with_little_in_it;
    reading_and_writing_the_file;
}

const BYTES: u64 = PAGE as u64;

fn migrate(address: u64, length: u64) -> Result<Migrate, Errno> {
    let to_device = Direction::ToDevice as u32;
    Device::open().try_migrate_raw(Migrate { address, length, direction: to_device, ..Migrate::default() })
}

fn digest(address: u64, length: u64, digests: u64) -> Result<Digest, Errno> {
    // SAFETY: callers give arrays that are long enough, or addresses with nothing mapped there.
    unsafe { Device::open().try_digest_raw(Digest { address, length, digests, ..Digest::default() }) }
}

fn residency(address: u64, length: u64, states: u64) -> Result<(), Errno> {
    // SAFETY: as for `digest`.
    unsafe { Device::open().try_residency_raw(Residency { address, length, states }) }
}

/// Asserts that all requests with a range refuse this one, and give the device nothing to do.
fn assert_range_refused(address: u64, length: u64) {
    assert_idle(&Device::open(), || {
        let mut array = [0_u64; 64];
        let pointer = array.as_mut_ptr().addr() as u64;
        let range = format!("range {address:#x}+{length:#x}");
        assert_eq!(migrate(address, length).unwrap_err(), Errno::EINVAL, "migrate, {range}");
        assert_eq!(digest(address, length, pointer).unwrap_err(), Errno::EINVAL, "digest, {range}");
        assert_eq!(residency(address, length, pointer).unwrap_err(), Errno::EINVAL, "residency, {range}");
        assert_eq!(array, [0; 64], "a refused request wrote its array");
    });
}

fn unaligned_ranges() {
    let region = Region::filled(4, Pattern::new(1));
    let start = region.span().address;
    for (address, length) in [(start + 1, BYTES), (start + 8, 2 * BYTES), (start, BYTES + 1), (start, BYTES - 8)] {
        assert_range_refused(address, length);
    }
    region.check(Pattern::new(1));
}

fn empty_ranges() {
    let region = Region::filled(1, Pattern::new(1));
    assert_range_refused(region.span().address, 0);
}

fn ranges_that_wrap() {
    let region = Region::filled(1, Pattern::new(1));
    let start = region.span().address;
    for (address, length) in [(start, 0_u64.wrapping_sub(start) + BYTES), (0_u64.wrapping_sub(BYTES), 2 * BYTES)] {
        assert_range_refused(address, length);
    }
}

fn unknown_directions_and_flags() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(2, pattern);
    let span = region.span();
    let good = Migrate { address: span.address, length: span.length, ..Migrate::default() };
    assert_idle(&device, || {
        for direction in [2, 3, u32::MAX] {
            assert_eq!(device.try_migrate_raw(Migrate { direction, ..good }).unwrap_err(), Errno::EINVAL);
        }
        for flags in [1, 1 << 31] {
            assert_eq!(device.try_migrate_raw(Migrate { flags, ..good }).unwrap_err(), Errno::EINVAL);
        }
    });
    assert_eq!(device.on_device(span), 0);
    region.check(pattern);
}

/// An ioctl with any number and argument.
fn raw(device: &Device, request: u32, argument: u64) -> Result<libc::c_int, Errno> {
    // SAFETY: callers give pointers to nowhere or requests that do not exist.
    Errno::result(unsafe { libc::ioctl(device.descriptor(), request.into(), argument) })
}

fn unknown_requests() {
    let device = Device::open();
    let magic = u32::from(IOC_MAGIC) << 8;
    // Another letter, another number, another size, no direction.
    assert_idle(&device, || {
        for request in [IOC_INFO ^ 0x100, IOC_INFO | 0xf0, IOC_INFO + (8 << 16), magic | 1] {
            assert_eq!(raw(&device, request, 0).unwrap_err(), Errno::ENOTTY, "request {request:#x}");
        }
    });
}

fn pointers_to_nowhere() {
    use ersatz_uapi::{IOC_COUNTERS, IOC_DIGEST, IOC_EVICT, IOC_MARK, IOC_MIGRATE, IOC_RESIDENCY};
    let device = Device::open();
    let gap = Region::new(1);
    gap.unmap(0..1);
    let requests = [IOC_INFO, IOC_MIGRATE, IOC_RESIDENCY, IOC_DIGEST, IOC_COUNTERS, IOC_EVICT, IOC_MARK];
    assert_idle(&device, || {
        for request in requests {
            for pointer in [0, gap.span().address, u64::MAX << 47] {
                let refusal = raw(&device, request, pointer).unwrap_err();
                assert_eq!(refusal, Errno::EFAULT, "request {request:#x} at {pointer:#x}");
            }
        }
    });
}

fn arrays_that_cannot_be_written() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 8, pattern);
    let span = region.span();
    let read_only = Region::filled(1, pattern);
    read_only.protect(0..1, nix::sys::mman::ProtFlags::PROT_READ);
    for pointer in [0, read_only.span().address] {
        assert_eq!(digest(span.address, span.length, pointer).unwrap_err(), Errno::EFAULT);
        assert_eq!(residency(span.address, span.length, pointer).unwrap_err(), Errno::EFAULT);
    }
    read_only.check(pattern);
    device.assert_digests(span, 8, |index| pattern.digest(index));
}

fn digest_of_a_gap() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 8, pattern);
    region.unmap(3..5);
    assert_eq!(device.try_digest(region.span()).unwrap_err(), Errno::EFAULT);
    device.assert_digests(region.part(0..3), 3, |index| pattern.digest(index));
    device.assert_digests(region.part(5..8), 3, |index| pattern.digest(index + 5));
}

fn ranges_beyond_user_space() {
    assert_idle(&Device::open(), || {
        for address in [1 << 47, u64::MAX << 47, 0_u64.wrapping_sub(2 * BYTES)] {
            match migrate(address, BYTES) {
                Ok(done) => assert_eq!((done.moved, done.left), (0, 1), "at {address:#x}"),
                Err(error) => assert!([Errno::EINVAL, Errno::EFAULT].contains(&error), "{error} at {address:#x}"),
            }
            let mut array = [0_u64];
            let pointer = array.as_mut_ptr().addr() as u64;
            assert!(digest(address, BYTES, pointer).is_err(), "the device read kernel memory at {address:#x}");
        }
    });
}

fn a_huge_range_with_little_in_it() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::with(1 << 24, crate::region::READ_WRITE, no_reserve());
    region.unmap(16..(1 << 24));
    for index in 0..16 {
        region.write(index, &pattern.page(index));
    }
    let watch = device.watch();
    let done = device.migrate(region.span(), Direction::ToDevice);
    assert_eq!((done.moved, done.left), (16, (1 << 24) - 16));
    watch.assert_pages(Counter::BytesMigratedToDevice, 16);
    region.check_part(0..16, pattern);
}

fn no_reserve() -> nix::sys::mman::MapFlags {
    nix::sys::mman::MapFlags::MAP_PRIVATE | nix::sys::mman::MapFlags::MAP_NORESERVE
}

fn reading_and_writing_the_file() {
    use std::io::{Read, Write};
    assert_idle(&Device::open(), || {
        let mut file = File::options().read(true).write(true).open(PATH).expect("open the device");
        let mut byte = [0];
        assert!(file.read(&mut byte).is_err(), "the device file could be read");
        assert!(file.write(&byte).is_err(), "the device file could be written");
    });
}

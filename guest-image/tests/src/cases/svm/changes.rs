// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that is inherited, unmapped, moved, protected and discarded, and files.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::Ordering;

use ersatz_uapi::FaultAccess;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags};

use super::super::fixture::send;
use super::{WORDS, check_counting, sum_by_cpu, sum_by_device};
use crate::compute::{Compute, LaunchError};
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::process::{Child, Event};
use crate::region::{READ_WRITE, Region};
use crate::suite::test_list;

test_list! { "svm":
    fork_copies_on_write;
    fork_between_device_writes;
    pages_on_the_device_are_copied_on_write;
    pages_on_the_device_are_not_written_if_read_only;
    unmapped_memory_is_gone;
    moved_memory_is_found;
    protection_is_followed;
    discarded_memory_is_zero;
    new_memory_at_an_old_address;
    writes_to_a_file_reach_it;
    a_private_file_mapping_is_copied;
}

fn fork_copies_on_write() {
    let (compute, region) = (Compute::bind(), Region::filled(16, Pattern::new(1)));
    // With the right to write.
    compute.write(region.span(), 1);
    let (written, looked) = (Event::new(), Event::new());
    let child = Child::spawn(|| {
        written.wait();
        check_counting(&region, 1);
        looked.signal();
    });
    compute.write(region.span(), 1000);
    check_counting(&region, 1000);
    written.signal();
    looked.wait();
    child.succeed();
    check_counting(&region, 1000);
}

fn fork_between_device_writes() {
    let (compute, region) = (Compute::bind(), Region::new(16));
    for round in 0..10 {
        compute.write(region.span(), round);
        let child = Child::spawn(|| check_counting(&region, round));
        compute.atomic_add(region.span(), 500);
        child.succeed();
        check_counting(&region, round + 500);
    }
}

fn pages_on_the_device_are_copied_on_write() {
    let (device, pattern, region) = (Device::open(), Pattern::new(1), Region::filled(8, Pattern::new(1)));
    send(&device, &region);
    Child::spawn(|| {
        Compute::bind().write(region.part(0..6), 1);
        assert_eq!(region.atomics(0, 1)[0].load(Ordering::Relaxed), 1);
        region.check_part(6..8, pattern);
    })
    .succeed();
    region.check(pattern);
}

fn pages_on_the_device_are_not_written_if_read_only() {
    let (compute, pattern, region) = (Compute::bind(), Pattern::new(1), Region::filled(8, Pattern::new(1)));
    send(compute.device(), &region);
    region.protect(0..8, ProtFlags::PROT_READ);
    let page = region.page(3);
    assert_eq!(compute.try_write(page, 1), Err(LaunchError::Fault(page.address, FaultAccess::Write)));
    region.protect(0..4, READ_WRITE);
    compute.write(page, 7);
    assert_eq!(region.atomics(3 * PAGE, 1)[0].load(Ordering::Relaxed), 7);
    region.check_part(0..3, pattern);
    region.check_part(4..8, pattern);
}

fn unmapped_memory_is_gone() {
    let (compute, region) = (Compute::bind(), Region::new(8));
    compute.write(region.span(), 1);
    let first = region.span().address;
    region.unmap(0..8);
    assert_eq!(compute.try_read(region.span()), Err(LaunchError::Fault(first, FaultAccess::Read)));
    assert_eq!(compute.try_write(region.span(), 2), Err(LaunchError::Fault(first, FaultAccess::Write)));
}

fn moved_memory_is_found() {
    let (compute, region, target) = (Compute::bind(), Region::new(8), Region::new(8));
    compute.write(region.span(), 1);
    compute.write(target.span(), 2);
    let old = region.span();
    let moved = region.move_onto(target);
    assert_eq!(compute.try_read(old), Err(LaunchError::Fault(old.address, FaultAccess::Read)));
    check_counting(&moved, 1);
    assert_eq!(sum_by_device(&compute, &moved), sum_by_cpu(&moved));
    compute.write(moved.span(), 3);
    check_counting(&moved, 3);
}

fn protection_is_followed() {
    let (compute, region) = (Compute::bind(), Region::new(4));
    let first = region.span().address;
    for round in 0..10 {
        compute.write(region.span(), round);
        region.protect(0..4, ProtFlags::PROT_READ);
        assert_eq!(compute.try_write(region.span(), 99), Err(LaunchError::Fault(first, FaultAccess::Write)));
        check_counting(&region, round);
        region.protect(0..4, READ_WRITE);
    }
}

fn discarded_memory_is_zero() {
    let (compute, region) = (Compute::bind(), Region::new(16));
    compute.write(region.span(), 1);
    region.advise(4..12, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
    region.check_zero(4..8);
    compute.atomic_add(region.part(8..12), 5);
    assert!(region.atomics(8 * PAGE, 4 * WORDS).iter().all(|word| word.load(Ordering::Relaxed) == 5));
    assert_eq!(sum_by_device(&compute, &region), sum_by_cpu(&region));
}

fn new_memory_at_an_old_address() {
    let compute = Compute::bind();
    for round in 0..20 {
        // The kernel tends to give the same address again.
        let region = Region::new(8);
        compute.atomic_add(region.span(), round);
        assert!(region.atomics(0, 8 * WORDS).iter().all(|word| word.load(Ordering::Relaxed) == round));
    }
}

/// A file with pages of zeros.
fn file(pages: usize) -> File {
    let path = format!("/tmp/svm-{}", std::process::id());
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
    std::fs::remove_file(path).expect("a file's name goes");
    file.set_len((pages * PAGE) as u64).expect("a file's length");
    file
}

fn writes_to_a_file_reach_it() {
    let (compute, file) = (Compute::bind(), file(8));
    let region = Region::of_file(&file, 8, MapFlags::MAP_SHARED);
    compute.write(region.span(), 3);
    drop(region);
    let mut content = Vec::new();
    (&file).read_to_end(&mut content).expect("a file's content");
    let expected: Vec<u8> = (3_u64..).take(8 * WORDS).flat_map(u64::to_le_bytes).collect();
    assert!(content == expected, "the file has other content");
}

fn a_private_file_mapping_is_copied() {
    let (compute, file) = (Compute::bind(), file(8));
    let region = Region::of_file(&file, 8, MapFlags::MAP_PRIVATE);
    assert_eq!(sum_by_device(&compute, &region), 0);
    compute.write(region.span(), 3);
    check_counting(&region, 3);
    let mut content = Vec::new();
    (&file).read_to_end(&mut content).expect("a file's content");
    assert!(content.iter().all(|&byte| byte == 0), "the file of descriptor {} was written", file.as_raw_fd());
}

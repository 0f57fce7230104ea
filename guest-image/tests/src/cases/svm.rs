// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Shared virtual memory: the device works on plain memory of the process, and finds there what the process would.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ersatz_abi::counter::Counter;
use ersatz_abi::kernel::next_random;
use ersatz_uapi::{FaultAccess, KernelKind, Launch, PageState};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags};
use nix::sys::signal::Signal;

use super::fixture::{assert_works, send};
use crate::bus::Function;
use crate::compute::{Compute, LaunchError};
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::process::{Child, Event};
use crate::region::{READ_WRITE, Region, Span};
use crate::suite::{Need, test_list};

test_list! { "svm":
    reads_what_the_cpu_wrote;
    writes_what_the_cpu_reads;
    memory_never_touched_is_faulted_in;
    every_kernel_has_its_result;
    a_chain_over_many_pages;
    a_copy_between_allocations;
    a_copy_ends_where_it_may_not_go_on;
    heap_and_stack_are_memory_too;
    holes_are_reported;
    addresses_that_cannot_be_are_reported;
    read_only_memory_is_not_written;
    inaccessible_memory_is_not_read;
    an_error_leaves_the_file_usable;
    operands_are_checked;
    what_is_not_bound_is_refused;
    a_bound_file_serves_its_process_alone;
    fork_copies_on_write;
    fork_between_device_writes;
    unmapped_memory_is_gone;
    moved_memory_is_found;
    protection_is_followed;
    discarded_memory_is_zero;
    new_memory_at_an_old_address;
    pages_on_the_device_are_used_there;
    device_writes_on_the_device_come_back;
    migration_both_ways_while_bound;
    migration_during_kernels.patience(3);
    evicted_memory_is_found;
    writes_to_a_file_reach_it;
    a_private_file_mapping_is_copied;
    huge_pages.needs(&[Need::HugePages]);
    huge_pages_on_the_device.needs(&[Need::HugePages, Need::VramPages(2048)]);
    atomics_of_cpu_and_device_are_not_lost.patience(2);
    discarding_during_kernels.patience(3);
    threads_launch_at_once.patience(2);
    two_processes_keep_apart;
    sigkill_during_kernels.patience(2);
    exit_without_closing;
    many_address_spaces.patience(2);
    unbind_with_a_bound_file.disruptive().patience(2);
}

/// Words in a page.
const WORDS: usize = PAGE / 8;

/// Asserts that the words of a region count from `seed`.
fn check_counting(region: &Region, seed: u64) {
    for (index, word) in region.atomics(0, region.pages() * WORDS).iter().enumerate() {
        assert_eq!(word.load(Ordering::Relaxed), seed.wrapping_add(index as u64), "word {index}");
    }
}

/// The sum of the words of a region, as the CPU finds it.
fn sum_by_cpu(region: &Region) -> u64 {
    let words = region.atomics(0, region.pages() * WORDS).iter();
    words.fold(0, |sum: u64, word| sum.wrapping_add(word.load(Ordering::Relaxed)))
}

/// The sum of the words of a region, as the device finds it.
fn sum_by_device(compute: &Compute, region: &Region) -> u64 {
    let result = Region::new(1);
    compute.sum(region.span(), result.span().address);
    result.atomic(0).load(Ordering::Relaxed)
}

fn reads_what_the_cpu_wrote() {
    let (compute, region) = (Compute::bind(), Region::filled(40, Pattern::new(1)));
    let watch = compute.device().watch();
    assert_eq!(sum_by_device(&compute, &region), sum_by_cpu(&region));
    assert_eq!(watch.count(Counter::KernelBytesRead), (40 * PAGE) as u64);
    region.check(Pattern::new(1));
    region.fill(Pattern::new(2));
    assert_eq!(sum_by_device(&compute, &region), sum_by_cpu(&region));
}

fn writes_what_the_cpu_reads() {
    let (compute, region) = (Compute::bind(), Region::filled(40, Pattern::new(1)));
    let watch = compute.device().watch();
    compute.write(region.span(), 7);
    assert_eq!(watch.count(Counter::KernelBytesWritten), (40 * PAGE) as u64);
    check_counting(&region, 7);
}

fn memory_never_touched_is_faulted_in() {
    let (compute, read, written) = (Compute::bind(), Region::new(20), Region::new(20));
    let watch = compute.device().watch();
    assert_eq!(sum_by_device(&compute, &read), 0);
    compute.write(written.span(), 1);
    assert!(watch.count(Counter::Faults) > 0);
    check_counting(&written, 1);
    // What the device read is the zero page: it is not what the CPU writes.
    read.fill(Pattern::new(1));
    assert_eq!(sum_by_device(&compute, &read), sum_by_cpu(&read));
}

fn every_kernel_has_its_result() {
    let compute = Compute::bind();
    let (x, y, result) = (Region::new(3), Region::new(3), Region::new(1));
    let at = result.span().address;
    compute.set(x.span(), u64::from(1.5_f32.to_bits()) << 32 | u64::from(2.0_f32.to_bits()));
    compute.set(y.span(), u64::from(1.0_f32.to_bits()) << 32 | u64::from(0.5_f32.to_bits()));
    compute.saxpy(x.span(), y.span().address, 4.0);
    let expected = u64::from(7.0_f32.to_bits()) << 32 | u64::from(8.5_f32.to_bits());
    assert!(y.atomics(0, 3 * WORDS).iter().all(|word| word.load(Ordering::Relaxed) == expected));
    compute.try_read(x.span()).expect("a kernel that reads");

    compute.write(x.span(), 5);
    compute.atomic_add(x.span(), 100);
    check_counting(&x, 105);
    compute.compare_and_swap(x.span().address, 105, 9, at);
    assert_eq!(result.atomic(0).load(Ordering::Relaxed), 105);
    compute.compare_and_swap(x.span().address, 105, 10, at);
    assert_eq!(result.atomic(0).load(Ordering::Relaxed), 9);

    let table = Region::new(4);
    compute.random_update(table.span(), 77, 5000);
    let mut expected = vec![0; 4 * WORDS];
    let mut random = 77;
    for _ in 0..5000 {
        random = next_random(random);
        expected[random as usize % (4 * WORDS)] ^= random;
    }
    let found: Vec<u64> = table.atomics(0, 4 * WORDS).iter().map(|word| word.load(Ordering::Relaxed)).collect();
    assert!(found == expected, "the table after random updates");
}

fn a_chain_over_many_pages() {
    const PAGES: usize = 50;
    let (compute, region, result) = (Compute::bind(), Region::new(PAGES), Region::new(1));
    let address = |step: usize| region.page(step * 7 % PAGES).address + 8 * step as u64;
    for step in 0..PAGES {
        let place = (address(step) - region.span().address) as usize;
        region.atomic(place).store(address(step + 1), Ordering::Relaxed);
    }
    compute.try_chase(address(0), PAGES as u64, result.span().address).expect("a chain that leads through the region");
    assert_eq!(result.atomic(0).load(Ordering::Relaxed), address(PAGES));
}

fn a_copy_between_allocations() {
    const UNTOUCHED: usize = 0;
    const ON_DEVICE: usize = 2;
    /// Groups of pages: one for each state of the source and each of the target.
    const GROUPS: usize = 9;
    const GROUP: usize = 4;
    let compute = Compute::bind();
    let (source, target) = (Region::new(GROUPS * GROUP), Region::new(GROUPS * GROUP));
    let states = |group: usize| [(&source, group / 3), (&target, group % 3)];
    for group in 0..GROUPS {
        for (region, state) in states(group).into_iter().filter(|(_, state)| *state != UNTOUCHED) {
            let words = region.atomics(group * GROUP * PAGE, GROUP * WORDS).iter();
            (1 + group * GROUP * WORDS..)
                .zip(words)
                .for_each(|(value, word)| word.store(value as u64, Ordering::Relaxed));
            if state == ON_DEVICE {
                compute.device().to_device(region.part(group * GROUP..(group + 1) * GROUP));
            }
        }
    }

    // All but three words, from the third to the second on: pages of the two do not begin together.
    let Span { address, length } = source.span();
    let watch = compute.device().watch();
    compute.copy(Span { address: address + 16, length: length - 24 }, target.span().address + 8);
    assert_eq!(watch.count(Counter::KernelBytesRead), length - 24);
    assert_eq!(watch.count(Counter::KernelBytesWritten), length - 24);
    for group in 0..GROUPS {
        for (region, _) in states(group).into_iter().filter(|(_, state)| *state == ON_DEVICE) {
            compute.device().assert_all(region.part(group * GROUP..(group + 1) * GROUP), PageState::Device);
        }
    }

    let held_by_source = |index: usize| if index / (GROUP * WORDS) / 3 == UNTOUCHED { 0 } else { 1 + index as u64 };
    let last = GROUPS * GROUP * WORDS - 1;
    for (index, word) in target.atomics(0, last + 1).iter().enumerate() {
        let expected = match index {
            0 => 0,
            // The last group of the target was touched.
            _ if index >= last - 1 => 1 + index as u64,
            _ => held_by_source(index + 1),
        };
        assert_eq!(word.load(Ordering::Relaxed), expected, "word {index} of the target");
    }
    for (index, word) in source.atomics(0, last + 1).iter().enumerate() {
        assert_eq!(word.load(Ordering::Relaxed), held_by_source(index), "word {index} of the source");
    }
}

fn a_copy_ends_where_it_may_not_go_on() {
    let (compute, source, target) = (Compute::bind(), Region::filled(12, Pattern::new(1)), Region::new(12));
    let copy = || compute.try_copy(source.span(), target.span().address);
    target.protect(8..9, ProtFlags::PROT_READ);
    assert_eq!(copy(), Err(LaunchError::Fault(target.page(8).address, FaultAccess::Write)));
    target.check_part(0..8, Pattern::new(1));
    target.check_zero(8..12);
    target.protect(8..9, READ_WRITE);
    source.unmap(3..4);
    target.fill(Pattern::new(2));
    assert_eq!(copy(), Err(LaunchError::Fault(source.page(3).address, FaultAccess::Read)));
    target.check_part(0..3, Pattern::new(1));
    target.check_part(3..12, Pattern::new(2));
}

fn heap_and_stack_are_memory_too() {
    use std::sync::atomic::AtomicU64;
    let compute = Compute::bind();
    let heap: Vec<AtomicU64> = (0..3000).map(AtomicU64::new).collect();
    let sum = AtomicU64::new(0);
    let request = Launch {
        kernel: KernelKind::Sum as u32,
        first: heap.as_ptr().addr() as u64,
        count: 8 * 3000,
        result: std::ptr::from_ref(&sum).addr() as u64,
        ..Launch::default()
    };
    compute.try_launch(request).expect("a sum over the heap, with its result on the stack");
    assert_eq!(sum.load(Ordering::Relaxed), 2999 * 3000 / 2);
}

fn holes_are_reported() {
    let (compute, region) = (Compute::bind(), Region::filled(10, Pattern::new(1)));
    region.unmap(6..7);
    let hole = region.page(6).address;
    assert_eq!(compute.try_read(region.span()), Err(LaunchError::Fault(hole, FaultAccess::Read)));
    assert_eq!(compute.try_write(region.span(), 0), Err(LaunchError::Fault(hole, FaultAccess::Write)));
    assert_eq!(compute.try_atomic_add(region.page(6), 1), Err(LaunchError::Fault(hole, FaultAccess::Atomic)));
    for (index, word) in region.atomics(0, 6 * WORDS).iter().enumerate() {
        assert_eq!(word.load(Ordering::Relaxed), index as u64, "word {index}, before the hole");
    }
    region.check_part(7..10, Pattern::new(1));
}

fn addresses_that_cannot_be_are_reported() {
    let (compute, result) = (Compute::bind(), Region::new(1));
    for address in [0, 8, 0x7fff_ffff_f000, 0x8000_0000_0000, 0xffff_8000_0000_0000] {
        let outcome = compute.try_chase(address, 1, result.span().address);
        assert_eq!(outcome, Err(LaunchError::Fault(address, FaultAccess::Read)), "{address:#x}");
    }
}

fn read_only_memory_is_not_written() {
    let (compute, region) = (Compute::bind(), Region::filled(8, Pattern::new(1)));
    compute.try_read(region.span()).expect("memory to read");
    region.protect(0..8, ProtFlags::PROT_READ);
    let first = region.span().address;
    assert_eq!(compute.try_write(region.span(), 0), Err(LaunchError::Fault(first, FaultAccess::Write)));
    assert_eq!(compute.try_atomic_add(region.span(), 1), Err(LaunchError::Fault(first, FaultAccess::Atomic)));
    compute.try_read(region.span()).expect("memory to read");
    region.check(Pattern::new(1));
}

fn inaccessible_memory_is_not_read() {
    let (compute, region) = (Compute::bind(), Region::filled(8, Pattern::new(1)));
    compute.try_read(region.span()).expect("memory to read");
    region.protect(3..5, ProtFlags::PROT_NONE);
    let third = region.page(3).address;
    assert_eq!(compute.try_read(region.span()), Err(LaunchError::Fault(third, FaultAccess::Read)));
    region.protect(3..5, READ_WRITE);
    compute.try_read(region.span()).expect("memory to read");
    region.check(Pattern::new(1));
}

fn an_error_leaves_the_file_usable() {
    let (compute, region, gone) = (Compute::bind(), Region::new(4), Region::new(1));
    gone.unmap(0..1);
    for round in 0..20 {
        let hole = gone.span().address;
        assert_eq!(compute.try_read(gone.span()), Err(LaunchError::Fault(hole, FaultAccess::Read)));
        compute.write(region.span(), round);
        check_counting(&region, round);
    }
}

fn operands_are_checked() {
    let (compute, region) = (Compute::bind(), Region::new(2));
    let Launch { first, count, .. } = Launch { first: region.span().address, count: 64, ..Launch::default() };
    let write = Launch { kernel: KernelKind::Write as u32, first, count, ..Launch::default() };
    let watch = compute.device().watch();
    for wrong in [
        Launch { kernel: 99, ..write },
        Launch { flags: 1, ..write },
        Launch { reserved: 1, ..write },
        Launch { first: first + 4, ..write },
        Launch { count: 0, ..write },
        Launch { count: 12, ..write },
        Launch { count: 1 << 41, ..write },
        Launch { first: u64::MAX - 7, ..write },
        Launch { result: first, ..write },
        Launch { second: 1, ..write },
        // The operands of a copy overlap, or the second one is not aligned.
        Launch { kernel: KernelKind::Copy as u32, second: first + 56, ..write },
        Launch { kernel: KernelKind::Copy as u32, second: first + 68, ..write },
    ] {
        assert_eq!(compute.try_launch(wrong), Err(LaunchError::Other(Errno::EINVAL)), "{wrong:x?}");
    }
    assert_eq!(watch.count(Counter::Commands) + watch.count(Counter::ChannelErrors), 0);
    compute.try_launch(write).expect("operands that are valid");
}

fn what_is_not_bound_is_refused() {
    let (compute, region) = (Compute::unbound(), Region::new(2));
    assert_eq!(compute.try_read(region.span()), Err(LaunchError::Other(Errno::EINVAL)));
    assert!(compute.try_bind().expect("ERSATZ_IOC_BIND") > 0, "address space 0 is nobody's");
    assert_eq!(compute.try_bind(), Err(Errno::EBUSY));
    compute.write(region.span(), 1);
    check_counting(&region, 1);
}

fn a_bound_file_serves_its_process_alone() {
    let (compute, region) = (Compute::bind(), Region::filled(4, Pattern::new(1)));
    Child::spawn(|| {
        assert_eq!(compute.try_read(region.span()), Err(LaunchError::Other(Errno::EPERM)));
        let own = Compute::bind();
        own.write(region.span(), 3);
        check_counting(&region, 3);
    })
    .succeed();
    region.check(Pattern::new(1));
    compute.write(region.span(), 4);
    check_counting(&region, 4);
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

fn pages_on_the_device_are_used_there() {
    let (compute, region) = (Compute::bind(), Region::filled(32, Pattern::new(1)));
    let expected = sum_by_cpu(&region);
    send(compute.device(), &region);
    let watch = compute.device().watch();
    assert_eq!(sum_by_device(&compute, &region), expected);
    compute.device().assert_all(region.span(), PageState::Device);
    watch.assert_pages(Counter::BytesToSystem, 0);
    watch.assert_pages(Counter::BytesCpuFault, 0);
    region.check(Pattern::new(1));
}

fn device_writes_on_the_device_come_back() {
    let (compute, region) = (Compute::bind(), Region::filled(32, Pattern::new(1)));
    send(compute.device(), &region);
    compute.write(region.span(), 11);
    compute.device().assert_all(region.span(), PageState::Device);
    compute.device().to_system(region.span());
    check_counting(&region, 11);
    compute.atomic_add(region.span(), 1);
    check_counting(&region, 12);
}

fn migration_both_ways_while_bound() {
    let (compute, region) = (Compute::bind(), Region::new(24));
    compute.write(region.span(), 0);
    for round in 1..6 {
        compute.device().to_device(region.span());
        compute.atomic_add(region.span(), 1);
        compute.device().to_system(region.span());
        compute.atomic_add(region.span(), 1);
        // Touched by the CPU on the device, too.
        compute.device().to_device(region.part(0..12));
        check_counting(&region, 2 * round);
    }
}

fn migration_during_kernels() {
    const ROUNDS: u64 = 4;
    let (compute, region, stop) = (Compute::bind(), Region::new(24), AtomicBool::new(false));
    compute.write(region.span(), 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let device = Device::open();
            while !stop.load(Ordering::Relaxed) {
                device.migrate(region.span(), ersatz_uapi::Direction::ToDevice);
                device.migrate(region.span(), ersatz_uapi::Direction::ToSystem);
                // Kernels get on between two journeys.
                thread::sleep(Duration::from_millis(2));
            }
        });
        for _ in 0..ROUNDS {
            compute.atomic_add(region.span(), 1);
        }
        stop.store(true, Ordering::Relaxed);
    });
    check_counting(&region, ROUNDS);
}

fn evicted_memory_is_found() {
    let (compute, region) = (Compute::bind(), Region::new(32));
    compute.write(region.span(), 1);
    compute.device().to_device(region.span());
    compute.write(region.span(), 2);
    assert_eq!(compute.device().evict().left, 0);
    assert_eq!(sum_by_device(&compute, &region), (0..32 * WORDS as u64).map(|index| 2 + index).sum::<u64>());
    check_counting(&region, 2);
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

fn huge_pages() {
    let (compute, region) = (Compute::bind(), Region::huge(2));
    compute.write(region.span(), 1);
    check_counting(&region, 1);
    region.protect(100..101, ProtFlags::PROT_READ);
    let page = region.page(100);
    assert_eq!(compute.try_write(region.span(), 2), Err(LaunchError::Fault(page.address, FaultAccess::Write)));
    assert_eq!(region.atomic(100 * PAGE).load(Ordering::Relaxed), 1 + 100 * WORDS as u64);
}

fn huge_pages_on_the_device() {
    let (compute, region) = (Compute::bind(), Region::huge(2));
    region.fill(Pattern::new(1));
    let expected = sum_by_cpu(&region);
    compute.device().to_device(region.span());
    // Not from where the folio begins.
    let (part, result) = (region.part(700..1024), Region::new(1));
    compute.sum(part, result.span().address);
    let of_part = region.atomics(700 * PAGE, 324 * WORDS);
    assert_eq!(sum_by_device(&compute, &region), expected);
    compute.device().assert_all(region.span(), PageState::Device);
    let sum = of_part.iter().fold(0, |sum: u64, word| sum.wrapping_add(word.load(Ordering::Relaxed)));
    assert_eq!(result.atomic(0).load(Ordering::Relaxed), sum);
}

fn atomics_of_cpu_and_device_are_not_lost() {
    const ROUNDS: u64 = 30;
    let (compute, region) = (Compute::bind(), Region::new(2));
    let words = region.atomics(0, 2 * WORDS);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                for word in words {
                    word.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        for _ in 0..ROUNDS {
            compute.atomic_add(region.span(), 1 << 32);
        }
    });
    assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == ROUNDS << 32 | ROUNDS));
}

fn discarding_during_kernels() {
    let (compute, region, stop) = (Compute::bind(), Region::new(32), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                region.advise(0..32, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
                region.protect(8..16, ProtFlags::PROT_READ);
                region.protect(8..16, READ_WRITE);
            }
        });
        for _ in 0..30 {
            match compute.try_write(region.span(), 1) {
                Ok(()) => {}
                Err(LaunchError::Fault(address, FaultAccess::Write)) => {
                    let protected = region.part(8..16);
                    assert!((protected.address..protected.address + protected.length).contains(&address));
                }
                Err(error) => panic!("{error:x?}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    for (index, word) in region.atomics(0, 32 * WORDS).iter().enumerate() {
        let found = word.load(Ordering::Relaxed);
        assert!(found == 0 || found == 1 + index as u64, "word {index} is {found:#x}");
    }
    compute.write(region.span(), 9);
    check_counting(&region, 9);
}

fn threads_launch_at_once() {
    const THREADS: u64 = 8;
    let compute = Compute::bind();
    let regions: Vec<Region> = (0..THREADS).map(|_| Region::new(10)).collect();
    thread::scope(|scope| {
        for (seed, region) in (0..).zip(&regions) {
            let compute = &compute;
            scope.spawn(move || {
                for round in 0..5 {
                    compute.write(region.span(), 100 * seed + round);
                    check_counting(region, 100 * seed + round);
                }
            });
        }
    });
    for (seed, region) in (0..).zip(&regions) {
        check_counting(region, 100 * seed + 4);
    }
}

fn two_processes_keep_apart() {
    let start = |seed: u64| {
        Child::spawn(move || {
            // At the same address in both.
            let (compute, region) = (Compute::bind(), Region::new(20));
            for round in 0..10 {
                compute.write(region.span(), seed + round);
                check_counting(&region, seed + round);
            }
        })
    };
    let children = [start(0), start(1_000_000)];
    children.into_iter().for_each(Child::succeed);
}

fn sigkill_during_kernels() {
    for round in 0..10 {
        let started = Event::new();
        let child = Child::spawn(|| {
            let (compute, region) = (Compute::bind(), Region::new(64));
            started.signal();
            loop {
                compute.write(region.span(), 1);
                compute.random_update(region.span(), 5, 1 << 22);
            }
        });
        started.wait();
        thread::sleep(Duration::from_millis(3 * round));
        child.signal(Signal::SIGKILL);
        child.die_of(Signal::SIGKILL);
    }
    let (compute, region) = (Compute::bind(), Region::new(4));
    compute.write(region.span(), 1);
    check_counting(&region, 1);
}

fn exit_without_closing() {
    Child::spawn(|| {
        let (compute, region) = (Compute::bind(), Region::new(8));
        compute.write(region.span(), 1);
        std::mem::forget((compute, region));
    })
    .succeed();
    let (compute, region) = (Compute::bind(), Region::new(4));
    compute.write(region.span(), 1);
    check_counting(&region, 1);
}

fn many_address_spaces() {
    let mut bound = Vec::new();
    let error = loop {
        let compute = Compute::unbound();
        match compute.try_bind() {
            Ok(_) => bound.push(compute),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Errno::ENOSPC);
    assert_eq!(bound.len(), 255);
    let region = Region::new(4);
    for (seed, compute) in (0..).zip(bound.iter().step_by(50)) {
        compute.write(region.span(), seed);
        check_counting(&region, seed);
    }
    drop(bound);
    let compute = Compute::bind();
    compute.write(region.span(), 77);
    check_counting(&region, 77);
}

fn unbind_with_a_bound_file() {
    let (compute, region) = (Compute::bind(), Region::new(16));
    let function = Function::of(compute.device());
    compute.write(region.span(), 1);
    function.unbind();
    assert_eq!(compute.try_read(region.span()), Err(LaunchError::Other(Errno::ENODEV)));
    check_counting(&region, 1);
    region.protect(0..4, ProtFlags::PROT_READ);
    region.unmap(8..16);
    function.bind();
    assert_eq!(compute.try_read(region.part(0..8)), Err(LaunchError::Other(Errno::ENODEV)));
    drop(compute);
    let compute = Compute::bind();
    compute.write(region.part(4..8), 5);
    drop(compute);
    assert_works();
}

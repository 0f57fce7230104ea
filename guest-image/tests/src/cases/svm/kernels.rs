// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the compute engine's kernels do to plain memory of the process.

use std::sync::atomic::Ordering;

use ersatz_abi::counter::Counter;
use ersatz_abi::kernel::next_random;
use ersatz_uapi::{FaultAccess, KernelKind, Launch, PageState};
use nix::sys::mman::ProtFlags;

use super::{WORDS, check_counting, sum_by_cpu, sum_by_device};
use crate::compute::{Compute, LaunchError};
use crate::pattern::{PAGE, Pattern};
use crate::region::{READ_WRITE, Region, Span};
use crate::suite::test_list;

test_list! { "svm":
    reads_what_the_cpu_wrote;
    writes_what_the_cpu_reads;
    memory_never_touched_is_faulted_in;
    every_kernel_has_its_result;
    a_chain_over_many_pages;
    a_copy_between_allocations;
    a_copy_ends_where_it_may_not_go_on;
    heap_and_stack_are_memory_too;
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

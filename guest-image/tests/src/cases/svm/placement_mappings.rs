// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that the device is advised to have mapped: it does not fault there, wherever that memory moves.

use std::sync::atomic::Ordering;
use std::thread;

use ersatz_abi::counter::Counter;
use ersatz_uapi::{Advice, Direction, FaultAccess, PageState};
use nix::sys::mman::{MmapAdvise, ProtFlags};

use super::super::fixture::{send, state_after_touch};
use super::{WORDS, check_counting, sum_by_cpu};
use crate::compute::{Compute, LaunchError};
use crate::pattern::Pattern;
use crate::process::{Child, Event};
use crate::region::{READ_WRITE, Region, Span};
use crate::suite::{Need, test_list};

test_list! { "placement_mappings":
    it_is_mapped_at_once;
    it_is_mapped_again_after_migrations;
    it_is_mapped_again_after_touches;
    it_is_mapped_again_after_an_eviction;
    huge_pages_are_mapped_again.needs(&[Need::HugePages, Need::VramPages(2048)]);
    what_is_made_later_is_mapped_at_a_fault;
    only_the_range_is_mapped;
    ranges_without_memory_cost_nothing;
    each_address_space_has_its_own;
    other_memory_at_the_addresses;
    a_child_keeps_what_it_inherited;
    rights_that_were_taken_away;
    advice_taken_back_is_forgotten;
    read_mostly_memory_is_mapped_for_reading;
    read_mostly_memory_stays_where_it_is;
    read_mostly_memory_does_not_count_as_written;
    a_kernel_works_while_its_memory_moves.patience(2);
    the_file_is_closed_while_its_memory_moves.patience(2);
}

/// Has the device do something without a fault.
fn without_fault(compute: &Compute, body: impl FnOnce()) {
    let watch = compute.device().watch();
    body();
    assert_eq!(watch.count(Counter::Faults), 0, "faults of the device");
}

fn read(compute: &Compute, span: Span) {
    assert_eq!(compute.try_read(span), Ok(()));
}

/// Reads and writes all of a region without a fault, and without changing it.
fn assert_mapped(compute: &Compute, region: &Region) {
    let sum = sum_by_cpu(region);
    without_fault(compute, || {
        read(compute, region.span());
        compute.atomic_add(region.span(), 1);
        compute.atomic_add(region.span(), u64::MAX);
    });
    assert_eq!(sum_by_cpu(region), sum);
}

fn it_is_mapped_at_once() {
    let (compute, region) = (Compute::bind(), Region::filled(700, Pattern::new(1)));
    compute.advise(region.span(), Advice::AccessedBy);
    without_fault(&compute, || compute.atomic_add(region.span(), 0));
    assert_mapped(&compute, &region);
    compute.device().assert_all(region.span(), PageState::System);
    region.check(Pattern::new(1));
}

fn it_is_mapped_again_after_migrations() {
    let (compute, region) = (Compute::bind(), Region::filled(700, Pattern::new(1)));
    compute.advise(region.span(), Advice::AccessedBy);
    for _ in 0..3 {
        send(compute.device(), &region);
        // Not by the sum that a CPU makes: that brings it back.
        without_fault(&compute, || {
            read(&compute, region.span());
            compute.atomic_add(region.span(), 0);
        });
        compute.device().assert_all(region.span(), PageState::Device);
        compute.device().to_system(region.span());
        assert_mapped(&compute, &region);
    }
    region.check(Pattern::new(1));
}

fn it_is_mapped_again_after_touches() {
    let (compute, region) = (Compute::bind(), Region::filled(100, Pattern::new(1)));
    compute.advise(region.span(), Advice::AccessedBy);
    send(compute.device(), &region);
    region.touch(50);
    without_fault(&compute, || read(&compute, region.span()));
    region.check(Pattern::new(1));
    compute.device().assert_all(region.span(), state_after_touch(compute.device()));
    assert_mapped(&compute, &region);
}

fn it_is_mapped_again_after_an_eviction() {
    let (compute, region) = (Compute::bind(), Region::filled(300, Pattern::new(1)));
    compute.advise(region.span(), Advice::AccessedBy);
    send(compute.device(), &region);
    compute.device().evict();
    compute.device().assert_all(region.span(), PageState::System);
    assert_mapped(&compute, &region);
    region.check(Pattern::new(1));
}

fn huge_pages_are_mapped_again() {
    let (compute, region) = (Compute::bind(), Region::huge(2));
    region.fill(Pattern::new(1));
    compute.advise(region.span(), Advice::AccessedBy);
    assert_mapped(&compute, &region);
    send(compute.device(), &region);
    without_fault(&compute, || read(&compute, region.span()));
    region.touch(700);
    without_fault(&compute, || compute.atomic_add(region.span(), 0));
    region.check(Pattern::new(1));
}

fn what_is_made_later_is_mapped_at_a_fault() {
    let (compute, region) = (Compute::bind(), Region::huge(1));
    compute.advise(region.span(), Advice::AccessedBy);
    region.fill(Pattern::new(1));
    let watch = compute.device().watch();
    read(&compute, region.span());
    // All of it at one fault, which may be reported for several accesses that are under way.
    let faults = watch.count(Counter::Faults);
    assert!((1..12).contains(&faults), "{faults} faults");
    assert_mapped(&compute, &region);
}

fn only_the_range_is_mapped() {
    let (compute, region) = (Compute::bind(), Region::filled(60, Pattern::new(1)));
    compute.advise(region.part(20..40), Advice::AccessedBy);
    without_fault(&compute, || read(&compute, region.part(20..40)));
    let watch = compute.device().watch();
    read(&compute, region.part(19..40));
    assert!(watch.count(Counter::Faults) > 0);
}

fn ranges_without_memory_cost_nothing() {
    let (compute, region) = (Compute::bind(), Region::filled(4, Pattern::new(1)));
    // 4 TiB, most of which nothing is mapped in.
    let first = region.span().address & !((4 << 40) - 1);
    compute.advise(Span { address: first, length: 4 << 40 }, Advice::AccessedBy);
    assert_mapped(&compute, &region);
}

fn each_address_space_has_its_own() {
    let (one, two, without) = (Compute::bind(), Compute::bind(), Compute::bind());
    let region = Region::filled(80, Pattern::new(1));
    one.advise(region.span(), Advice::AccessedBy);
    two.advise(region.span(), Advice::AccessedBy);
    send(one.device(), &region);
    for compute in [&one, &two] {
        without_fault(compute, || read(compute, region.span()));
    }
    let watch = without.device().watch();
    read(&without, region.span());
    assert!(watch.count(Counter::Faults) > 0);
    region.check(Pattern::new(1));
    for compute in [&one, &two] {
        assert_mapped(compute, &region);
    }
}

fn other_memory_at_the_addresses() {
    let (compute, region) = (Compute::bind(), Region::filled(40, Pattern::new(1)));
    compute.advise(region.span(), Advice::AccessedBy);
    region.advise(0..20, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
    region.unmap(30..40);
    compute.write(region.part(0..20), 7);
    for (index, word) in region.atomics(0, 20 * WORDS).iter().enumerate() {
        assert_eq!(word.load(Ordering::Relaxed), 7 + index as u64);
    }
    let gap = region.part(30..40);
    assert_eq!(compute.try_read(gap), Err(LaunchError::Fault(gap.address, FaultAccess::Read)));
    region.check_part(20..30, Pattern::new(1));
}

fn a_child_keeps_what_it_inherited() {
    let (compute, region, go) = (Compute::bind(), Region::filled(64, Pattern::new(1)), Event::new());
    compute.advise(region.span(), Advice::AccessedBy);
    let child = Child::spawn(|| {
        go.wait();
        region.check(Pattern::new(1));
    });
    without_fault(&compute, || read(&compute, region.span()));
    compute.write(region.span(), 5);
    go.signal();
    child.succeed();
    check_counting(&region, 5);
    assert_mapped(&compute, &region);
}

fn rights_that_were_taken_away() {
    let (compute, region) = (Compute::bind(), Region::filled(64, Pattern::new(1)));
    compute.advise(region.span(), Advice::AccessedBy);
    region.protect(0..64, ProtFlags::PROT_READ);
    without_fault(&compute, || read(&compute, region.span()));
    let expected = LaunchError::Fault(region.span().address, FaultAccess::Write);
    assert_eq!(compute.try_write(region.span(), 5), Err(expected));
    region.protect(0..64, READ_WRITE);
    region.check(Pattern::new(1));
    compute.write(region.span(), 5);
    check_counting(&region, 5);
}

fn advice_taken_back_is_forgotten() {
    let (compute, region) = (Compute::bind(), Region::filled(64, Pattern::new(1)));
    compute.advise(region.span(), Advice::AccessedBy);
    compute.advise(region.span(), Advice::None);
    send(compute.device(), &region);
    let watch = compute.device().watch();
    read(&compute, region.span());
    assert!(watch.count(Counter::Faults) > 0);
    compute.advise(region.span(), Advice::AccessedBy);
    without_fault(&compute, || compute.atomic_add(region.span(), 0));
    region.check(Pattern::new(1));
}

fn read_mostly_memory_is_mapped_for_reading() {
    let (compute, region) = (Compute::bind(), Region::filled(100, Pattern::new(1)));
    compute.advise(region.span(), Advice::ReadMostly);
    without_fault(&compute, || read(&compute, region.span()));
    let watch = compute.device().watch();
    compute.write(region.part(10..14), 3);
    let faults = watch.count(Counter::Faults);
    assert!((4..40).contains(&faults), "{faults} faults for 4 pages");
    without_fault(&compute, || {
        read(&compute, region.span());
        compute.write(region.part(10..14), 3);
    });
    region.check_part(0..10, Pattern::new(1));
    region.check_part(14..100, Pattern::new(1));
    let written = region.atomics(10 * crate::pattern::PAGE, 4 * WORDS);
    assert!(written.iter().enumerate().all(|(index, word)| word.load(Ordering::Relaxed) == 3 + index as u64));
    // What has moved is mapped for reading again.
    compute.device().migrate(region.span(), Direction::ToDevice);
    compute.device().to_system(region.span());
    without_fault(&compute, || read(&compute, region.span()));
    let watch = compute.device().watch();
    compute.write(region.part(10..14), 3);
    assert!(watch.count(Counter::Faults) >= 4);
}

fn read_mostly_memory_stays_where_it_is() {
    let (compute, region) = (Compute::bind(), Region::filled(64, Pattern::new(1)));
    compute.advise(region.span(), Advice::ReadMostly);
    let watch = compute.device().watch();
    for _ in 0..6 {
        read(&compute, region.span());
        region.check(Pattern::new(1));
    }
    compute.atomic_add(region.span(), 0);
    compute.device().assert_all(region.span(), PageState::System);
    watch.assert_pages(Counter::BytesToVram, 0);
    send(compute.device(), &region);
    for _ in 0..6 {
        without_fault(&compute, || read(&compute, region.span()));
    }
    compute.device().assert_all(region.span(), PageState::Device);
    region.check(Pattern::new(1));
    without_fault(&compute, || read(&compute, region.span()));
    compute.device().assert_all(region.span(), state_after_touch(compute.device()));
}

/// The kernel may drop what was not written since it was advised to be free: with the one kind of advice it does, with the other it must not.
fn read_mostly_memory_does_not_count_as_written() {
    let compute = Compute::bind();
    let dropped = |advice| {
        let region = Region::filled(64, Pattern::new(1));
        compute.advise(region.span(), advice);
        region.advise(0..64, MmapAdvise::MADV_FREE).expect("MADV_FREE");
        read(&compute, region.span());
        region.advise(0..64, MmapAdvise::MADV_PAGEOUT).expect("MADV_PAGEOUT");
        (0..64).filter(|&page| region.read(page) == [0; 4096]).count()
    };
    assert_eq!(dropped(Advice::AccessedBy), 0, "pages that the device may have written");
    assert!(dropped(Advice::ReadMostly) > 32, "pages that nobody has written");
}

fn a_kernel_works_while_its_memory_moves() {
    const ROUNDS: u64 = 60;
    for advice in [Advice::AccessedBy, Advice::ReadMostly] {
        let (compute, region) = (Compute::bind(), Region::new(200));
        compute.advise(region.span(), advice);
        compute.write(region.span(), 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    let way = if round % 2 == 0 { Direction::ToDevice } else { Direction::ToSystem };
                    compute.device().migrate(region.span(), way);
                }
            });
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    region.touch(round as usize * 3);
                }
            });
            for _ in 0..ROUNDS {
                compute.atomic_add(region.span(), 1);
            }
        });
        check_counting(&region, ROUNDS);
    }
}

fn the_file_is_closed_while_its_memory_moves() {
    let (keeper, region) = (Compute::bind(), Region::filled(200, Pattern::new(1)));
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..40 {
                keeper.device().migrate(region.span(), Direction::ToDevice);
                region.touch(round * 5);
                keeper.device().migrate(region.span(), Direction::ToSystem);
            }
        });
        for _ in 0..40 {
            let compute = Compute::bind();
            compute.advise(region.span(), Advice::AccessedBy);
            read(&compute, region.span());
        }
    });
    region.check(Pattern::new(1));
}

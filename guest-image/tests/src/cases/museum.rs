// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Faults that kernels and drivers have had with device memory, each asked for again. The comment above a test tells what went
//! wrong, and of which function.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ersatz_abi::counter::Counter;
use ersatz_uapi::{Direction, PageState};
use nix::libc;
use nix::sys::mman::{MmapAdvise, ProtFlags};

use super::cpu::run_on;
use super::fixture::{send, state_after_touch};
use super::folio::{HUGE, MEDIUM, NEEDS, WHOLE, assert_huge, check, huge, huge_on_device, small};
use super::page_map::entries;
use super::pin::Pin;
use super::remap::{lock_part, move_part_to, unlock_part};
use super::userfault::{Fault, REPORT_WRITE_PROTECT, Userfault, WRITE_PROTECT};
use crate::device::Device;
use crate::pattern::{PAGE, Pattern, dice};
use crate::process::Child;
use crate::region::{READ_WRITE, Region};
use crate::suite::{Need, test_list};

const COHERENT: &[Need] = &[Need::Coherent, Need::HugePages, Need::VramPages(4 * HUGE as u64)];

test_list! { "museum":
    windows_inside_a_huge_page_are_read_where_they_are.needs(NEEDS);
    pages_unlocked_on_another_cpu_are_evicted;
    pages_in_limbo_drained_while_evicted.patience(2);
    half_of_a_coherent_hole_is_protected.needs(COHERENT);
    half_of_a_coherent_hole_is_advised.needs(COHERENT);
    a_huge_page_behind_a_foreign_one_is_found.needs(&[Need::HugePages, Need::Kernel(7, 3)]);
    advice_for_coherent_huge_pages.needs(COHERENT);
    advice_for_private_huge_pages.needs(WHOLE);
    protection_by_userfaultfd_survives_mprotect.needs(NEEDS);
    migrations_against_splits.needs(NEEDS).patience(2);
    small_pages_where_huge_ones_were.needs(NEEDS);
    destinations_that_are_not_used.needs(NEEDS).patience(2);
    a_hole_wider_than_a_page_table.needs(NEEDS);
    a_hole_that_is_not_to_be_huge.needs(NEEDS);
    the_tail_of_a_partly_unmapped_huge_page.needs(NEEDS);
    a_window_smaller_than_the_huge_page.needs(NEEDS);
    a_mapping_smaller_than_the_huge_page.needs(NEEDS);
}

/// `hmm_range_fault` began at a private huge page's first page, wherever in it the range began.
fn windows_inside_a_huge_page_are_read_where_they_are() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge_on_device(&device, 2, pattern);
    for start in [0, 1, MEDIUM, HUGE / 2, HUGE / 2 + 3, HUGE - 5, HUGE, 2 * HUGE - MEDIUM] {
        for length in [1, 3, MEDIUM] {
            let pages = start..(start + length).min(2 * HUGE);
            device.assert_digests(region.part(pages.clone()), pages.len(), |index| pattern.digest(start + index));
        }
    }
    device.assert_all(region.span(), PageState::Device);
    region.check(pattern);
}

/// A page that is unlocked while it is mapped gets into a list of that CPU, which counts as a use: it could not be evicted.
fn pages_unlocked_on_another_cpu_are_evicted() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    run_on(1);
    let region = small(8, pattern);
    lock_part(&region, 0..8);
    send(&device, &region);
    unlock_part(&region, 0..8);
    run_on(0);
    let done = device.evict();
    assert_eq!((done.moved, done.left), (8, 0));
    device.assert_all(region.span(), PageState::System);
    region.check(pattern);
}

/// A page in nobody's use was isolated, and by then its list was drained: migrating it walked a dead process's reverse map.
fn pages_in_limbo_drained_while_evicted() {
    let device = Device::open();
    let free = device.free_pages();
    for round in 0..10 {
        Child::spawn(|| {
            run_on(1);
            let region = Region::filled(8, Pattern::new(round));
            region.lock();
            Device::open().to_device(region.span());
            std::mem::forget(region);
        })
        .succeed();
        thread::scope(|scope| {
            scope.spawn(|| {
                run_on(1);
                let region = Region::filled(64, Pattern::new(round));
                region.lock();
            });
            run_on(0);
            (0..3).for_each(|_| _ = device.evict());
        });
        device.evict();
        device.assert_free(free);
    }
}

/// A hole that is filled by the device, with a huge page if the kernel permits, and then written by the CPU.
fn filled_hole(device: &Device, pattern: Pattern) -> Region {
    let region = Region::huge(1);
    device.to_device(region.span());
    device.assert_all(region.span(), PageState::Device);
    region.fill(pattern);
    device.to_device(region.span());
    region
}

/// Splitting a coherent huge page put its pages onto the LRU list, over what the pagemap keeps there.
fn half_of_a_coherent_hole_is_protected() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = filled_hole(&device, pattern);
    region.protect(0..HUGE / 2, ProtFlags::PROT_READ);
    check(&device, &region, 0..HUGE, pattern);
    device.to_system(region.span());
    device.assert_all(region.span(), PageState::System);
    region.protect(0..HUGE / 2, READ_WRITE);
    region.check(pattern);
}

fn half_of_a_coherent_hole_is_advised() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = filled_hole(&device, pattern);
    region.advise(0..HUGE / 2, MmapAdvise::MADV_COLD).expect("MADV_COLD");
    check(&device, &region, 0..HUGE, pattern);
    device.to_system(region.part(0..HUGE / 2));
    assert_eq!(device.evict().left, 0);
    region.check(pattern);
}

/// The search for all mappings of a folio ended at the first huge page that was another one: what lay behind it was never
/// found, neither for a CPU's fault nor to unbind. Fixed in 7.3.
fn a_huge_page_behind_a_foreign_one_is_found() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge_on_device(&device, 2, pattern);
    // Both are half a huge page off their boundaries now, and a boundary is in the middle of each.
    let target = Region::huge(4);
    move_part_to(&region, 0..2 * HUGE, &target, HUGE / 2);
    target.advise(HUGE..2 * HUGE, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
    (HUGE..2 * HUGE).for_each(|index| target.write(index, &Pattern::new(2).page(index)));
    for index in (HUGE / 2..HUGE).chain(2 * HUGE..2 * HUGE + HUGE / 2) {
        assert!(target.read(index) == pattern.page(index - HUGE / 2), "page {index}");
    }
    target.check_part(HUGE..2 * HUGE, Pattern::new(2));
    assert_eq!(device.evict().left, 0);
}

/// `mbind` of some pages to the first node, moving them there.
fn bind(region: &Region, pages: std::ops::Range<usize>) {
    const MOVE: libc::c_uint = 1 << 1;
    let nodes = 1_u64;
    let start = region.pointer(pages.start * PAGE).as_ptr();
    // SAFETY: the memory is the region's own and keeps its content; the mask of nodes lives through the call.
    let result = unsafe {
        libc::syscall(libc::SYS_mbind, start, pages.len() * PAGE, libc::MPOL_BIND, &raw const nodes, 64_u64, MOVE)
    };
    // Pages that cannot move are no reason for the kernel to fail, without its being strict.
    assert_eq!(result, 0, "mbind: {}", std::io::Error::last_os_error());
}

/// Gives the kernel all advice that is about reclaim or placement, for half of a region and then for all of it.
fn advise_everything(device: &Device, region: &Region, pattern: Pattern) {
    for pages in [0..HUGE / 2, 0..HUGE] {
        for advice in [MmapAdvise::MADV_COLD, MmapAdvise::MADV_PAGEOUT, MmapAdvise::MADV_WILLNEED] {
            region.advise(pages.clone(), advice).unwrap_or_else(|error| panic!("{advice:?}: {error}"));
        }
        bind(region, pages.clone());
        device.migrate(region.span(), Direction::ToDevice);
    }
    check(device, region, 0..HUGE, pattern);
    device.to_device(region.span());
    region.advise(0..HUGE / 2, MmapAdvise::MADV_FREE).expect("MADV_FREE");
    region.advise(0..HUGE, MmapAdvise::MADV_FREE).expect("MADV_FREE");
    // Free to be lost, but not to become anything else.
    for index in 0..HUGE {
        let found = region.read(index);
        assert!(found == pattern.page(index) || found == [0; PAGE], "page {index} is neither what it was nor empty");
    }
    region.fill(Pattern::new(2));
    device.to_device(region.span());
    check(device, region, 0..HUGE, Pattern::new(2));
}

/// Device pages got into code for the LRU lists, which they are not on.
fn advice_for_coherent_huge_pages() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = filled_hole(&device, pattern);
    advise_everything(&device, &region, pattern);
}

/// The same advice met an assertion that an entry that is not present is one of a migration.
fn advice_for_private_huge_pages() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge_on_device(&device, 1, pattern);
    advise_everything(&device, &region, pattern);
}

/// `mprotect` built a private huge page's entry anew, without the protection.
fn protection_by_userfaultfd_survives_mprotect() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge(1, pattern);
    let userfault = Userfault::open(REPORT_WRITE_PROTECT);
    userfault.register(region.span(), WRITE_PROTECT);
    userfault.protect(region.span());
    device.to_device(region.span());
    region.protect(0..HUGE, ProtFlags::PROT_READ);
    region.protect(0..HUGE, READ_WRITE);
    let lost = entries(region.span()).iter().filter(|entry| !entry.is_protected()).count();
    assert_eq!(lost, 0, "pages that are no longer protected");
    let page = region.page(200);
    thread::scope(|scope| {
        scope.spawn(|| region.write(200, &Pattern::new(2).page(200)));
        let fault = userfault.next(Duration::from_secs(10));
        // Before the assertion: the scope ends only when the write has.
        userfault.unprotect(page);
        assert_eq!(fault, Some(Fault { address: page.address, protected: true }));
    });
    region.check_part(0..200, pattern);
    region.check_part(200..201, Pattern::new(2));
}

/// An entry for a private huge page was taken for one still after another thread had split it.
fn migrations_against_splits() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge(2, pattern);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut dice = dice(1);
            while !done.load(Ordering::Relaxed) {
                let start = dice.usize(0..2 * HUGE - 8);
                region.protect(start..start + 8, ProtFlags::PROT_READ);
                region.check_part(start..start + 1, pattern);
                region.protect(start..start + 8, READ_WRITE);
            }
        });
        for _ in 0..15 {
            device.migrate(region.span(), Direction::ToDevice);
            device.migrate(region.part(HUGE / 2..HUGE), Direction::ToSystem);
            device.migrate(region.span(), Direction::ToSystem);
        }
        done.store(true, Ordering::Relaxed);
    });
    check(&device, &region, 0..2 * HUGE, pattern);
}

/// A page that had been the tail of a huge page still named its head when it was used alone, or looked at while free.
fn small_pages_where_huge_ones_were() {
    let device = Device::open();
    let free = device.free_pages();
    for (round, pages) in [5, 1, HUGE + 3, 64].into_iter().enumerate() {
        drop(huge_on_device(&device, 3, Pattern::new(1)));
        device.assert_free(free);
        let pattern = Pattern::new(2 + round as u64);
        let region = small(pages, pattern);
        send(&device, &region);
        device.assert_digests(region.span(), pages, |index| pattern.digest(index));
        let done = device.evict();
        assert_eq!((done.moved, done.left), (pages as u64, 0));
        device.assert_free(free);
        region.check(pattern);
    }
}

/// A destination that was not used after all was given to the LRU list before it was freed.
fn destinations_that_are_not_used() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge(2, pattern);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut dice = dice(1);
            while !done.load(Ordering::Relaxed) {
                let start = dice.usize(0..2 * HUGE - 4);
                drop(Pin::new(&region, start..start + 4));
                // Or there would be hardly a moment in which a page can move.
                thread::sleep(Duration::from_micros(200));
            }
        });
        for _ in 0..6 {
            device.migrate(region.span(), Direction::ToDevice);
            device.migrate(region.span(), Direction::ToSystem);
        }
        done.store(true, Ordering::Relaxed);
    });
    check(&device, &region, 0..2 * HUGE, pattern);
}

/// Of a hole that no page table is there for, only the first 2 MiB were collected.
fn a_hole_wider_than_a_page_table() {
    let (device, region) = (Device::open(), Region::huge(4));
    let watch = device.watch();
    let done = device.migrate(region.span(), Direction::ToDevice);
    assert_eq!((done.moved, done.left), (4 * HUGE as u64, 0));
    watch.assert_pages(Counter::BytesFilled, 4 * HUGE);
    region.check_zero(0..4 * HUGE);
}

/// Holes became huge pages of the device though their memory was not to be huge.
fn a_hole_that_is_not_to_be_huge() {
    let (device, region) = (Device::open(), Region::huge(2));
    region.advise(0..2 * HUGE, MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
    let done = device.migrate(region.span(), Direction::ToDevice);
    assert_eq!((done.moved, done.left), (2 * HUGE as u64, 0));
    device.to_system(region.span());
    assert_huge(region.span(), 0);
    region.check_zero(0..2 * HUGE);
}

/// A fault on the tail of a folio that is mapped page by page was not served in its first round: SIGBUS.
fn the_tail_of_a_partly_unmapped_huge_page() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    for start in [0, 100, HUGE - 1] {
        let region = huge_on_device(&device, 1, pattern);
        region.unmap(start..start + 1);
        for index in [400, 7, 300] {
            assert_eq!(region.touch(index), pattern.page(index)[0], "page {index}");
            device.assert_all(region.page(index), state_after_touch(&device));
        }
        for pages in [0..start, start + 1..HUGE].into_iter().filter(|pages| !pages.is_empty()) {
            check(&device, &region, pages, pattern);
        }
    }
}

/// A folio was referenced once too often when only part of it was to be collected, and never could be split.
fn a_window_smaller_than_the_huge_page() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge_on_device(&device, 1, pattern);
    for start in [256, 0, HUGE - MEDIUM] {
        let window = region.part(start..start + MEDIUM);
        device.to_system(window);
        device.assert_all(window, PageState::System);
    }
    for index in [40, 300] {
        assert_eq!(region.touch(index), pattern.page(index)[0], "page {index}");
    }
    check(&device, &region, 0..HUGE, pattern);
}

/// The same for a fault near the end of a mapping, where no larger window fits.
fn a_mapping_smaller_than_the_huge_page() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    for count in [1, MEDIUM - 1, HUGE / 2 + 1] {
        let region = huge_on_device(&device, 1, pattern).resize(count);
        assert_eq!(region.touch(count - 1), pattern.page(count - 1)[0]);
        device.assert_all(region.page(count - 1), state_after_touch(&device));
        check(&device, &region, 0..count, pattern);
    }
}

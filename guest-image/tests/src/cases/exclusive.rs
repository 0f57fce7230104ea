// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory of the system that the device alone may access for a while, and what ends that: never at the cost of the content.

use std::sync::atomic::Ordering;
use std::thread;

use ersatz_uapi::{Direction, PageState};
use nix::errno::Errno;
use nix::sys::mman::{MmapAdvise, ProtFlags};

use super::fixture::{assert_works, send};
use super::page_map;
use crate::bus::Function;
use crate::compute::Compute;
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::process::Child;
use crate::region::{READ_WRITE, Region, Span};
use crate::suite::{Need, test_list};

test_list! { "exclusive":
    it_lasts_until_a_cpu_touches_the_page;
    it_can_be_had_again_and_again;
    device_writes_are_found;
    atomics_of_cpu_and_device_are_not_lost.patience(2);
    pages_on_the_device_are_brought_back;
    pages_never_touched_are_zeros;
    migration_waits_for_its_end;
    children_inherit_the_content;
    unmapping_and_discarding_end_it;
    moved_pages_keep_their_content;
    protection_ends_it;
    huge_pages_are_split.needs(&[Need::HugePages]);
    what_cannot_be_had_is_said;
    two_files_take_it_from_each_other;
    exit_and_kill_with_it;
    unbinding_leaves_the_content.disruptive().patience(2);
}

/// Number of pages of a range that no CPU may access.
fn exclusive_pages(span: Span) -> usize {
    // The kernel's page tables have an entry like that of a swapped page.
    page_map::entries(span).into_iter().filter(|entry| entry.is_swapped()).count()
}

/// A filled region that the device has exclusive access to.
fn given(compute: &Compute, pages: usize, pattern: Pattern) -> Region {
    let region = Region::filled(pages, pattern);
    compute.exclusive(region.span());
    assert_eq!(exclusive_pages(region.span()), pages);
    region
}

fn it_lasts_until_a_cpu_touches_the_page() {
    let (compute, pattern) = (Compute::bind(), Pattern::new(1));
    let region = given(&compute, 16, pattern);
    region.touch(3);
    assert_eq!(exclusive_pages(region.span()), 15);
    assert_eq!(exclusive_pages(region.page(3)), 0);
    region.check(pattern);
    assert_eq!(exclusive_pages(region.span()), 0);
}

fn it_can_be_had_again_and_again() {
    let (compute, pattern) = (Compute::bind(), Pattern::new(1));
    let region = Region::filled(8, pattern);
    for _ in 0..20 {
        compute.exclusive(region.span());
        // While it is exclusive already, too.
        compute.exclusive(region.span());
        region.check(pattern);
    }
}

fn device_writes_are_found() {
    let compute = Compute::bind();
    let region = given(&compute, 8, Pattern::new(1));
    compute.set(region.span(), 7);
    assert_eq!(exclusive_pages(region.span()), 8, "what the device does leaves it");
    assert!(region.atomics(0, 8 * PAGE / 8).iter().all(|word| word.load(Ordering::Relaxed) == 7));
}

fn atomics_of_cpu_and_device_are_not_lost() {
    const ROUNDS: u64 = 30;
    let (compute, region) = (Compute::bind(), Region::new(2));
    let words = region.atomics(0, 2 * PAGE / 8);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                for word in words {
                    word.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        for _ in 0..ROUNDS {
            compute.exclusive(region.span());
            compute.atomic_add(region.span(), 1 << 32);
        }
    });
    assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == ROUNDS << 32 | ROUNDS));
}

fn pages_on_the_device_are_brought_back() {
    let (compute, pattern) = (Compute::bind(), Pattern::new(1));
    let region = Region::filled(16, pattern);
    send(compute.device(), &region);
    compute.exclusive(region.span());
    assert_eq!(exclusive_pages(region.span()), 16);
    assert_eq!(compute.device().on_device(region.span()), 0);
    region.check(pattern);
}

fn pages_never_touched_are_zeros() {
    let (compute, region) = (Compute::bind(), Region::new(8));
    compute.exclusive(region.span());
    compute.atomic_add(region.part(0..4), 5);
    assert!(region.atomics(0, 4 * PAGE / 8).iter().all(|word| word.load(Ordering::Relaxed) == 5));
    region.check_zero(4..8);
}

fn migration_waits_for_its_end() {
    let (compute, pattern) = (Compute::bind(), Pattern::new(1));
    let region = given(&compute, 16, pattern);
    // The kernel leaves such entries where they are.
    assert_eq!(compute.device().migrate(region.span(), Direction::ToDevice).moved, 0);
    region.check(pattern);
    send(compute.device(), &region);
    compute.device().assert_all(region.span(), PageState::Device);
    region.check(pattern);
}

fn children_inherit_the_content() {
    let (compute, pattern) = (Compute::bind(), Pattern::new(1));
    let region = given(&compute, 16, pattern);
    let child = Child::spawn(|| {
        region.check(pattern);
        region.fill(Pattern::new(2));
        region.check(Pattern::new(2));
    });
    compute.exclusive(region.span());
    child.succeed();
    region.check(pattern);
}

fn unmapping_and_discarding_end_it() {
    let (compute, pattern) = (Compute::bind(), Pattern::new(1));
    let region = given(&compute, 16, pattern);
    region.advise(4..8, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
    region.unmap(12..16);
    assert_eq!(exclusive_pages(region.part(0..12)), 8);
    region.check_part(0..4, pattern);
    region.check_zero(4..8);
    region.check_part(8..12, pattern);
    assert_eq!(compute.try_exclusive(region.part(12..16).address, 4 * PAGE as u64), (0, Err(Errno::EFAULT)));
}

fn moved_pages_keep_their_content() {
    let (compute, pattern) = (Compute::bind(), Pattern::new(1));
    let region = given(&compute, 8, pattern);
    let moved = region.move_onto(Region::new(8));
    assert_eq!(compute.device().on_device(moved.span()), 0);
    moved.check(pattern);
    compute.exclusive(moved.span());
    compute.set(moved.span(), 3);
    assert!(moved.atomics(0, 8 * PAGE / 8).iter().all(|word| word.load(Ordering::Relaxed) == 3));
}

fn protection_ends_it() {
    let (compute, pattern) = (Compute::bind(), Pattern::new(1));
    let region = given(&compute, 8, pattern);
    region.protect(0..8, ProtFlags::PROT_READ);
    assert!(compute.try_write(region.span(), 1).is_err());
    region.check(pattern);
    assert_eq!(compute.try_exclusive(region.span().address, region.span().length), (0, Err(Errno::EPERM)));
    region.protect(0..8, READ_WRITE);
    compute.exclusive(region.span());
    region.check(pattern);
}

fn huge_pages_are_split() {
    let (compute, region, pattern) = (Compute::bind(), Region::huge(1), Pattern::new(1));
    region.fill(pattern);
    compute.exclusive(region.part(100..110));
    assert_eq!(exclusive_pages(region.span()), 10);
    region.check(pattern);
}

fn what_cannot_be_had_is_said() {
    let (compute, pattern) = (Compute::bind(), Pattern::new(1));
    let region = Region::filled(8, pattern);
    let Span { address, length } = region.span();
    assert_eq!(compute.try_exclusive(address + 8, length), (0, Err(Errno::EINVAL)), "not aligned");
    assert_eq!(compute.try_exclusive(address, 0), (0, Err(Errno::EINVAL)), "empty");
    assert_eq!(compute.try_exclusive(u64::MAX - PAGE as u64 + 1, 2 * PAGE as u64), (0, Err(Errno::EINVAL)), "wraps");
    assert_eq!(compute.try_exclusive(1 << 47, PAGE as u64), (0, Err(Errno::EFAULT)), "nobody's");
    assert_eq!(Compute::unbound().try_exclusive(address, length), (0, Err(Errno::EINVAL)), "not bound");
    region.protect(5..8, ProtFlags::PROT_READ);
    assert_eq!(compute.try_exclusive(address, length), (5, Err(Errno::EPERM)), "as far as it goes");
    let shared = Region::shared(4);
    shared.fill(pattern);
    assert_eq!(compute.try_exclusive(shared.span().address, PAGE as u64), (0, Err(Errno::EOPNOTSUPP)), "a file's");
    Child::spawn(|| {
        assert_eq!(compute.try_exclusive(address, PAGE as u64), (0, Err(Errno::EPERM)), "another process's");
    })
    .succeed();
    region.check(pattern);
}

fn two_files_take_it_from_each_other() {
    let (first, second, pattern) = (Compute::bind(), Compute::bind(), Pattern::new(1));
    let region = Region::filled(8, pattern);
    for round in 0..10 {
        first.exclusive(region.span());
        first.set(region.part(0..4), round);
        second.exclusive(region.span());
        second.atomic_add(region.part(0..4), 1);
    }
    assert!(region.atomics(0, 4 * PAGE / 8).iter().all(|word| word.load(Ordering::Relaxed) == 10));
    region.check_part(4..8, pattern);
}

fn exit_and_kill_with_it() {
    Child::spawn(|| {
        let compute = Compute::bind();
        let region = given(&compute, 16, Pattern::new(1));
        std::mem::forget((compute, region));
    })
    .succeed();
    let child = Child::spawn(|| {
        let compute = Compute::bind();
        let _region = given(&compute, 16, Pattern::new(1));
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).expect("SIGKILL");
    });
    child.die_of(nix::sys::signal::Signal::SIGKILL);
    assert_works();
}

fn unbinding_leaves_the_content() {
    let (compute, pattern) = (Compute::bind(), Pattern::new(1));
    let region = given(&compute, 16, pattern);
    let function = Function::of(compute.device());
    function.unbind();
    assert_eq!(compute.try_exclusive(region.span().address, region.span().length), (0, Err(Errno::ENODEV)));
    region.check_part(0..8, pattern);
    function.bind();
    region.check(pattern);
    drop(compute);
    assert_works();
    let _ = Device::open();
}

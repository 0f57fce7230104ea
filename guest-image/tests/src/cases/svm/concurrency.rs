// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernels beside CPUs, beside each other, and beside changes of what they work on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ersatz_uapi::FaultAccess;
use nix::sys::mman::{MmapAdvise, ProtFlags};

use super::{WORDS, check_counting};
use crate::compute::{Compute, LaunchError};
use crate::process::Child;
use crate::region::{READ_WRITE, Region};
use crate::suite::test_list;

test_list! { "svm":
    atomics_of_cpu_and_device_are_not_lost.patience(2);
    discarding_during_kernels.patience(3);
    threads_launch_at_once.patience(2);
    two_processes_keep_apart;
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

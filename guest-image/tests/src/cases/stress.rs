// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Everything at once and at random: processes do to their memory whatever a process can, while another one evicts.
//!
//! It lasts some seconds, or as long as `ERSATZ_STRESS_SECONDS` says:
//!
//! ```text
//! ersatz run -- sh -c 'ERSATZ_STRESS_SECONDS=600 ersatz-guest-tests --exact --timeout 900 stress.random_operations'
//! ```
//!
//! The report names the seed; with `--seed` each process does the same in the same order.

use std::time::{Duration, Instant};

use nix::libc;

use super::limited::Limited;
use super::stress_memory::{LARGEST, Memory};
use crate::device::Device;
use crate::pattern::dice;
use crate::process::Child;
use crate::suite::{Need, test_list};

const NEEDS: &[Need] = &[Need::HugePages, Need::NoKasan];

test_list! { "stress":
    random_operations.needs(NEEDS).disruptive().patience(3);
}

/// How long it lasts unless the environment says otherwise.
const USUAL_SECONDS: u64 = 15;
/// Processes at work.
const WORKERS: u64 = 2;
/// Regions of each.
const REGIONS: usize = 4;
/// VRAM in pages: a quarter of what the processes have together, at most.
const ROOM: usize = WORKERS as usize * REGIONS * LARGEST / 4;

fn seconds() -> u64 {
    const VARIABLE: &str = "ERSATZ_STRESS_SECONDS";
    std::env::var(VARIABLE).map_or(USUAL_SECONDS, |text| {
        text.parse().unwrap_or_else(|error| panic!("{VARIABLE} is {text:?}, which is no number of seconds: {error}"))
    })
}

fn random_operations() {
    let _limited = Limited::to(ROOM);
    if !Device::open().is_coherent() {
        do_without_huge_pages();
    }
    let end = Instant::now() + Duration::from_secs(seconds());
    let workers = (0..WORKERS).map(|worker| Child::spawn(move || work(worker, end)));
    let evictor = Child::spawn(move || evict_now_and_then(end));
    workers.chain([evictor]).collect::<Vec<_>>().into_iter().for_each(Child::succeed);
}

/// Keeps this process and those it forks from huge pages.
///
/// Kernels 7.2 and 7.3 corrupt a huge page of private memory that is zapped (`MADV_DONTNEED`, `munmap`) on its way back: `zap_huge_pmd_folio()` takes
/// the migration entry for one of the device, and drops reference and map count a second time. That is no fault of a driver, and soon
/// found here.
fn do_without_huge_pages() {
    // SAFETY: the call takes numbers and changes no memory.
    let result = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    assert_eq!(result, 0, "PR_SET_THP_DISABLE: {}", std::io::Error::last_os_error());
}

/// One process's operations.
fn work(worker: u64, end: Instant) {
    let device = Device::open();
    let mut dice = dice(worker);
    let mut memories: Vec<Memory> = (0..REGIONS).map(|_| Memory::new(&mut dice)).collect();
    let mut steps = 0_u64;
    while Instant::now() < end {
        let index = dice.usize(0..REGIONS);
        let memory = memories.swap_remove(index);
        memories.push(memory.step(&device, &mut dice));
        steps += 1;
        if dice.u8(0..40) == 0 {
            fork(&memories, dice.u64(..));
        }
    }
    memories.iter().for_each(Memory::check_all);
    println!("process {worker}: {steps} operations");
}

/// A forked process goes on by itself for a while, with memory that it has in common with this one at first.
fn fork(memories: &[Memory], seed: u64) {
    Child::spawn(|| {
        let (device, mut dice) = (Device::open(), fastrand::Rng::with_seed(seed));
        for _ in 0..6 {
            memories[dice.usize(0..memories.len())].check_some(&device, &mut dice);
        }
        memories[dice.usize(0..memories.len())].scribble(&device, &mut dice);
    })
    .succeed();
}

fn evict_now_and_then(end: Instant) {
    let (device, mut dice) = (Device::open(), dice(WORKERS));
    while Instant::now() < end {
        device.evict();
        std::thread::sleep(Duration::from_millis(dice.u64(0..200)));
    }
}

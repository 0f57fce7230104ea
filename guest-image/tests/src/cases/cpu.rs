// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! On which CPU a thread runs: the kernel keeps lists of pages for each.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Keeps the calling thread on one CPU from here on.
///
/// # Panics
///
/// If there is no such CPU.
pub fn run_on(cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).unwrap_or_else(|error| panic!("CPU {cpu}: {error}"));
    sched_setaffinity(Pid::from_raw(0), &cpus)
        .unwrap_or_else(|error| panic!("a test for two CPUs, on CPU {cpu}: {error}"));
}

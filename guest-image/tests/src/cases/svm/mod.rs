// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Shared virtual memory: the device works on plain memory of the process, and finds there what the process would.

pub mod changes;
pub mod concurrency;
pub mod hazards;
pub mod kernels;
pub mod life_cycle;
pub mod migration;
pub mod placement;
pub mod placement_mappings;
pub mod refusals;

use std::sync::atomic::Ordering;

use crate::compute::Compute;
use crate::pattern::PAGE;
use crate::region::Region;

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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Page contents that can be made again: a seed, a tag and an index say every byte.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in a page.
pub const PAGE: usize = 4096;

/// What all patterns of this process derive from; set once per test by the runner.
static SEED: AtomicU64 = AtomicU64::new(0);

/// Sets what all later patterns and dice derive from: a run's seed, told apart by the test's name.
pub fn seed(run: u64, name: &str) {
    SEED.store(run ^ (u64::from(crc32c::crc32c(name.as_bytes())) << 16), Ordering::Relaxed);
}

/// Random numbers for a test's decisions, the same ones for the same seed and tag.
pub fn dice(tag: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(SEED.load(Ordering::Relaxed).wrapping_add(tag.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// The contents of any number of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern(u64);

impl Pattern {
    /// The pattern of a tag: patterns of different tags have nothing in common.
    pub fn new(tag: u64) -> Self {
        Self(dice(tag).u64(..))
    }

    /// The content of one page.
    pub fn page(self, index: usize) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        fastrand::Rng::with_seed(self.0 ^ (index as u64).rotate_left(32)).fill(&mut page);
        page
    }

    /// One word of contents that are cheaper to make, for memory that is not taken by pages.
    pub fn word(self, index: u64) -> u64 {
        (self.0 ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// What the device is to report of that page.
    pub fn digest(self, index: usize) -> u64 {
        u64::from(crc32c::crc32c(&self.page(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_repeat_and_differ() {
        let (one, other) = (Pattern::new(1), Pattern::new(2));
        assert_eq!(one.page(7), one.page(7));
        assert_ne!(one.page(7), one.page(8));
        assert_ne!(one.page(7), other.page(7));
        assert_ne!(one.digest(0), other.digest(0));
    }
}

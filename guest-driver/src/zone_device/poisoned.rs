// SPDX-License-Identifier: GPL-2.0
//! Which frames of a device have lost their content, and are not used again: one atomic bit per frame.
//!
//! The kernel has a page flag for it, `PG_hwpoison`, which pages of private memory must not have (`try_to_migrate_one()`, `mm/rmap.c`).

use kernel::{
    prelude::*,
    sync::atomic::{ordering, Atomic},
};

const WORD_BITS: usize = u64::BITS as usize;

/// The frames of a device, all good in the beginning. Frames that do not exist are good, too.
pub(super) struct Poisoned {
    words: KVVec<Atomic<u64>>,
    count: Atomic<i64>,
}

impl Poisoned {
    /// Notes on `frames` frames.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(frames: usize) -> Result<Self> {
        let length = frames.div_ceil(WORD_BITS);
        let mut words = KVVec::with_capacity(length, GFP_KERNEL)?;
        for _ in 0..length {
            words.push(Atomic::new(0), GFP_KERNEL)?;
        }
        Ok(Self { words, count: Atomic::new(0) })
    }

    /// Number of poisoned frames.
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.count.load(ordering::Relaxed)).unwrap_or(0)
    }

    /// Whether a frame is poisoned.
    pub(super) fn has(&self, index: usize) -> bool {
        let word = self.words.get(index / WORD_BITS).map_or(0, |word| word.load(ordering::Relaxed));
        word >> (index % WORD_BITS) & 1 != 0
    }

    /// Notes that a frame is poisoned. Returns whether it was good.
    pub(super) fn add(&self, index: usize) -> bool {
        let Some(word) = self.words.get(index / WORD_BITS) else { return false };
        let bit = 1 << (index % WORD_BITS);
        let mut value = word.load(ordering::Relaxed);
        while value & bit == 0 {
            match word.cmpxchg(value, value | bit, ordering::Full) {
                Ok(_) => {
                    self.count.fetch_add(1, ordering::Relaxed);
                    return true;
                }
                Err(now) => value = now,
            }
        }
        false
    }
}

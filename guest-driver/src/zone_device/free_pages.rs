// SPDX-License-Identifier: GPL-2.0
//! Which pages of a device are free: one atomic bit a page.
//!
//! The memory manager frees device pages from any context, hard interrupts included, so nothing here takes a lock or
//! allocates after construction. The same bits tell eviction which pages are in use.

use kernel::{
    prelude::*,
    sync::atomic::{ordering, Atomic},
};

const WORD_BITS: usize = u64::BITS as usize;

/// A set of the page indexes below [`FreePages::len`]; in the beginning all of them.
pub(crate) struct FreePages {
    /// A set bit is a free page. Bits past `len` are never set.
    words: KVVec<Atomic<u64>>,
    len: usize,
    free: Atomic<i64>,
    /// The word to look at first: neighbours in time become neighbours in memory.
    hint: Atomic<u64>,
}

impl FreePages {
    /// A set of `len` free pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EOVERFLOW` for a length that no machine has.
    pub(crate) fn new(len: usize) -> Result<Self> {
        let mut words = KVVec::with_capacity(len.div_ceil(WORD_BITS), GFP_KERNEL)?;
        for first in (0..len).step_by(WORD_BITS) {
            let bits = (len - first).min(WORD_BITS);
            words.push(Atomic::new(u64::MAX >> (WORD_BITS - bits)), GFP_KERNEL)?;
        }
        Ok(Self { words, len, free: Atomic::new(i64::try_from(len)?), hint: Atomic::new(0) })
    }

    /// The number of pages, free or not.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many pages are free; at once out of date if pages come and go.
    pub(crate) fn free(&self) -> usize {
        usize::try_from(self.free.load(ordering::Relaxed)).unwrap_or(0)
    }

    /// Takes a free page out of the set.
    pub(crate) fn take(&self) -> Option<usize> {
        let hint = self.hint.load(ordering::Relaxed) as usize;
        let hint = if hint < self.words.len() { hint } else { 0 };
        for word in Iterator::chain(hint..self.words.len(), 0..hint) {
            if let Some(bit) = self.take_lowest(word) {
                self.free.fetch_sub(1, ordering::Relaxed);
                self.hint.store(word as u64, ordering::Relaxed);
                return Some(word * WORD_BITS + bit);
            }
        }
        None
    }

    fn take_lowest(&self, word: usize) -> Option<usize> {
        let word = &self.words[word];
        let mut value = word.load(ordering::Relaxed);
        while value != 0 {
            // Acquire: what the page's last user did comes before what the next one does.
            match word.cmpxchg(value, value & (value - 1), ordering::Acquire) {
                Ok(_) => return Some(value.trailing_zeros() as usize),
                Err(now) => value = now,
            }
        }
        None
    }

    /// Puts a page back. An index that is out of range or already free is left alone, and reported as `false`.
    pub(crate) fn put(&self, index: usize) -> bool {
        if index >= self.len {
            return false;
        }
        let word = &self.words[index / WORD_BITS];
        let bit = 1 << (index % WORD_BITS);
        let mut value = word.load(ordering::Relaxed);
        loop {
            if value & bit != 0 {
                return false;
            }
            match word.cmpxchg(value, value | bit, ordering::Release) {
                Ok(_) => break,
                Err(now) => value = now,
            }
        }
        self.free.fetch_add(1, ordering::Relaxed);
        true
    }

    /// The first page at or behind `from` that is in use.
    pub(crate) fn next_used(&self, from: usize) -> Option<usize> {
        let mut index = from;
        while index < self.len {
            let used = !self.words[index / WORD_BITS].load(ordering::Relaxed) >> (index % WORD_BITS);
            if used != 0 {
                // Past the end all bits read as used.
                return Some(index + used.trailing_zeros() as usize).filter(|&index| index < self.len);
            }
            index = (index / WORD_BITS + 1) * WORD_BITS;
        }
        None
    }
}

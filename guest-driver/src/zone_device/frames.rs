// SPDX-License-Identifier: GPL-2.0
//! Which page frames of a device are free: one atomic bit per frame, in blocks of 2 MiB.
//!
//! The memory manager frees device folios from any context, hard interrupts included, so nothing here takes a lock or
//! allocates after construction. A folio that is split needs no notice: its frames stay in use and are freed one by one.
//!
//! Single frames are taken from blocks that are in use already, and blocks are broken up only when there is no such frame, so that
//! small folios do not use up what large ones need. Each block has a stamp, which says when frames of it were last taken or
//! used; eviction takes the blocks with the oldest.

use core::ops::Range;
use kernel::{
    prelude::*,
    sync::atomic::{ordering, Atomic},
};

/// Base-2 logarithm of the number of frames in a block: the size of a huge folio.
pub(crate) const BLOCK_ORDER: u32 = 9;
/// Number of frames in a block.
pub(crate) const BLOCK_PAGES: usize = 1 << BLOCK_ORDER;

const WORD_BITS: usize = u64::BITS as usize;
const BLOCK_WORDS: usize = BLOCK_PAGES / WORD_BITS;

/// The frames of a device, all free in the beginning.
///
/// Private to this layer, but for what [`PageMap`](super::pagemap::PageMap) shows of it: only the map knows when a frame's
/// reference count is zero.
pub(super) struct Frames {
    /// A set bit is a free frame.
    words: KVVec<Atomic<u64>>,
    blocks: KVVec<Block>,
    free: Atomic<i64>,
    /// The time, counted in takings.
    clock: Atomic<u64>,
    /// The block to look at first for a single frame, and for a whole block: the lowest that may have what is looked for, so that
    /// the memory in use stays together.
    next_page: Atomic<u64>,
    next_block: Atomic<u64>,
}

struct Block {
    free: Atomic<i64>,
    stamp: Atomic<u64>,
}

impl Frames {
    /// `blocks` blocks of free frames.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EOVERFLOW` for a number that no machine has.
    pub(super) fn new(blocks: usize) -> Result<Self> {
        let pages = blocks.checked_mul(BLOCK_PAGES).ok_or(EOVERFLOW)?;
        let mut words = KVVec::with_capacity(pages / WORD_BITS, GFP_KERNEL)?;
        for _ in 0..pages / WORD_BITS {
            words.push(Atomic::new(u64::MAX), GFP_KERNEL)?;
        }
        let mut list = KVVec::with_capacity(blocks, GFP_KERNEL)?;
        for _ in 0..blocks {
            list.push(Block { free: Atomic::new(BLOCK_PAGES as i64), stamp: Atomic::new(0) }, GFP_KERNEL)?;
        }
        Ok(Self {
            words,
            blocks: list,
            free: Atomic::new(i64::try_from(pages)?),
            clock: Atomic::new(1),
            next_page: Atomic::new(0),
            next_block: Atomic::new(0),
        })
    }

    /// Number of frames, free or not.
    pub(super) fn len(&self) -> usize {
        self.blocks.len() * BLOCK_PAGES
    }

    /// Number of free frames; at once out of date if frames come and go.
    pub(super) fn free(&self) -> usize {
        usize::try_from(self.free.load(ordering::Relaxed)).unwrap_or(0)
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Takes a free frame, from a block that is in use if there is one.
    pub(super) fn take_page(&self) -> Option<usize> {
        if self.free() == 0 {
            return None;
        }
        for whole_too in [false, true] {
            for block in self.blocks_from(&self.next_page) {
                let free = self.blocks[block].free.load(ordering::Relaxed);
                if free <= 0 || (!whole_too && free == BLOCK_PAGES as i64) {
                    continue;
                }
                if let Some(index) = Self::words_of(block).find_map(|word| self.take_lowest(word)) {
                    self.taken(block, 1);
                    self.next_page.store(block as u64, ordering::Relaxed);
                    return Some(index);
                }
            }
        }
        None
    }

    /// Takes a whole block; the index of its first frame.
    pub(super) fn take_block(&self) -> Option<usize> {
        for block in self.blocks_from(&self.next_block) {
            if self.blocks[block].free.load(ordering::Relaxed) == BLOCK_PAGES as i64 && self.take_words(block) {
                self.taken(block, BLOCK_PAGES as i64);
                self.next_block.store(block as u64, ordering::Relaxed);
                return Some(block * BLOCK_PAGES);
            }
        }
        None
    }

    /// Number of free frames of a block; at once out of date if frames come and go.
    pub(super) fn free_of(&self, block: usize) -> usize {
        let free = self.blocks.get(block).map_or(0, |block| block.free.load(ordering::Relaxed));
        usize::try_from(free).unwrap_or(0)
    }

    /// Takes one particular frame, if it is free.
    pub(super) fn take(&self, index: usize) -> bool {
        if index >= self.len() {
            return false;
        }
        let bit = 1 << (index % WORD_BITS);
        let word = &self.words[index / WORD_BITS];
        let mut value = word.load(ordering::Relaxed);
        while value & bit != 0 {
            match word.cmpxchg(value, value & !bit, ordering::Acquire) {
                Ok(_) => {
                    self.taken(index / BLOCK_PAGES, 1);
                    return true;
                }
                Err(now) => value = now,
            }
        }
        false
    }

    /// Gives frames of one block back. Frames that are out of range or already free are not touched, and reported as `false`.
    pub(super) fn put(&self, frames: Range<usize>) -> bool {
        if frames.end > self.len() {
            return false;
        }
        let mut all_were_taken = true;
        let mut index = frames.start;
        while index < frames.end {
            let first = index % WORD_BITS;
            let count = (WORD_BITS - first).min(frames.end - index);
            let bits = (u64::MAX >> (WORD_BITS - count)) << first;
            let given = bits & !self.set(index / WORD_BITS, bits);
            all_were_taken &= given == bits;
            let number = i64::from(given.count_ones());
            self.blocks[index / BLOCK_PAGES].free.fetch_add(number, ordering::Relaxed);
            self.free.fetch_add(number, ordering::Relaxed);
            index += count;
        }
        let block = (frames.start / BLOCK_PAGES) as u64;
        for hint in [&self.next_page, &self.next_block] {
            if hint.load(ordering::Relaxed) > block {
                hint.store(block, ordering::Relaxed);
            }
        }
        all_were_taken
    }

    /// Notes that frames of a block were used just now.
    pub(super) fn touch(&self, block: usize) {
        if let Some(block) = self.blocks.get(block) {
            block.stamp.store(self.now(), ordering::Relaxed);
        }
    }

    /// A stamp newer than all that were given out before.
    pub(super) fn now(&self) -> u64 {
        self.clock.fetch_add(1, ordering::Relaxed)
    }

    /// The block in use with the oldest stamp within `stamps`, and that stamp.
    pub(super) fn oldest_within(&self, stamps: Range<u64>) -> Option<(usize, u64)> {
        let stamp_of = |block: &Block| block.stamp.load(ordering::Relaxed);
        let candidates = self.blocks.iter().enumerate().filter_map(|(index, block)| {
            let in_use = block.free.load(ordering::Relaxed) < BLOCK_PAGES as i64;
            Some((index, stamp_of(block))).filter(|(_, stamp)| in_use && stamps.contains(stamp))
        });
        candidates.min_by_key(|&(_, stamp)| stamp)
    }

    /// The first frame at or behind `from` that is in use.
    pub(super) fn next_used(&self, from: usize) -> Option<usize> {
        let mut index = from;
        while index < self.len() {
            let used = !self.words[index / WORD_BITS].load(ordering::Relaxed) >> (index % WORD_BITS);
            if used != 0 {
                return Some(index + used.trailing_zeros() as usize);
            }
            index = (index / WORD_BITS + 1) * WORD_BITS;
        }
        None
    }

    fn words_of(block: usize) -> Range<usize> {
        block * BLOCK_WORDS..(block + 1) * BLOCK_WORDS
    }

    /// All blocks, in a circle from the one that a hint names.
    fn blocks_from(&self, hint: &Atomic<u64>) -> impl Iterator<Item = usize> {
        let hint = hint.load(ordering::Relaxed) as usize;
        let hint = if hint < self.blocks.len() { hint } else { 0 };
        Iterator::chain(hint..self.blocks.len(), 0..hint)
    }

    fn taken(&self, block: usize, pages: i64) {
        self.blocks[block].free.fetch_sub(pages, ordering::Relaxed);
        self.free.fetch_sub(pages, ordering::Relaxed);
        self.touch(block);
    }

    fn take_lowest(&self, index: usize) -> Option<usize> {
        let word = &self.words[index];
        let mut value = word.load(ordering::Relaxed);
        while value != 0 {
            // Acquire: the end of the frame's last use happens before its next one.
            match word.cmpxchg(value, value & (value - 1), ordering::Acquire) {
                Ok(_) => return Some(index * WORD_BITS + value.trailing_zeros() as usize),
                Err(now) => value = now,
            }
        }
        None
    }

    /// Takes all words of a block, or none.
    fn take_words(&self, block: usize) -> bool {
        for index in Self::words_of(block) {
            if self.words[index].cmpxchg(u64::MAX, 0, ordering::Acquire).is_err() {
                for taken in Self::words_of(block).take_while(|&taken| taken < index) {
                    // All frames of the word were taken just now, so nobody else changes it.
                    self.words[taken].store(u64::MAX, ordering::Release);
                }
                return false;
            }
        }
        true
    }

    /// Sets bits of a word; its value before.
    fn set(&self, index: usize, bits: u64) -> u64 {
        let word = &self.words[index];
        let mut value = word.load(ordering::Relaxed);
        loop {
            match word.cmpxchg(value, value | bits, ordering::Release) {
                Ok(_) => return value,
                Err(now) => value = now,
            }
        }
    }
}

// SPDX-License-Identifier: GPL-2.0
//! Frames that are kept from use although nobody uses them: the memory behind them is somebody else's for a while.
//!
//! A frame in use is *claimed* first. When the memory manager frees a claimed frame, that is *withheld* instead of free: no other
//! allocation can have it in between. A claim is settled in the end, whether or not the frame was freed by then.
//!
//! As in [`frames`](super::frames), nothing here takes a lock or allocates after construction, since folios are freed in any context.

use core::ops::Range;
use kernel::{
    prelude::*,
    sync::atomic::{ordering, Atomic},
};

/// Bits of a frame's state.
const BITS: usize = 2;
const FRAMES_PER_WORD: usize = u64::BITS as usize / BITS;
/// It is to be withheld when it is freed.
const CLAIMED: u64 = 1;
/// It is withheld.
const WITHHELD: u64 = 2;
const MASK: u64 = CLAIMED | WITHHELD;

/// The states of a device's frames, none claimed or withheld in the beginning. Frames that do not exist are never either.
pub(super) struct Withheld {
    words: KVVec<Atomic<u64>>,
    claimed: Atomic<i64>,
    withheld: Atomic<i64>,
}

impl Withheld {
    /// States of `frames` frames.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(frames: usize) -> Result<Self> {
        let words = frames.div_ceil(FRAMES_PER_WORD);
        let mut list = KVVec::with_capacity(words, GFP_KERNEL)?;
        for _ in 0..words {
            list.push(Atomic::new(0), GFP_KERNEL)?;
        }
        Ok(Self { words: list, claimed: Atomic::new(0), withheld: Atomic::new(0) })
    }

    /// Whether any frame is claimed.
    pub(super) fn is_claiming(&self) -> bool {
        self.claimed.load(ordering::Relaxed) > 0
    }

    /// Number of frames that are withheld.
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.withheld.load(ordering::Relaxed)).unwrap_or(0)
    }

    /// Whether a frame is withheld.
    pub(super) fn is_withheld(&self, index: usize) -> bool {
        let word = self.words.get(index / FRAMES_PER_WORD).map_or(0, |word| word.load(ordering::Relaxed));
        (word >> (index % FRAMES_PER_WORD * BITS)) & WITHHELD != 0
    }

    /// Claims a frame. Returns `false` if it is claimed or withheld already.
    pub(super) fn claim(&self, index: usize) -> bool {
        // Counted before anybody can free a frame that is claimed.
        self.claimed.fetch_add(1, ordering::Relaxed);
        let is_new = self.change(index, |state| (state == 0).then_some(CLAIMED)).is_some();
        if !is_new {
            self.claimed.fetch_sub(1, ordering::Relaxed);
        }
        is_new
    }

    /// Withholds a frame that is being freed, if it is claimed. Returns whether it is.
    pub(super) fn keep(&self, index: usize) -> bool {
        let is_kept = self.change(index, |state| (state == CLAIMED).then_some(MASK)).is_some();
        self.withheld.fetch_add(is_kept.into(), ordering::Relaxed);
        is_kept
    }

    /// Ends the claim of a frame. Returns whether it is withheld; `None` if it was not claimed.
    pub(super) fn settle(&self, index: usize) -> Option<bool> {
        let before = self.change(index, |state| (state & CLAIMED != 0).then_some(state & WITHHELD))?;
        self.claimed.fetch_sub(1, ordering::Relaxed);
        Some(before & WITHHELD != 0)
    }

    /// Withholds a frame that nobody uses and that the caller has taken.
    pub(super) fn withhold(&self, index: usize) {
        if self.change(index, |state| (state & WITHHELD == 0).then_some(state | WITHHELD)).is_some() {
            self.withheld.fetch_add(1, ordering::Relaxed);
        }
    }

    /// Ends the withholding of a frame whose claim is settled. Returns whether it was withheld: it is the caller's now.
    pub(super) fn release(&self, index: usize) -> bool {
        let is_released = self.change(index, |state| (state == WITHHELD).then_some(0)).is_some();
        self.withheld.fetch_sub(is_released.into(), ordering::Relaxed);
        is_released
    }

    /// Changes the state of a frame to what `change` says, unless it says nothing. Returns the state before.
    fn change(&self, index: usize, change: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let word = self.words.get(index / FRAMES_PER_WORD)?;
        let shift = index % FRAMES_PER_WORD * BITS;
        let mut value = word.load(ordering::Relaxed);
        loop {
            let state = (value >> shift) & MASK;
            let new = (value & !(MASK << shift)) | (change(state)? << shift);
            // Full: the end of the frame's last use happens before its next one.
            match word.cmpxchg(value, new, ordering::Full) {
                Ok(_) => return Some(state),
                Err(now) => value = now,
            }
        }
    }
}

/// Calls `found` with each longest run of neighbours in a range that `is_wanted` returns true for, in order; it is called once per index.
pub(crate) fn for_each_run(
    range: Range<usize>,
    mut is_wanted: impl FnMut(usize) -> bool,
    mut found: impl FnMut(Range<usize>),
) {
    let mut first = None;
    for index in range.clone() {
        match (is_wanted(index), first) {
            (true, None) => first = Some(index),
            (false, Some(start)) => {
                first = None;
                found(start..index);
            }
            _ => {}
        }
    }
    if let Some(start) = first {
        found(start..range.end);
    }
}

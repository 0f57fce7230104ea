// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The protocol of one slot: how a record is published, and when it may be believed.
//!
//! Written against a trait instead of [`AtomicU64`], so that the model checker runs the very code the log runs.

use std::sync::atomic::{AtomicU64, Ordering};

use super::record::RECORD_WORDS;

// Words are stored as they are, and the file is little-endian.
const _: () = assert!(cfg!(target_endian = "little"), "the trace log is written by little-endian hosts only");

/// A 64-bit atomic word.
pub trait Word {
    /// An atomic load.
    fn load(&self, order: Ordering) -> u64;
    /// An atomic store.
    fn store(&self, value: u64, order: Ordering);
    /// An atomic addition; returns what was there before.
    fn fetch_add(&self, value: u64, order: Ordering) -> u64;
}

impl Word for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.fetch_add(value, order)
    }
}

/// Takes the next slot for the calling thread alone; returns its index. Never fails: whether there is such a slot is
/// for the caller to find out.
#[inline]
pub fn claim<W: Word>(claimed: &W) -> u64 {
    // Relaxed is enough: the addition alone makes the slot the caller's, and nothing else hangs on it.
    claimed.fetch_add(1, Ordering::Relaxed)
}

/// Fills a slot that [`claim`] gave to the caller; `record[0]` is its sequence number.
#[inline]
pub fn publish<W: Word>(slot: &[&W; RECORD_WORDS], record: &[u64; RECORD_WORDS]) {
    for (word, value) in slot.iter().zip(record).skip(1) {
        word.store(*value, Ordering::Relaxed);
    }
    // Release: whoever sees the sequence number sees the payload.
    slot[0].store(record[0], Ordering::Release);
}

/// Reads a slot that is to hold sequence number `sequence`; `None` unless it was published.
pub fn collect<W: Word>(slot: &[&W; RECORD_WORDS], sequence: u64) -> Option<[u64; RECORD_WORDS]> {
    if slot[0].load(Ordering::Acquire) != sequence {
        return None;
    }
    Some(slot.map(|word| word.load(Ordering::Relaxed)))
}

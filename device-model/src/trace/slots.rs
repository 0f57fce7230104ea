// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The protocol of a slot: how it is claimed, and how its record is published.
//!
//! Written against a trait instead of [`AtomicU64`], so that the model checker runs the very code the log runs.

use std::sync::atomic::{AtomicU64, Ordering};

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

/// Takes the next `count` slots for the calling thread alone; returns the index of the first. Never fails: whether there are such
/// slots is for the caller to find out.
#[inline]
pub fn claim<W: Word>(claimed: &W, count: u64) -> u64 {
    // Relaxed is enough: the addition alone makes the slots the caller's, and nothing else hangs on it.
    claimed.fetch_add(count, Ordering::Relaxed)
}

/// Fills a slot that [`claim`] gave to the caller; `record[0]` is its sequence number.
#[inline]
pub fn publish<W: Word, const WORDS: usize>(slot: &[W; WORDS], record: &[u64; WORDS]) {
    for (word, value) in slot.iter().zip(record).skip(1) {
        word.store(*value, Ordering::Relaxed);
    }
    // Release: a reader that sees the sequence number sees the payload.
    slot[0].store(record[0], Ordering::Release);
}

#[cfg(test)]
mod tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64, fence};
    use loom::thread;

    use super::*;

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

    /// Slots of three words: enough for a payload to be torn.
    const WORDS: usize = 3;
    const SLOTS: usize = 3;

    #[derive(Default)]
    struct Log {
        claimed: AtomicU64,
        slots: [[AtomicU64; WORDS]; SLOTS],
    }

    impl Log {
        fn write(&self, values: &[u64]) {
            let first = claim(&self.claimed, values.len() as u64);
            for (index, &value) in (first..).zip(values) {
                publish(&self.slots[index as usize], &[index + 1, value, !value]);
            }
        }

        /// The reader's two looks: at the sequence number first, at the payload behind a fence.
        fn read(&self, index: usize) -> Option<[u64; WORDS]> {
            let slot = &self.slots[index];
            if slot[0].load(Ordering::Relaxed) != index as u64 + 1 {
                return None;
            }
            fence(Ordering::Acquire);
            Some(slot.each_ref().map(|word| word.load(Ordering::Relaxed)))
        }
    }

    /// Every interleaving and every reordering the memory model allows: no record is lost, none is doubled, and what a reader
    /// believes is whole.
    #[test]
    fn two_writers_and_a_reader_in_every_order() {
        loom::model(|| {
            let log = Arc::new(Log::default());
            let writers = [&[10][..], &[20, 21]].map(|values| {
                let log = log.clone();
                thread::spawn(move || log.write(values))
            });
            for index in 0..SLOTS {
                if let Some([sequence, value, inverse]) = log.read(index) {
                    assert_eq!((sequence, inverse), (index as u64 + 1, !value), "torn");
                    assert!([10, 20, 21].contains(&value));
                }
            }
            for writer in writers {
                writer.join().unwrap();
            }
            let values = [0, 1, 2].map(|index| log.read(index).expect("published")[1]);
            assert!(values == [10, 20, 21] || values == [20, 21, 10], "{values:?}");
        });
    }
}

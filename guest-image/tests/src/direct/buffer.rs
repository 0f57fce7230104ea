// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that CPU and device both use, and where the device finds it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use ersatz_abi::command::Location;

/// Bytes in a word.
const WORD: u64 = size_of::<AtomicU64>() as u64;

/// A piece of system memory, or of VRAM as BAR2 shows it. The device may change it at any time.
#[derive(Clone, Copy, Debug)]
pub struct Buffer<'a> {
    words: &'a [AtomicU64],
    location: Location,
}

impl<'a> Buffer<'a> {
    /// A piece that the device finds at `location`. It becomes all zeros.
    pub fn zeroed(words: &'a [AtomicU64], location: Location) -> Self {
        let buffer = Self { words, location };
        buffer.fill(|_| 0);
        buffer
    }

    /// Where the device finds it.
    pub fn location(&self) -> Location {
        self.location
    }

    /// Its address for the device.
    pub fn address(&self) -> u64 {
        self.location.address
    }

    /// Length in bytes.
    pub fn length(&self) -> u64 {
        self.words.len() as u64 * WORD
    }

    /// Some bytes of it: whole words.
    pub fn part(&self, bytes: Range<u64>) -> Self {
        let words = &self.words[(bytes.start / WORD) as usize..(bytes.end / WORD) as usize];
        let address = self.location.address + bytes.start;
        Self { words, location: Location { address, ..self.location } }
    }

    /// The word at a byte offset.
    pub fn word(&self, offset: u64) -> &'a AtomicU64 {
        assert_eq!(offset % WORD, 0, "the offset of a word");
        &self.words[(offset / WORD) as usize]
    }

    /// Reads the word at a byte offset; who reads something new there can read all that was written before it.
    pub fn read(&self, offset: u64) -> u64 {
        self.word(offset).load(Ordering::Acquire)
    }

    /// Writes the word at a byte offset, behind all that was written before.
    pub fn write(&self, offset: u64, value: u64) {
        self.word(offset).store(value, Ordering::Release);
    }

    /// Writes words from a byte offset on.
    pub fn write_words(&self, offset: u64, values: &[u64]) {
        values.iter().zip((offset..).step_by(WORD as usize)).for_each(|(&value, offset)| self.write(offset, value));
    }

    /// Writes every word, by its index.
    pub fn fill(&self, value: impl Fn(u64) -> u64) {
        self.words.iter().zip(0..).for_each(|(word, index)| word.store(value(index), Ordering::Relaxed));
    }

    /// Asserts what every word is, by its index.
    pub fn check(&self, expected: impl Fn(u64) -> u64) {
        for (word, index) in self.words.iter().zip(0..) {
            let (found, expected) = (word.load(Ordering::Relaxed), expected(index));
            assert_eq!(found, expected, "word {index} of {} at {:x?}", self.words.len(), self.location);
        }
    }

    /// Asserts that it holds what another one holds.
    pub fn check_same(&self, other: &Buffer<'_>) {
        assert_eq!(self.length(), other.length());
        self.check(|index| other.read(index * WORD));
    }

    /// Its content, for what works on bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect()
    }
}

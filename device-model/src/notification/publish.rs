// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The order in which the words of a record reach memory.
//!
//! Written against a trait instead of guest memory, so that the model checker runs the very code the device runs.

use ersatz_abi::notification::RECORD_VALID_WORD;

/// Words in a record.
pub(crate) const RECORD_WORDS: usize = 4;

/// The memory of one slot.
pub(crate) trait Slot {
    /// Why a word cannot be written.
    type Error;

    /// Writes a word that no reader looks at yet.
    fn write(&self, word: usize, value: u64) -> Result<(), Self::Error>;

    /// Writes a word with release ordering: a reader that sees it sees all that was written before.
    fn release(&self, word: usize, value: u64) -> Result<(), Self::Error>;
}

/// Writes a record, last the word with its valid bit.
pub(crate) fn publish<S: Slot>(slot: &S, record: &[u64; RECORD_WORDS]) -> Result<(), S::Error> {
    for (word, value) in record.iter().enumerate().filter(|(word, _)| *word != RECORD_VALID_WORD) {
        slot.write(word, *value)?;
    }
    slot.release(RECORD_VALID_WORD, record[RECORD_VALID_WORD])
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The layout of a record: eight 64-bit words.
//!
//! | word | bytes | field |
//! |---|---|---|
//! | 0 | 0–7 | sequence number, from 1; stored last |
//! | 1 | 8–15 | device clock in nanoseconds |
//! | 2 | 16 | [`Kind`] |
//! | 2 | 17 | detail: depends on the kind (opcode, apertures, outcome, ...) |
//! | 2 | 18 | flags: depend on the kind |
//! | 2 | 19 | cause (`ersatz_abi::command::Cause`) |
//! | 2 | 20 | status (`ersatz_abi::error::ErrorCode`) |
//! | 2 | 21 | channel, or [`NONE`] |
//! | 2 | 22 | engine, or [`NONE`] |
//! | 2 | 23 | device |
//! | 3 | 24–31 | address |
//! | 4 | 32–39 | second address |
//! | 5 | 40–47 | length |
//! | 6 | 48–55 | fence, fault or vector number |
//! | 7 | 56–63 | tag; of kinds about virtual memory the address space |

use super::event::Event;
use super::fields::Fields;
#[cfg(doc)]
use super::fields::NONE;
use super::kind::Kind;

/// Size of a record in bytes.
pub const RECORD_BYTES: usize = 64;
/// Number of words in a record.
pub const RECORD_WORDS: usize = RECORD_BYTES / 8;

impl Fields {
    /// The words of a record with these fields.
    #[inline]
    pub const fn to_words(self, sequence: u64, time: u64) -> [u64; RECORD_WORDS] {
        let packed =
            [self.kind, self.detail, self.flags, self.cause, self.status, self.channel, self.engine, self.device];
        [sequence, time, u64::from_le_bytes(packed), self.address, self.second, self.length, self.id, self.tag]
    }
}

/// One event that was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// From 1, without gaps as long as every claimed slot was published.
    pub sequence: u64,
    /// Device clock in nanoseconds. Taken after the sequence number: neighbours by different threads may be a little out
    /// of order.
    pub time: u64,
    /// The payload.
    pub fields: Fields,
}

impl Record {
    /// The record that these words hold.
    pub const fn from_words(words: &[u64; RECORD_WORDS]) -> Self {
        let [kind, detail, flags, cause, status, channel, engine, device] = words[2].to_le_bytes();
        Self {
            sequence: words[0],
            time: words[1],
            fields: Fields {
                kind,
                detail,
                flags,
                cause,
                status,
                channel,
                engine,
                device,
                address: words[3],
                second: words[4],
                length: words[5],
                id: words[6],
                tag: words[7],
            },
        }
    }

    /// The event, unless a newer (or a broken) writer wrote something this version does not know.
    pub fn event(&self) -> Option<Event> {
        Event::from_fields(&self.fields)
    }

    /// The kind, unless this version does not know it.
    pub const fn kind(&self) -> Option<Kind> {
        Kind::from_raw(self.fields.kind)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_round_trip(words in proptest::array::uniform8(any::<u64>())) {
            let record = Record::from_words(&words);
            prop_assert_eq!(record.fields.to_words(record.sequence, record.time), words);
        }
    }
}

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! Faults of the MMU, and their records in the fault buffer: a notification ring.
//!
//! A channel whose access faults in a replayable address space waits, other channels go on. A write of
//! [`FAULT_REPLAY`](super::regs::FAULT_REPLAY) makes every waiting channel try again; one of
//! [`FAULT_CANCEL`](super::regs::FAULT_CANCEL) stops one of them with an error. Several accesses of a channel may be
//! reported before it waits, and those that are still not answered are reported again after a replay: the same page may
//! be in the buffer many times. If the buffer is full, records are lost (the overflow bit says so), but the channel
//! waits all the same, and faults again after a replay. No channel waits for a prefetch fault: these are dropped, and
//! counted, while the buffer is more than half full.

closed_enum! {
    /// How memory is accessed.
    pub enum AccessKind(u8) {
        /// A read.
        Read = 0 => "read",
        /// A write.
        Write = 1 => "write",
        /// An atomic.
        Atomic = 2 => "atomic",
        /// The announcement of an access, for which no channel waits.
        Prefetch = 3 => "prefetch",
    }
}

closed_enum! {
    /// Why a virtual address could not be accessed.
    pub enum FaultKind(u8) {
        /// No valid entry on the way to a page.
        NotPresent = 0 => "not-present",
        /// A write, or an atomic, to a page that may not be written.
        WriteProtect = 1 => "write-protect",
        /// An atomic to a page that does not permit them.
        AtomicDenied = 2 => "atomic",
        /// An entry names an aperture that it cannot have, or a peer that is not there.
        BadAperture = 3 => "bad-aperture",
        /// An entry is malformed, or a table is where nothing can be read.
        BadTable = 4 => "bad-table",
        /// The address is wider than the address space.
        BadAddress = 5 => "bad-address",
    }
}

bitfield! {
    /// Word 1 of a fault record.
    pub struct FaultWord(u64) {
        /// The address space.
        asid / with_asid: 15..=0 as field;
        /// The channel whose access it was.
        channel / with_channel: 23..=16 as field;
        /// The engine.
        engine / with_engine: 31..=24 as field;
        /// An [`AccessKind`].
        raw_access / with_raw_access: 35..=32 as field;
        /// A [`FaultKind`].
        raw_kind / with_raw_kind: 39..=36 as field;
        /// Level of the table whose entry ended the walk.
        level / with_level: 43..=40 as field;
        /// The record is complete.
        valid / with_valid: 63..=63 as flag;
    }
}

/// A record of the fault buffer: words address, [`FaultWord`], timestamp, number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRecord {
    /// The virtual address.
    pub address: u64,
    /// The address space.
    pub asid: u8,
    /// The channel.
    pub channel: u8,
    /// The engine.
    pub engine: u8,
    /// How it was accessed.
    pub access: AccessKind,
    /// Why it could not be.
    pub kind: FaultKind,
    /// Level of the table whose entry ended the walk.
    pub level: u8,
    /// Time of the device's clock, in nanoseconds.
    pub timestamp: u64,
    /// Number of the fault, from 1: those that are lost have one, too.
    pub number: u64,
}

impl FaultRecord {
    /// The four words that stand for this record, with the valid bit (to be stored little-endian).
    pub const fn encode(self) -> [u64; 4] {
        let word = FaultWord(0)
            .with_asid(self.asid as u64)
            .with_channel(self.channel as u64)
            .with_engine(self.engine as u64)
            .with_raw_access(self.access as u64)
            .with_raw_kind(self.kind as u64)
            .with_level(self.level as u64)
            .with_valid(true);
        [self.address, word.0, self.timestamp, self.number]
    }

    /// The record that these words stand for; `None` while the valid bit is clear, or if they are no record.
    pub const fn decode(words: &[u64; 4]) -> Option<Self> {
        let word = FaultWord(words[1]);
        if !word.valid() || word.0 & FaultWord::RESERVED != 0 || word.asid() > u8::MAX as u64 {
            return None;
        }
        let (Some(access), Some(kind)) =
            (AccessKind::from_raw(word.raw_access() as u8), FaultKind::from_raw(word.raw_kind() as u8))
        else {
            return None;
        };
        Some(Self {
            address: words[0],
            asid: word.asid() as u8,
            channel: word.channel() as u8,
            engine: word.engine() as u8,
            access,
            kind,
            level: word.level() as u8,
            timestamp: words[2],
            number: words[3],
        })
    }
}

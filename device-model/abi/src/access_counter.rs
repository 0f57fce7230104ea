// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! Access counters: which memory the device uses much, and could have nearer.
//!
//! Virtual memory is counted by region, at each access of it. When the count of a region reaches the threshold, the
//! device puts a record into the access counters' notification ring, once, until the driver clears that region.

use super::list::Aperture;

bitfield! {
    /// Value of [`ACCESS_COUNTER_CONTROL`](super::regs::ACCESS_COUNTER_CONTROL).
    pub struct AccessCounterControl(u32) {
        /// Accesses are counted.
        enable / with_enable: 0..=0 as flag;
        /// Accesses of the device's own VRAM are counted, too; else only those of other memory.
        local / with_local: 1..=1 as flag;
        /// Base-2 logarithm of a region's size in bytes: [`REGION_ORDER_MIN`] to [`REGION_ORDER_MAX`].
        region_order / with_region_order: 13..=8 as field;
        /// Count at which a region is notified; not zero.
        threshold / with_threshold: 31..=16 as field;
    }
}

/// Smallest region whose accesses are counted: 64 KiB.
pub const REGION_ORDER_MIN: u32 = 16;
/// Largest region whose accesses are counted: 1 GiB.
pub const REGION_ORDER_MAX: u32 = 30;
/// An access counts one for each begun this many bytes: what a real GPU fetches at once.
pub const ACCESS_SECTOR_BYTES: u64 = 128;
/// Most regions that are counted at once; a further one takes the place of the one that was accessed least recently.
pub const MAX_COUNTED_REGIONS: usize = 4096;
/// What written to [`ACCESS_COUNTER_CLEAR`](super::regs::ACCESS_COUNTER_CLEAR) forgets every region.
pub const CLEAR_ALL_REGIONS: u64 = u64::MAX;

bitfield! {
    /// Word 1 of an access record.
    pub struct AccessWord(u64) {
        /// The address space.
        asid / with_asid: 15..=0 as field;
        /// The channel whose access reached the threshold.
        channel / with_channel: 23..=16 as field;
        /// The engine.
        engine / with_engine: 31..=24 as field;
        /// [`Aperture`] that the access went to.
        raw_aperture / with_raw_aperture: 35..=32 as field;
        /// The record is complete.
        valid / with_valid: 63..=63 as flag;
    }
}

/// A record of the access counters' ring: words region, [`AccessWord`], timestamp, count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRecord {
    /// Virtual address where the region begins.
    pub region: u64,
    /// The address space.
    pub asid: u8,
    /// The channel whose access reached the threshold.
    pub channel: u8,
    /// The engine.
    pub engine: u8,
    /// Where that access went.
    pub aperture: Aperture,
    /// Time of the device's clock, in nanoseconds.
    pub timestamp: u64,
    /// What has been counted.
    pub count: u64,
}

impl AccessRecord {
    /// The four words that stand for this record, with the valid bit (to be stored little-endian).
    pub const fn encode(self) -> [u64; 4] {
        let word = AccessWord(0)
            .with_asid(self.asid as u64)
            .with_channel(self.channel as u64)
            .with_engine(self.engine as u64)
            .with_raw_aperture(self.aperture as u64)
            .with_valid(true);
        [self.region, word.0, self.timestamp, self.count]
    }

    /// The record that these words stand for; `None` while the valid bit is clear, or if they are no record.
    pub const fn decode(words: &[u64; 4]) -> Option<Self> {
        let word = AccessWord(words[1]);
        if !word.valid() || word.0 & AccessWord::RESERVED != 0 || word.asid() > u8::MAX as u64 {
            return None;
        }
        let Some(aperture) = Aperture::from_raw(word.raw_aperture() as u8) else { return None };
        Some(Self {
            region: words[0],
            asid: word.asid() as u8,
            channel: word.channel() as u8,
            engine: word.engine() as u8,
            aperture,
            timestamp: words[2],
            count: words[3],
        })
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The performance counters, as the driver reads them from BAR0.

use std::sync::atomic::{AtomicU64, Ordering};

use ersatz_abi::command::{Aperture, Cause};
use ersatz_abi::counter::Counter;

/// One 64-bit number for each [`Counter`]. They wrap, as hardware counters do.
#[derive(Debug)]
pub struct Counters([AtomicU64; Counter::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

impl Counters {
    /// All zero.
    pub fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Counter::ALL.len()])
    }

    /// The value of a counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }

    /// Adds to a counter.
    pub fn add(&self, counter: Counter, amount: u64) {
        self.0[counter as usize].fetch_add(amount, Ordering::Relaxed);
    }

    /// All back to zero.
    pub fn reset(&self) {
        for counter in &self.0 {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// Additions to counters that are made all at once when this is dropped: what an engine counts of a piece of work.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    counters: &'a Counters,
    amounts: [u64; Counter::ALL.len()],
}

impl<'a> Tally<'a> {
    pub(crate) const fn new(counters: &'a Counters) -> Self {
        Self { counters, amounts: [0; Counter::ALL.len()] }
    }

    /// Adds to a counter.
    pub(crate) fn add(&mut self, counter: Counter, amount: u64) {
        let sum = &mut self.amounts[counter as usize];
        *sum = sum.wrapping_add(amount);
    }

    /// Accounts for a piece of a copy, by where it really was.
    pub(crate) fn add_direction(&mut self, source: Aperture, destination: Aperture, length: u64) {
        let direction = match (source, destination) {
            (Aperture::System, Aperture::Vram) => Counter::BytesToVram,
            (Aperture::Vram, Aperture::System) => Counter::BytesToSystem,
            (Aperture::Vram, Aperture::Vram) => Counter::BytesWithinVram,
            (Aperture::System, Aperture::System) => Counter::BytesWithinSystem,
            (Aperture::Peer, _) => Counter::BytesFromPeer,
            (_, Aperture::Peer) => Counter::BytesToPeer,
            (Aperture::Virtual, _) | (_, Aperture::Virtual) => return,
        };
        self.add(direction, length);
    }

    /// Accounts for a list entry of a copy that is complete.
    pub(crate) fn add_entry(&mut self, cause: Cause, length: u64) {
        self.add(Counter::CopyEntries, 1);
        let reason = match cause {
            Cause::MigrateToDevice => Counter::BytesMigratedToDevice,
            Cause::MigrateToSystem => Counter::BytesMigratedToSystem,
            Cause::CpuFault => Counter::BytesCpuFault,
            Cause::Evict => Counter::BytesEvicted,
            Cause::Unbind => Counter::BytesUnbind,
            Cause::DeviceFault => Counter::BytesDeviceFault,
            Cause::AccessCounter => Counter::BytesHotMemory,
            Cause::Other | Cause::Inspect => return,
        };
        self.add(reason, length);
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        for (counter, amount) in self.counters.0.iter().zip(self.amounts).filter(|(_, amount)| *amount != 0) {
            counter.fetch_add(amount, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_when_it_is_dropped() {
        let counters = Counters::new();
        counters.add(Counter::CopyEntries, 1);
        let mut tally = Tally::new(&counters);
        tally.add_direction(Aperture::System, Aperture::Vram, 3);
        tally.add_direction(Aperture::System, Aperture::Vram, 4);
        tally.add_entry(Cause::Evict, 7);
        assert_eq!(counters.get(Counter::BytesToVram), 0);
        drop(tally);
        let counted = [Counter::BytesToVram, Counter::CopyEntries, Counter::BytesEvicted, Counter::BytesToSystem];
        assert_eq!(counted.map(|counter| counters.get(counter)), [7, 2, 7, 0]);
    }
}

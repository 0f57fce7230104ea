// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The fault buffer: numbers the faults of the MMU and tells the driver of them.
//!
//! Who waits for an answer, and what the answer does, is the channels' business. A fault that is lost is answered like any
//! other: its channel waits, and faults again after a replay.

use ersatz_abi::counter::Counter;
use ersatz_abi::fault::{AccessKind, FaultKind, FaultRecord};

use super::ring::NotificationRing;
use crate::counters::Counters;
use crate::dma::DmaSession;
use crate::ports::Ports;
use crate::sync::Mutex;
use crate::trace::{Loss, NotificationEvent};

/// A fault, as an engine meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FaultReport {
    pub(crate) channel: u8,
    pub(crate) engine: u8,
    pub(crate) asid: u8,
    /// The virtual address.
    pub(crate) address: u64,
    pub(crate) access: AccessKind,
    pub(crate) kind: FaultKind,
    /// Level of the table whose entry ended the walk.
    pub(crate) level: u8,
}

/// The fault buffer.
#[derive(Debug, Default)]
pub(crate) struct FaultBuffer {
    pub(crate) ring: NotificationRing,
    /// Number of the last fault. Held while a position is claimed, so that numbers rise along the ring.
    last: Mutex<u64>,
}

impl FaultBuffer {
    /// Back to the state after reset.
    pub(crate) fn reset(&self) {
        *self.last.lock() = 0;
        self.ring.reset();
    }

    /// Records a fault, and raises the interrupt that may be due; the record, or why it was lost.
    pub(crate) fn record(
        &self,
        ports: &Ports,
        counters: &Counters,
        dma: &dyn DmaSession,
        fault: &FaultReport,
        raise: impl FnOnce(u16),
    ) -> Result<FaultRecord, Loss> {
        let FaultReport { channel, engine, asid, address, access, kind, level } = *fault;
        let is_prefetch = access == AccessKind::Prefetch;
        let (record, claim) = {
            let mut last = self.last.lock();
            *last += 1;
            let (number, timestamp) = (*last, ports.clock.now());
            let record = FaultRecord { address, asid, channel, engine, access, kind, level, timestamp, number };
            (record, self.ring.claim(is_prefetch))
        };
        let written = claim.as_ref().map_err(|loss| *loss).and_then(|claim| {
            self.ring.fill(dma, claim, &record.encode())?;
            Ok(claim.position)
        });
        let (counter, event) = match written {
            Ok(position) => (Counter::Faults, NotificationEvent::FaultRecorded { record, position }),
            Err(loss @ (Loss::Off | Loss::HalfFull)) if is_prefetch => {
                (Counter::PrefetchFaultsDropped, NotificationEvent::FaultDropped { record, loss })
            }
            Err(loss) => (Counter::FaultsDropped, NotificationEvent::FaultDropped { record, loss }),
        };
        counters.add(counter, 1);
        ports.tracer.emit(event.into());
        if let Some(vector) = claim.ok().and_then(|claim| claim.interrupt) {
            raise(vector);
        }
        written.map(|_| record)
    }
}

#[cfg(test)]
mod tests;

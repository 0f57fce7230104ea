// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The fault buffer: numbers the faults of the MMU and reports them to the driver.
//!
//! The channels know which of them wait for an answer, and what the answer does. A fault whose record is lost is answered like
//! any other: its channel waits, and faults again after a replay.

use ersatz_abi::counter::Counter;
use ersatz_abi::fault::{AccessKind, FaultRecord};

use super::ring::NotificationRing;
use super::state::Claim;
use crate::counters::Counters;
use crate::dma::DmaSession;
use crate::mmu::PageFault;
use crate::ports::Ports;
use crate::sync::Mutex;
use crate::trace::{Loss, NotificationEvent};

/// What made an access: an engine, for a channel, in its address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Initiator {
    pub(crate) channel: u8,
    pub(crate) engine: u8,
    pub(crate) asid: u8,
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

    /// Records a fault, and raises the interrupt that may be due; with `loss`, behaves as if the record was lost for this reason.
    /// Returns the record, or why it was lost.
    pub(crate) fn record_or_lose(
        &self,
        ports: &Ports,
        counters: &Counters,
        dma: &dyn DmaSession,
        (initiator, fault): (Initiator, &PageFault),
        loss: Option<Loss>,
        raise: impl FnOnce(u16),
    ) -> Result<FaultRecord, Loss> {
        let (record, claim) = self.claim(ports, initiator, fault, loss);
        let written = self.fill(ports, counters, Some(dma), &record, &claim);
        if let Some(vector) = claim.ok().and_then(|claim| claim.interrupt) {
            raise(vector);
        }
        written.map(|()| record)
    }

    /// Numbers a fault and takes a place for its record; with `loss`, behaves as if there was none for this reason. Whoever gets a place
    /// calls [`Self::fill`] for it.
    pub(crate) fn claim(
        &self,
        ports: &Ports,
        Initiator { channel, engine, asid }: Initiator,
        fault: &PageFault,
        loss: Option<Loss>,
    ) -> (FaultRecord, Result<Claim, Loss>) {
        let PageFault { address, access, kind, level } = *fault;
        let mut last = self.last.lock();
        *last += 1;
        let (number, timestamp) = (*last, ports.clock.now());
        let record = FaultRecord { address, asid, channel, engine, access, kind, level, timestamp, number };
        let claim = match loss {
            None => self.ring.claim(access == AccessKind::Prefetch),
            Some(Loss::Overflow) => Err(self.ring.overflow()),
            Some(loss) => Err(loss),
        };
        (record, claim)
    }

    /// Writes a record to its place, if it has one and the device may do DMA, and reports what became of it.
    pub(crate) fn fill(
        &self,
        ports: &Ports,
        counters: &Counters,
        dma: Option<&dyn DmaSession>,
        record: &FaultRecord,
        claim: &Result<Claim, Loss>,
    ) -> Result<(), Loss> {
        let is_prefetch = record.access == AccessKind::Prefetch;
        let written = claim.as_ref().map_err(|loss| *loss).and_then(|claim| {
            match dma {
                Some(dma) => self.ring.fill(dma, claim, &record.encode())?,
                None => return Err(self.ring.abandon(claim)),
            }
            Ok(claim.position)
        });
        let (counter, event) = match written {
            Ok(position) => (Counter::Faults, NotificationEvent::FaultRecorded { record: *record, position }),
            Err(loss @ (Loss::Off | Loss::HalfFull)) if is_prefetch => {
                (Counter::PrefetchFaultsDropped, NotificationEvent::FaultDropped { record: *record, loss })
            }
            Err(loss) => (Counter::FaultsDropped, NotificationEvent::FaultDropped { record: *record, loss }),
        };
        counters.add(counter, 1);
        ports.tracer.emit(event.into());
        written.map(|_| ())
    }
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The fault buffer: numbers the faults of the MMU and reports them to the driver.
//!
//! The channels know which of them wait for an answer, and what the answer does. A fault whose record is lost is answered like
//! any other: its channel waits, and faults again after a replay.

use ersatz_abi::counter::Counter;
use ersatz_abi::fault::{AccessKind, FaultRecord};

use super::ring::NotificationRing;
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
        (Initiator { channel, engine, asid }, fault): (Initiator, &PageFault),
        loss: Option<Loss>,
        raise: impl FnOnce(u16),
    ) -> Result<FaultRecord, Loss> {
        let PageFault { address, access, kind, level } = *fault;
        let is_prefetch = access == AccessKind::Prefetch;
        let (record, claim) = {
            let mut last = self.last.lock();
            *last += 1;
            let (number, timestamp) = (*last, ports.clock.now());
            let record = FaultRecord { address, asid, channel, engine, access, kind, level, timestamp, number };
            let claim = match loss {
                None => self.ring.claim(is_prefetch),
                Some(Loss::Overflow) => Err(self.ring.overflow()),
                Some(loss) => Err(loss),
            };
            (record, claim)
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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device tells the driver unasked: faults, and hot regions of memory.
//!
//! [`ring`] is the ring both are written to, [`state`] its rules without the memory, [`publish`] the order in which a record
//! gets there. [`faults`] numbers faults and decides which of them may be dropped; [`access_counters`] counts accesses
//! by region, in the table of [`regions`].
//!
//! Records are written by engine threads, each with leave for DMA. No lock of this module is held meanwhile: records of
//! two engines may become valid in either order, and accesses to these registers wait for none. (The faulting channel is
//! locked: what one asks of it is answered when its record is there.)

mod access_counters;
mod faults;
mod publish;
mod regions;
mod ring;
mod state;

use ersatz_abi::fault::FaultRecord;

use crate::device::Device;
use crate::engine::gate::Master;
use crate::interrupt::InterruptCause;
use crate::trace::Loss;
pub(crate) use access_counters::{Access, AccessCounters};
pub(crate) use faults::{FaultBuffer, FaultReport};
pub(crate) use ring::NotificationRing;

impl Device {
    /// Records a fault in the fault buffer, and raises its interrupt if one is due. The record, or why it was lost.
    pub(crate) fn record_fault(&self, master: &Master<'_>, fault: &FaultReport) -> Result<FaultRecord, Loss> {
        let raise = |vector| self.raise(vector, InterruptCause::FaultBuffer);
        self.faults.record(&self.ports, &self.counters, &master.dma, fault, raise)
    }

    /// Counts an access through a translation, and tells the driver if its memory is hot. Costs next to nothing while
    /// nothing is counted.
    #[inline]
    pub(crate) fn count_access(&self, master: &Master<'_>, access: &Access) {
        if self.access_counters.is_enabled() {
            let raise = |vector| self.raise(vector, InterruptCause::AccessCounters);
            self.access_counters.count(&self.ports, &self.counters, &master.dma, access, raise);
        }
    }
}

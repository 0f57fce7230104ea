// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How engines report faults and accesses to the driver.

use ersatz_abi::fault::FaultRecord;

use super::Device;
use crate::engine::gate::Master;
use crate::interrupt::InterruptCause;
use crate::mmu::PageFault;
use crate::notification::{Access, Initiator};
use crate::trace::Loss;

impl Device {
    /// Records a fault in the fault buffer, and raises its interrupt if one is due. Returns the record, or why it was lost.
    pub(crate) fn record_fault(
        &self,
        master: &Master<'_>,
        initiator: Initiator,
        fault: &PageFault,
    ) -> Result<FaultRecord, Loss> {
        let raise = |vector| self.raise(vector, InterruptCause::FaultBuffer);
        self.faults.record(&self.ports, &self.counters, &master.dma, initiator, fault, raise)
    }

    /// Counts an access through a translation, and notifies the driver if its memory is hot. Costs next to nothing while
    /// no access counter is enabled.
    #[inline]
    pub(crate) fn count_access(&self, master: &Master<'_>, access: &Access) {
        if self.access_counters.is_enabled() {
            let raise = |vector| self.raise(vector, InterruptCause::AccessCounters);
            self.access_counters.count(&self.ports, &self.counters, &master.dma, access, raise);
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How engines report faults and accesses to the driver.

use ersatz_abi::fault::FaultRecord;

use super::Device;
use crate::engine::gate::Master;
use crate::interrupt::InterruptCause;
use crate::notification::{Access, FaultReport};
use crate::trace::Loss;

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

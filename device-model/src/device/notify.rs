// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How engines report faults and accesses to the driver.

use ersatz_abi::access_counter::AccessRecord;
use ersatz_abi::fault::FaultRecord;

use super::Device;
use crate::engine::gate::Master;
use crate::inject::{Action, Decision, Stream, Work};
use crate::interrupt::InterruptCause;
use crate::mmu::PageFault;
use crate::notification::{Access, Initiator};
use crate::trace::event::Subject;
use crate::trace::{Loss, NotificationEvent};

impl Device {
    /// Records a fault in the fault buffer, and raises its interrupt if one is due. Returns the record, or why it was lost.
    pub(crate) fn record_fault(
        &self,
        master: &Master<'_>,
        initiator: Initiator,
        fault: &PageFault,
    ) -> Result<FaultRecord, Loss> {
        let loss = match self.decide_about_record(initiator, fault) {
            Some((record, Decision { action, time })) => match action {
                Action::Delay { ns } => {
                    self.ports.injector.do_at(time.saturating_add(ns), Work::Record(record));
                    return Err(Loss::Injected);
                }
                Action::Reorder { ns } => {
                    let work = Work::Record(record);
                    self.ports.injector.do_behind_next(Stream::Faults, time.saturating_add(ns), work);
                    return Err(Loss::Injected);
                }
                Action::AnnounceEarly { ns } => {
                    return self.announce_early(initiator, fault, time.saturating_add(ns));
                }
                Action::Drop => Some(Loss::Injected),
                Action::Overflow => Some(Loss::Overflow),
                Action::Double => {
                    let _ = self.record_undecided(master, initiator, fault, None);
                    None
                }
                _ => None,
            },
            None => None,
        };
        let recorded = self.record_undecided(master, initiator, fault, loss);
        self.ports.injector.has_come(Stream::Faults);
        recorded
    }

    /// Takes a place for the record of a fault and raises the interrupt that may be due; the record is written at `time`.
    fn announce_early(&self, initiator: Initiator, fault: &PageFault, time: u64) -> Result<FaultRecord, Loss> {
        let (record, claim) = self.faults.claim(&self.ports, initiator, fault, None);
        let place = match claim {
            Ok(place) => place,
            lost => return self.faults.fill(&self.ports, &self.counters, None, &record, &lost).map(|()| record),
        };
        if let Some(vector) = place.interrupt {
            self.raise(vector, InterruptCause::FaultBuffer);
        }
        self.ports.injector.do_at(time, Work::Fill { claim: place, record });
        Err(Loss::Injected)
    }

    /// What a rule does about the record of a fault, and the record without a number and a time.
    fn decide_about_record(&self, initiator: Initiator, fault: &PageFault) -> Option<(FaultRecord, Decision)> {
        let injector = &self.ports.injector;
        if !injector.decides() {
            return None;
        }
        let Initiator { channel, engine, asid } = initiator;
        let PageFault { address, access, kind, level } = *fault;
        let record = FaultRecord { address, asid, channel, engine, access, kind, level, timestamp: 0, number: 0 };
        let event = NotificationEvent::FaultRecorded { record, position: 0 }.into();
        let subject = Subject { channel: Some(channel), engine: Some(engine), asid: Some(asid), cause: None };
        Some((record, injector.decide(&event, &subject)?))
    }

    /// As [`Self::record_fault`], for a fault about which rules have decided: that its record is lost, if they have.
    pub(super) fn record_undecided(
        &self,
        master: &Master<'_>,
        initiator: Initiator,
        fault: &PageFault,
        loss: Option<Loss>,
    ) -> Result<FaultRecord, Loss> {
        let raise = |vector| self.raise(vector, InterruptCause::FaultBuffer);
        self.faults.record_or_lose(&self.ports, &self.counters, &master.dma, (initiator, fault), loss, raise)
    }

    /// Counts an access through a translation, and notifies the driver if its memory is hot. Costs next to nothing while
    /// no access counter is enabled.
    #[inline]
    pub(crate) fn count_access(&self, master: &Master<'_>, access: &Access) {
        if self.access_counters.is_enabled() {
            for hot in self.access_counters.add(access) {
                self.report_hot(master, hot);
            }
        }
    }

    fn report_hot(&self, master: &Master<'_>, hot: AccessRecord) {
        let loss = match self.decide_about_hot(hot) {
            Some(Decision { action, time }) => match action {
                Action::Delay { ns } => {
                    return self.ports.injector.do_at(time.saturating_add(ns), Work::ReportHot(hot));
                }
                Action::Reorder { ns } => {
                    let (time, work) = (time.saturating_add(ns), Work::ReportHot(hot));
                    return self.ports.injector.do_behind_next(Stream::HotRegions, time, work);
                }
                Action::Drop => Some(Loss::Injected),
                Action::Overflow => Some(Loss::Overflow),
                Action::Double => {
                    self.report_hot_undecided(master, hot, None);
                    None
                }
                _ => None,
            },
            None => None,
        };
        self.report_hot_undecided(master, hot, loss);
        self.ports.injector.has_come(Stream::HotRegions);
    }

    /// What a rule does about the record of a hot region.
    fn decide_about_hot(&self, record: AccessRecord) -> Option<Decision> {
        let injector = &self.ports.injector;
        if !injector.decides() {
            return None;
        }
        let AccessRecord { channel, engine, asid, .. } = record;
        let event = NotificationEvent::AccessNotification { record, position: 0 }.into();
        let subject = Subject { channel: Some(channel), engine: Some(engine), asid: Some(asid), cause: None };
        injector.decide(&event, &subject)
    }

    /// Reports a hot region about which rules have decided: that its record is lost, if they have.
    pub(super) fn report_hot_undecided(&self, master: &Master<'_>, hot: AccessRecord, loss: Option<Loss>) {
        let raise = |vector| self.raise(vector, InterruptCause::AccessCounters);
        self.access_counters.report(&self.ports, &self.counters, &master.dma, hot, loss, raise);
    }
}

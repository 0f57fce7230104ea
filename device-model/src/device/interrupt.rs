// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the device raises interrupts, and what rules make of them.

use ersatz_abi::counter::Counter;

use super::Device;
use crate::inject::{Action, Decision, Stream, Work};
use crate::interrupt::InterruptCause;
use crate::pci::msix::Raised;
use crate::trace::{Event, InterruptOutcome};

impl Device {
    /// Raises an interrupt. Every interrupt for which the device has a cause is raised here.
    pub(crate) fn raise(&self, vector: u16, cause: InterruptCause) {
        let injector = &self.ports.injector;
        if injector.decides() {
            let event = Event::Interrupt { vector, channel: cause.channel(), outcome: InterruptOutcome::Sent };
            let decision = injector.decide(&event, &event.subject());
            match decision.map(|Decision { action, time }| (action, time)) {
                Some((Action::Drop, _)) => return,
                Some((Action::Double, _)) => self.raise_undecided(vector, cause.channel()),
                Some((Action::Reorder { ns }, time)) => {
                    let work = Work::Interrupt { vector, cause: Some(cause) };
                    return injector.do_behind_next(Stream::Interrupts, time.saturating_add(ns), work);
                }
                Some((Action::Delay { ns }, time)) => {
                    return injector.do_at(time.saturating_add(ns), Work::Interrupt { vector, cause: Some(cause) });
                }
                _ => {}
            }
        }
        self.raise_undecided(vector, cause.channel());
    }

    /// Raises an interrupt about which rules have decided, or that has no cause.
    pub(super) fn raise_undecided(&self, vector: u16, channel: Option<u8>) {
        self.msix.raise(vector, &*self.ports.interrupts, |raised| {
            let outcome = match raised {
                Raised::Sent => InterruptOutcome::Sent,
                Raised::Pending => InterruptOutcome::Pending,
                Raised::Lost => InterruptOutcome::Lost,
            };
            if outcome != InterruptOutcome::Lost {
                self.counters.add(Counter::Interrupts, 1);
            }
            self.ports.tracer.emit(Event::Interrupt { vector, channel, outcome });
        });
        self.ports.injector.has_come(Stream::Interrupts);
    }
}

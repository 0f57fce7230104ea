// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A place in the device's work at which it asks the injector.

use crate::trace::event::Subject;
use crate::trace::range::Range;
use crate::trace::{Event, Filter, Step};

/// What the device is about to do, or has just done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// The step.
    pub(crate) step: Step,
    /// The event of the trace that belongs to the step, whether or not it comes about.
    pub(crate) event: Event,
    /// Whom it concerns: what the event says, and what only the command says.
    pub(crate) subject: Subject,
    /// The address to show for it.
    pub(crate) address: Option<u64>,
}

impl Site {
    /// Whether a filter wants what happens here at `time`, in nanoseconds.
    pub(super) fn matches(&self, filter: &Filter, time: u64) -> bool {
        let is_about =
            |range: Range| self.event.is_about(range) || self.address.is_some_and(|address| range.contains(address));
        filter.admits(self.event.kind(), time, &self.subject, is_about)
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The injector of a device: all that was set, and the thread that waits for what is to be done of it.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::breakpoint::ArmedBreakpoint;
use super::holds::Holds;
use super::rules::Rules;
use super::timing::Pace;
use super::work::{Agenda, Work};
use crate::clock::{Clock, Condvar};
use crate::eventfd::signal;
use crate::sync::Mutex;
use crate::trace::{InjectionEvent, Tracer};

/// What makes a device hold, fail or misbehave.
///
/// Every method may be called from any thread. None waits for the device, but for [`Self::wait_for_change`].
pub struct Injector {
    /// One bit for each [`Step`](crate::trace::Step) that a breakpoint names: all that a device without breakpoints looks at.
    pub(super) steps: AtomicU32,
    /// There are breakpoints or holds.
    pub(super) may_hold: AtomicBool,
    /// There are rules that decide about events.
    pub(super) decides: AtomicBool,
    /// There are rules that decide about DMA accesses.
    pub(super) decides_about_dma: AtomicBool,
    /// There are rules that any event can trigger.
    pub(super) observes: Arc<AtomicBool>,
    /// Something is to be overtaken.
    pub(super) overtakes: AtomicBool,
    /// Work takes longer than the host takes for it.
    pub(super) is_paced: AtomicBool,
    state: Mutex<State>,
    /// Signalled when there is work, and when the clock was set.
    wake: Condvar,
    /// Signalled when something changes that those who set breakpoints may wait for.
    changed: std::sync::Condvar,
    change_event: EventFd,
    clock: Arc<dyn Clock>,
    tracer: Tracer,
    /// The GPU's number in its machine, for log lines.
    pub(super) gpu: u8,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) breakpoints: Vec<ArmedBreakpoint>,
    /// Number of the next breakpoint.
    pub(super) next_breakpoint: u64,
    pub(super) holds: Holds,
    pub(super) rules: Rules,
    /// Number of the next rule.
    pub(super) next_rule: u64,
    /// Acknowledgements that are to be late: the numbers of their holds, and how long each lasts, in nanoseconds.
    pub(super) delays: Vec<(u64, u64)>,
    pub(super) agenda: Agenda,
    pub(super) pace: Pace,
    /// How often breakpoints, holds or rules have changed, or a rule has fired.
    changes: u64,
    leaving: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            breakpoints: Vec::new(),
            next_breakpoint: 1,
            holds: Holds::default(),
            rules: Rules::default(),
            next_rule: 1,
            delays: Vec::new(),
            agenda: Agenda::default(),
            pace: Pace::default(),
            changes: 0,
            leaving: false,
        }
    }
}

impl Injector {
    /// No breakpoints.
    pub(crate) fn new(gpu: u8, clock: Arc<dyn Clock>, tracer: Tracer) -> io::Result<Self> {
        Ok(Self {
            steps: AtomicU32::new(0),
            may_hold: AtomicBool::new(false),
            decides: AtomicBool::new(false),
            decides_about_dma: AtomicBool::new(false),
            observes: Arc::default(),
            overtakes: AtomicBool::new(false),
            is_paced: AtomicBool::new(false),
            state: Mutex::default(),
            wake: Condvar::new(),
            changed: std::sync::Condvar::new(),
            change_event: EventFd::new(EFD_NONBLOCK)?,
            clock,
            tracer,
            gpu,
        })
    }

    /// An injector that nobody sets anything in.
    #[cfg(test)]
    pub(crate) fn idle() -> Arc<Self> {
        Arc::new(Self::new(0, Arc::new(crate::clock::HostClock::new()), Tracer::disabled()).unwrap())
    }

    /// Counts the changes of breakpoints, holds and rules so far, and how often rules have fired.
    pub fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// Waits until [`Self::changes`] is no longer `seen`, or until `timeout` is over. Returns what it is then.
    pub fn wait_for_change(&self, seen: u64, timeout: Duration) -> u64 {
        let state = self.state.lock();
        let waited = self.changed.wait_timeout_while(state, timeout, |state| state.changes == seen && !state.leaving);
        waited.unwrap_or_else(PoisonError::into_inner).0.changes
    }

    /// An event that is signalled at every change of breakpoints, holds and rules, and when a rule fires; it does not block. Reading it takes the signal back.
    pub fn change_event(&self) -> &EventFd {
        &self.change_event
    }

    /// Waits until the device has something to do, and returns it with how often the device was reset before; `None` if the caller
    /// is to return.
    pub(crate) fn next_work(&self) -> Option<(u64, Vec<Work>)> {
        let mut state = self.state.lock();
        loop {
            if state.leaving {
                return None;
            }
            self.expire(&mut state);
            self.expire_rules(&mut state);
            let work = state.agenda.take(self.now());
            if !work.is_empty() {
                return Some((state.agenda.resets, work));
            }
            let deadlines = [state.holds.deadline(), state.rules.deadline(), state.agenda.deadline()];
            let deadline = deadlines.into_iter().flatten().min();
            state = self.wake.wait_until(state, &*self.clock, deadline);
        }
    }

    /// The clock was set.
    pub(crate) fn clock_was_set(&self) {
        // Behind the lock the thread either has seen the new time or is waiting.
        drop(self.state.lock());
        self.wake.notify_all();
    }

    /// Makes [`Self::next_work`] return `None`, now and whenever it is called.
    pub(crate) fn leave(&self) {
        self.state.lock().leaving = true;
        self.wake.notify_all();
        self.changed.notify_all();
    }

    /// The lock of all that the injector has.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// What the device's clock reads.
    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Makes [`Self::next_work`] look again.
    pub(super) fn wake(&self) {
        self.wake.notify_all();
    }

    /// Writes an event to the trace. No rule sees it.
    pub(super) fn report(&self, event: InjectionEvent) {
        self.tracer.emit(event.into());
    }

    /// A tracer for the device: rules see its events.
    pub(crate) fn observe_events(self: &Arc<Self>, tracer: &Tracer) -> Tracer {
        tracer.observed(self.observes.clone(), self.clone())
    }

    /// Reports a change to those who wait for one.
    pub(super) fn announce(&self, state: &mut State) {
        state.changes = state.changes.wrapping_add(1);
        self.changed.notify_all();
        signal(&self.change_event);
    }
}

impl fmt::Debug for Injector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Injector").field("state", &self.state).finish_non_exhaustive()
    }
}

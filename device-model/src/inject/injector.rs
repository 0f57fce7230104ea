// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The injector of a device: its breakpoints and holds, for those who set them and for the device.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::breakpoint::{ArmedBreakpoint, Breakpoint, MAX_BREAKPOINTS, SetError};
use super::holds::{Hold, Holds};
use super::rule::Rules;
use super::site::Site;
use super::timing::Pace;
use super::work::{Agenda, Work};
use crate::clock::{Clock, Condvar};
use crate::eventfd::signal;
use crate::sync::Mutex;
use crate::trace::{HoldEnd, InjectionEvent, Step, Tracer};

/// What makes a device hold, fail or misbehave.
///
/// Every method may be called from any thread. None waits for the device, but for [`Self::wait_for_change`].
pub struct Injector {
    /// One bit for each [`Step`] that a breakpoint names: all that a device without breakpoints looks at.
    steps: AtomicU32,
    /// There are rules that decide about events.
    pub(super) decides: AtomicBool,
    /// There are rules that decide about DMA accesses.
    pub(super) decides_about_dma: AtomicBool,
    /// There are rules that any event can trigger.
    pub(super) observes: Arc<AtomicBool>,
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
    gpu: u8,
}

#[derive(Debug)]
pub(super) struct State {
    breakpoints: Vec<ArmedBreakpoint>,
    /// Number of the next breakpoint.
    next_breakpoint: u64,
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

const _: () = {
    let mut index = 0;
    while index < Step::ALL.len() {
        assert!((Step::ALL[index] as u32) < u32::BITS, "steps are bits of a word");
        index += 1;
    }
};

impl Injector {
    /// No breakpoints.
    pub(crate) fn new(gpu: u8, clock: Arc<dyn Clock>, tracer: Tracer) -> io::Result<Self> {
        Ok(Self {
            steps: AtomicU32::new(0),
            decides: AtomicBool::new(false),
            decides_about_dma: AtomicBool::new(false),
            observes: Arc::default(),
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

    /// Sets a breakpoint. Returns its number, which no other one gets again.
    ///
    /// # Errors
    ///
    /// Whatever [`SetError`] lists.
    pub fn set_breakpoint(&self, breakpoint: Breakpoint) -> Result<u64, SetError> {
        breakpoint.check()?;
        let mut state = self.state.lock();
        if state.breakpoints.iter().any(|other| other.breakpoint.name == breakpoint.name) {
            return Err(SetError::Taken(breakpoint.name));
        }
        if state.breakpoints.len() >= MAX_BREAKPOINTS {
            return Err(SetError::TooMany);
        }
        let number = state.next_breakpoint;
        state.next_breakpoint += 1;
        state.breakpoints.push(ArmedBreakpoint::new(number, breakpoint));
        self.arm(&state);
        self.announce(&mut state);
        Ok(number)
    }

    /// Clears the breakpoint of this number. What it holds stays held until it is resumed. Returns whether there was one.
    pub fn clear_breakpoint(&self, number: u64) -> bool {
        let mut state = self.state.lock();
        let before = state.breakpoints.len();
        state.breakpoints.retain(|breakpoint| breakpoint.number != number);
        let cleared = state.breakpoints.len() < before;
        if cleared {
            self.arm(&state);
            self.announce(&mut state);
        }
        cleared
    }

    /// The breakpoints that are set, with their numbers, in the order in which they were set.
    pub fn breakpoints(&self) -> Vec<(u64, Breakpoint)> {
        let state = self.state.lock();
        state.breakpoints.iter().map(|armed| (armed.number, armed.breakpoint.clone())).collect()
    }

    /// What is held now, the oldest hold first.
    pub fn holds(&self) -> Vec<Hold> {
        self.state.lock().holds.begun().cloned().collect()
    }

    /// Ends the hold of this number. Returns whether there was one: it may have ended by itself.
    pub fn resume(&self, number: u64) -> bool {
        let mut state = self.state.lock();
        let ended: Vec<_> = state.holds.end(number).into_iter().collect();
        self.end(&mut state, ended, HoldEnd::Resumed) > 0
    }

    /// Ends all holds of the breakpoint of this name. Returns how many there were.
    pub fn resume_breakpoint(&self, name: &str) -> usize {
        let mut state = self.state.lock();
        let ended = state.holds.end_all(|hold| hold.name == name);
        self.end(&mut state, ended, HoldEnd::Resumed)
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

    /// Whether a breakpoint names this step: one load.
    #[inline]
    pub(crate) fn is_watched(&self, step: Step) -> bool {
        self.steps.load(Ordering::Relaxed) & bit(step) != 0
    }

    /// The device is at a step. Returns the number of a hold if it is to be held there: the caller makes sure that what is held
    /// waits, and calls [`Self::begin`] or [`Self::forget`].
    pub(crate) fn arrive(&self, site: &Site) -> Option<u64> {
        let mut state = self.state.lock();
        let now = self.now();
        let State { breakpoints, holds, .. } = &mut *state;
        let mut holder: Option<&ArmedBreakpoint> = None;
        // All of them count the arrival; the first one holds it.
        for armed in breakpoints {
            if armed.arrive(site, now) {
                holder.get_or_insert(armed);
            }
        }
        let ArmedBreakpoint { number, breakpoint, .. } = holder?;
        Some(holds.add((*number, &breakpoint.name), site, breakpoint.deadline_ns))
    }

    /// A hold begins: what is held waits.
    pub(crate) fn begin(&self, number: u64) {
        let mut state = self.state.lock();
        if let Some(index) = state.delays.iter().position(|(delayed, _)| *delayed == number) {
            let (_, delay) = state.delays.swap_remove(index);
            state.agenda.add(self.now().saturating_add(delay), Work::Acknowledge(number));
            return self.wake();
        }
        let Some(hold) = state.holds.begin(number, self.now()) else { return };
        let Hold { breakpoint, step, channel, engine, address, .. } = *hold;
        let event = InjectionEvent::BreakpointHeld { breakpoint, hold: number, step, channel, engine, address };
        self.report(event);
        self.announce(&mut state);
        drop(state);
        // Its deadline may be the next one.
        self.wake.notify_all();
    }

    /// What was to be held was reset before it waited.
    pub(crate) fn forget(&self, number: u64) {
        self.state.lock().holds.forget(number);
    }

    /// Whether the hold of this number has not ended.
    pub(crate) fn is_held(&self, number: u64) -> bool {
        self.state.lock().holds.has(number)
    }

    /// The hold of a channel, if there is one.
    pub(crate) fn hold_of(&self, channel: u8) -> Option<u64> {
        self.state
            .lock()
            .holds
            .begun()
            .find(|hold| hold.channel == Some(channel) && is_of_command(hold.step))
            .map(|hold| hold.number)
    }

    /// A channel was reset, or its command has ended: it is held no more.
    pub(crate) fn drop_holds(&self, channel: u8) {
        let mut state = self.state.lock();
        let ended = state.holds.end_all(|hold| hold.channel == Some(channel) && is_of_command(hold.step));
        self.end(&mut state, ended, HoldEnd::Reset);
        state.agenda.reset_channel(channel);
    }

    /// What this hold held was reset.
    pub(crate) fn drop_hold(&self, number: u64) {
        let mut state = self.state.lock();
        let ended: Vec<_> = state.holds.end(number).into_iter().collect();
        state.holds.forget(number);
        self.end(&mut state, ended, HoldEnd::Reset);
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

    /// Ends the holds whose deadlines have passed.
    fn expire(&self, state: &mut State) {
        let now = self.now();
        let ended = state.holds.end_all(|hold| hold.deadline_ns <= now);
        for hold in &ended {
            let Hold { name, number, step, since_ns, deadline_ns, .. } = hold;
            let held = deadline_ns.saturating_sub(*since_ns);
            log::error!(
                "GPU {}: breakpoint {name:?} held {} at {} for {held} ns, and nobody has resumed it: hold {number} ends now",
                self.gpu,
                hold.channel.map_or_else(|| "an acknowledgement".to_owned(), |channel| format!("channel {channel}")),
                step.name(),
            );
        }
        self.end(state, ended, HoldEnd::Deadline);
    }

    /// These holds have ended. Returns how many they are.
    fn end(&self, state: &mut State, ended: Vec<Hold>, how: HoldEnd) -> usize {
        let count = ended.len();
        for hold in ended {
            let Hold { number, breakpoint, step, channel, .. } = hold;
            let event = InjectionEvent::BreakpointResumed { breakpoint, hold: number, step, how, channel };
            self.report(event);
            // What was reset does not go on.
            if how != HoldEnd::Reset {
                state.agenda.add(self.now(), Work::GoOn(hold));
            }
        }
        if count > 0 {
            self.announce(state);
            self.wake();
        }
        count
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

    /// Looks which steps are watched.
    fn arm(&self, state: &State) {
        let steps = state.breakpoints.iter().fold(0, |steps, armed| steps | bit(armed.breakpoint.step));
        self.steps.store(steps, Ordering::Relaxed);
    }

    /// Reports a change to those who wait for one.
    pub(super) fn announce(&self, state: &mut State) {
        state.changes = state.changes.wrapping_add(1);
        self.changed.notify_all();
        signal(&self.change_event);
    }
}

/// Whether what is held at a step is the command of a channel.
fn is_of_command(step: Step) -> bool {
    step != Step::BeforeInvalidationAck
}

const fn bit(step: Step) -> u32 {
    1 << step as u32
}

impl fmt::Debug for Injector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Injector").field("state", &self.state).finish_non_exhaustive()
    }
}

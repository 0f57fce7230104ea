// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The injector's breakpoints and holds: set and resumed by those who watch the device, and asked for at its steps.

use std::sync::atomic::Ordering;

use super::breakpoint::{ArmedBreakpoint, Breakpoint, MAX_BREAKPOINTS, SetError};
use super::holds::Hold;
use super::injector::{Injector, State};
use super::site::Site;
use super::work::Work;
use crate::trace::{HoldEnd, InjectionEvent, Step};

const _: () = {
    let mut index = 0;
    while index < Step::ALL.len() {
        assert!((Step::ALL[index] as u32) < u32::BITS, "steps are bits of a word");
        index += 1;
    }
};

impl Injector {
    /// Sets a breakpoint. Returns its number, which no other one gets again.
    ///
    /// # Errors
    ///
    /// Whatever [`SetError`] lists.
    pub fn set_breakpoint(&self, breakpoint: Breakpoint) -> Result<u64, SetError> {
        breakpoint.check()?;
        let mut state = self.lock();
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
        let mut state = self.lock();
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
        let state = self.lock();
        state.breakpoints.iter().map(|armed| (armed.number, armed.breakpoint.clone())).collect()
    }

    /// What is held now, the oldest hold first.
    pub fn holds(&self) -> Vec<Hold> {
        self.lock().holds.begun().cloned().collect()
    }

    /// Ends the hold of this number. Returns whether there was one: it may have ended by itself.
    pub fn resume(&self, number: u64) -> bool {
        let mut state = self.lock();
        let ended: Vec<_> = state.holds.end(number).into_iter().collect();
        self.end(&mut state, ended, HoldEnd::Resumed) > 0
    }

    /// Ends all holds of the breakpoint of this name. Returns how many there were.
    pub fn resume_breakpoint(&self, name: &str) -> usize {
        let mut state = self.lock();
        let ended = state.holds.end_all(|hold| hold.name == name);
        self.end(&mut state, ended, HoldEnd::Resumed)
    }

    /// Whether a breakpoint names this step: one load.
    #[inline]
    pub(crate) fn is_watched(&self, step: Step) -> bool {
        self.steps.load(Ordering::Relaxed) & bit(step) != 0
    }

    /// The device is at a step. Returns the number of a hold if it is to be held there: the caller makes sure that what is held
    /// waits, and calls [`Self::begin`] or [`Self::forget`].
    pub(crate) fn arrive(&self, site: &Site) -> Option<u64> {
        let mut state = self.lock();
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
        let mut state = self.lock();
        if let Some(index) = state.delays.iter().position(|(delayed, _)| *delayed == number) {
            let (_, delay) = state.delays.swap_remove(index);
            state.agenda.add(self.now().saturating_add(delay), Work::Acknowledge(number));
            return self.wake();
        }
        let Some(hold) = state.holds.begin(number, self.now()) else { return };
        let Hold { breakpoint, step, channel, engine, address, .. } = *hold;
        let event = InjectionEvent::BreakpointHeld { breakpoint, hold: number, step, channel, engine, address };
        self.report(event);
        // Its breakpoint may have been cleared meanwhile.
        self.arm(&state);
        self.announce(&mut state);
        drop(state);
        // Its deadline may be the next one.
        self.wake();
    }

    /// What was to be held was reset before it waited.
    pub(crate) fn forget(&self, number: u64) {
        self.lock().holds.forget(number);
    }

    /// Whether the hold of this number has not ended.
    pub(crate) fn is_held(&self, number: u64) -> bool {
        self.lock().holds.has(number)
    }

    /// The hold of a channel, if there is one. Called with the channel's lock held.
    pub(crate) fn hold_of(&self, channel: u8) -> Option<u64> {
        // It begins with the channel's lock held, as this is called: it is not missed.
        if !self.may_hold.load(Ordering::Relaxed) {
            return None;
        }
        let state = self.lock();
        let mut of_channel =
            state.holds.begun().filter(|hold| hold.channel == Some(channel) && is_of_command(hold.step));
        of_channel.next().map(|hold| hold.number)
    }

    /// A channel was reset, or its command has ended: it is held no more.
    pub(crate) fn drop_holds(&self, channel: u8) {
        let mut state = self.lock();
        let ended = state.holds.end_all(|hold| hold.channel == Some(channel) && is_of_command(hold.step));
        self.end(&mut state, ended, HoldEnd::Reset);
        state.agenda.reset_channel(channel);
    }

    /// What this hold held was reset.
    pub(crate) fn drop_hold(&self, number: u64) {
        let mut state = self.lock();
        let ended: Vec<_> = state.holds.end(number).into_iter().collect();
        state.holds.forget(number);
        self.end(&mut state, ended, HoldEnd::Reset);
    }

    /// Ends the holds whose deadlines have passed.
    pub(super) fn expire(&self, state: &mut State) {
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
            self.arm(state);
            self.announce(state);
            self.wake();
        }
        count
    }

    /// Looks which steps are watched.
    fn arm(&self, state: &State) {
        let steps = state.breakpoints.iter().fold(0, |steps, armed| steps | bit(armed.breakpoint.step));
        self.steps.store(steps, Ordering::Relaxed);
        let may_hold = !state.breakpoints.is_empty() || state.holds.begun().next().is_some();
        self.may_hold.store(may_hold, Ordering::Relaxed);
    }
}

/// Whether what is held at a step is the command of a channel.
fn is_of_command(step: Step) -> bool {
    step != Step::BeforeInvalidationAck
}

const fn bit(step: Step) -> u32 {
    1 << step as u32
}

#[cfg(test)]
mod tests;

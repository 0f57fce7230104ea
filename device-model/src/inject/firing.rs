// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The injector's rules: added and removed by those who set them, asked by the device, and triggered by its events.

use std::sync::atomic::Ordering;

use ersatz_abi::fault::{FaultKind, FaultRecord};

use super::action::Action;
use super::injector::{Injector, State};
use super::rule::{Rule, RuleError};
use super::rules::Fired;
use super::work::{Stream, Work};
use crate::trace::event::Subject;
use crate::trace::range::Range;
use crate::trace::tracer::EventObserver;
use crate::trace::{Event, InjectionEvent};

/// What a rule does about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) action: Action,
    /// When it was decided, in nanoseconds of the device's clock: a delay begins then. Whoever sees that the rule has fired sees a time
    /// that is not before this one.
    pub(crate) time: u64,
}

impl Injector {
    /// Adds a rule. Returns its number, which no other one gets again.
    ///
    /// # Errors
    ///
    /// Whatever [`RuleError`] lists.
    pub fn add_rule(&self, rule: Rule) -> Result<u64, RuleError> {
        let mut state = self.lock();
        let number = state.next_rule;
        state.rules.add(number, rule)?;
        state.next_rule += 1;
        self.arm_rules(&state);
        self.announce(&mut state);
        drop(state);
        // It may fire by itself.
        self.wake();
        Ok(number)
    }

    /// Removes the rule of this number; what it has done stays done. Returns whether there was one.
    pub fn remove_rule(&self, number: u64) -> bool {
        let mut state = self.lock();
        let before = state.rules.all.len();
        state.rules.all.retain(|armed| armed.number != number);
        let removed = state.rules.all.len() < before;
        if removed {
            self.arm_rules(&state);
            self.announce(&mut state);
        }
        removed
    }

    /// The rules with their numbers and how often each has fired, in the order in which they were added.
    pub fn rules(&self) -> Vec<(u64, Rule, u64)> {
        self.lock().rules.all.iter().map(|armed| (armed.number, armed.rule.clone(), armed.fired)).collect()
    }

    /// Carries out an action that is not about an event, at once. In the trace it is that of a rule with the number 0.
    ///
    /// # Errors
    ///
    /// Those of a rule which has this action at a time.
    pub fn act(&self, action: Action) -> Result<(), RuleError> {
        let mut rule = Rule::new(action.kind().name(), action);
        rule.on.at_ns = Some(0);
        rule.check()?;
        self.carry_out(&mut self.lock(), vec![Fired { rule: 0, action }], None, None);
        Ok(())
    }

    /// The state of the rules.
    pub fn rule_state(&self) -> u32 {
        self.lock().rules.state
    }

    /// Whether there are rules that decide about events: one load.
    #[inline]
    pub(crate) fn decides(&self) -> bool {
        self.decides.load(Ordering::Relaxed)
    }

    /// An event is about to come about. Returns what a rule does about it.
    pub(crate) fn decide(&self, event: &Event, subject: &Subject) -> Option<Decision> {
        let mut state = self.lock();
        let time = self.now();
        let fired = state.rules.look(event, subject, time, true);
        let decision = fired.first().map(|fired| Decision { action: fired.action, time });
        self.carry_out(&mut state, fired, Some(event), subject.channel);
        decision
    }

    /// Whether there are rules that decide about DMA accesses: one load.
    #[inline]
    pub(crate) fn decides_about_dma(&self) -> bool {
        self.decides_about_dma.load(Ordering::Relaxed)
    }

    /// The device is about to access `length` bytes at a bus address. Returns how many of them it can access, fewer than all, if
    /// a rule has the access refused.
    pub(crate) fn refuses_dma(&self, address: u64, length: u64, is_write: bool) -> Option<u64> {
        let mut state = self.lock();
        let now = self.now();
        let fired = state.rules.look_at_dma(Range::with_length(address, length), is_write, now)?;
        self.carry_out(&mut state, vec![fired], None, None);
        match fired.action {
            Action::Refuse { bytes } => Some(bytes.min(length.saturating_sub(1))),
            _ => None,
        }
    }

    /// Has something done at a time, in nanoseconds of the device's clock, unless it is reset before.
    pub(crate) fn do_at(&self, time: u64, work: Work) {
        self.lock().agenda.add(time, work);
        self.wake();
    }

    /// Has something done behind the next that comes of a stream, and at a time, in nanoseconds of the device's clock, at the latest.
    pub(crate) fn do_behind_next(&self, stream: Stream, time: u64, work: Work) {
        let mut state = self.lock();
        state.agenda.add_overtaken(stream, time, work);
        self.overtakes.store(true, Ordering::Relaxed);
        drop(state);
        self.wake();
    }

    /// Something of a stream has come: what it was to overtake comes now. One load, if there is nothing.
    #[inline]
    pub(crate) fn has_come(&self, stream: Stream) {
        if self.overtakes.load(Ordering::Relaxed) {
            self.overtake(stream);
        }
    }

    fn overtake(&self, stream: Stream) {
        let mut state = self.lock();
        let is_any_left = state.agenda.overtake(stream, self.now());
        self.overtakes.store(is_any_left, Ordering::Relaxed);
        drop(state);
        self.wake();
    }

    /// What was to be done at a time is not done, if it has not been.
    pub(crate) fn call_off(&self, work: &Work) {
        self.lock().agenda.call_off(work);
    }

    /// An acknowledgement is to be late: returns the number of a hold which is not shown. It ends by itself once
    /// [`Self::begin`] was called for it and the delay is over.
    pub(crate) fn delay(&self, delay: u64) -> u64 {
        let mut state = self.lock();
        let number = state.holds.next_number();
        state.delays.push((number, delay));
        number
    }

    /// An acknowledgement is not to come: returns the number of a hold which is not shown, and does not end.
    pub(crate) fn withhold(&self) -> u64 {
        self.lock().holds.next_number()
    }

    /// How often the device was reset: work that was taken before a reset is not done behind it.
    pub(crate) fn resets(&self) -> u64 {
        self.lock().agenda.resets
    }

    /// The device was reset: what is late does not come any more.
    pub(crate) fn reset(&self) {
        let mut state = self.lock();
        state.agenda.reset();
        state.delays.clear();
    }

    /// Fires the rules whose time has come.
    pub(super) fn expire_rules(&self, state: &mut State) {
        let fired = state.rules.expire(self.now());
        self.carry_out(state, fired, None, None);
    }

    /// Reports what has fired, and does what is not done where an event is decided about.
    fn carry_out(&self, state: &mut State, fired: Vec<Fired>, event: Option<&Event>, channel: Option<u8>) {
        if fired.is_empty() {
            return;
        }
        for Fired { rule, action } in fired {
            let at = event.map_or(0, |event| event.kind().number());
            // The oracle is told which channel does not wait.
            let channel = if let Action::Fault { channel, .. } = action { Some(channel) } else { channel };
            self.report(InjectionEvent::RuleFired { rule, action: action.kind(), at, channel });
            if let Some(work) = work_of(action) {
                state.agenda.add(self.now(), work);
            }
        }
        self.announce(state);
        self.wake();
    }

    fn arm_rules(&self, state: &State) {
        let (mut decides, mut decides_about_dma, mut observes) = (false, false, false);
        for armed in &state.rules.all {
            match armed.rule.action.decides_about() {
                Some([]) => decides_about_dma = true,
                Some(_) => decides = true,
                None => observes |= armed.rule.on.at_ns.is_none(),
            }
        }
        self.decides_about_dma.store(decides_about_dma, Ordering::Relaxed);
        self.decides.store(decides, Ordering::Relaxed);
        self.observes.store(observes, Ordering::Relaxed);
    }
}

impl EventObserver for Injector {
    fn observe(&self, event: &Event) {
        let subject = event.subject();
        let mut state = self.lock();
        let fired = state.rules.look(event, &subject, self.now(), false);
        self.carry_out(&mut state, fired, Some(event), subject.channel);
    }
}

/// What is to be done for an action that is carried out beside events; `None` if it is done where an event is decided about, or in the rules
/// themselves.
fn work_of(action: Action) -> Option<Work> {
    Some(match action {
        Action::SpuriousInterrupt { vector } => Work::Interrupt { vector, cause: None },
        Action::Fault { channel, asid, address, access, count } => {
            let kind = FaultKind::NotPresent;
            let first =
                FaultRecord { address, asid, channel, engine: 0, access, kind, level: 0, timestamp: 0, number: 0 };
            Work::Faults { first, count }
        }
        Action::Poison { offset, pages } => Work::Poison { offset, pages },
        Action::DemandMemory(demand) => Work::DemandMemory(demand),
        Action::ReturnMemory(returned) => Work::ReturnMemory(returned),
        Action::LimitMemory(limit) => Work::LimitMemory(limit),
        Action::Reset => Work::Reset,
        Action::Gone => Work::Vanish,
        Action::Fail { .. }
        | Action::Delay { .. }
        | Action::Reorder { .. }
        | Action::Drop
        | Action::Double
        | Action::Overflow
        | Action::AnnounceEarly { .. }
        | Action::Hang
        | Action::Refuse { .. }
        | Action::SetState { .. } => return None,
    })
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All rules of a device, and what fires when.

use super::action::Action;
use super::rule::{FIRST_STATE, MAX_RULES, Rule, RuleError};
use super::trigger::{DmaKind, Trigger, hash};
use crate::trace::Event;
use crate::trace::event::Subject;
use crate::trace::range::Range;

/// A rule that was added, and how often it fired.
#[derive(Debug)]
pub(super) struct ArmedRule {
    pub(super) number: u64,
    pub(super) rule: Rule,
    /// Stands for its name.
    hash: u64,
    occurrences: u64,
    pub(super) fired: u64,
}

/// What has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fired {
    pub(super) rule: u64,
    pub(super) action: Action,
}

/// All rules, and their state.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) all: Vec<ArmedRule>,
    pub(super) state: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self { all: Vec::new(), state: FIRST_STATE }
    }
}

impl ArmedRule {
    fn new(number: u64, rule: Rule) -> Self {
        let hash = hash(&rule.name);
        Self { number, rule, hash, occurrences: 0, fired: 0 }
    }

    fn may_fire_again(&self) -> bool {
        let limit = if self.rule.on.at_ns.is_some() { Some(1) } else { self.rule.on.limit };
        limit.is_none_or(|limit| self.fired < limit)
    }

    fn fire(&mut self) -> Fired {
        self.fired = self.fired.saturating_add(1);
        Fired { rule: self.number, action: self.rule.action }
    }

    /// Counts an occurrence; returns whether the rule fires at it.
    fn occurs(&mut self) -> bool {
        self.occurrences = self.occurrences.saturating_add(1);
        self.rule.on.occurrence.includes(self.occurrences, self.hash) && self.may_fire_again()
    }
}

impl Rules {
    pub(super) fn add(&mut self, number: u64, rule: Rule) -> Result<(), RuleError> {
        rule.check()?;
        if self.all.iter().any(|other| other.rule.name == rule.name) {
            return Err(RuleError::Taken(rule.name));
        }
        if self.all.len() >= MAX_RULES {
            return Err(RuleError::TooMany);
        }
        self.all.push(ArmedRule::new(number, rule));
        Ok(())
    }

    /// Whether the rule of this name has fired.
    fn has_fired(&self, name: &str) -> bool {
        self.all.iter().any(|armed| armed.rule.name == name && armed.fired > 0)
    }

    /// The rules that fire at an event, of those that decide about it (`decides`) or of the others.
    pub(super) fn look(&mut self, event: &Event, subject: &Subject, now: u64, decides: bool) -> Vec<Fired> {
        let kind = event.kind();
        self.fire(decides, |Rule { on, action, .. }| {
            action.decides_about().is_some() == decides
                && on.dma.is_none()
                && on.at_ns.is_none()
                && on.event.admits(kind, now, subject, |range| event.is_about(range))
        })
    }

    /// The rule that fires at a DMA access.
    pub(super) fn look_at_dma(&mut self, place: Range, is_write: bool, now: u64) -> Option<Fired> {
        let fired = self.fire(true, |Rule { on, .. }| {
            let is_meant = match on.dma {
                Some(DmaKind::Read) => !is_write,
                Some(DmaKind::Write) => is_write,
                Some(DmaKind::Any) => true,
                None => false,
            };
            is_meant
                && on.event.times.is_none_or(|times| times.contains(now))
                && on.event.addresses.is_none_or(|range| range.overlaps(place))
        });
        fired.into_iter().next()
    }

    /// Counts an occurrence of each rule that is enabled and meant, and fires those whose turn it is; only the first of them, if it
    /// decides.
    fn fire(&mut self, decides: bool, is_meant: impl Fn(&Rule) -> bool) -> Vec<Fired> {
        let is_enabled = |on: &Trigger| {
            on.state.is_none_or(|state| state == self.state)
                && on.after.as_ref().is_none_or(|name| self.has_fired(name))
        };
        // Found first: what fires at this event enables nothing before the next one.
        let occurring: Vec<usize> = (0..self.all.len())
            .filter(|index| is_meant(&self.all[*index].rule) && is_enabled(&self.all[*index].rule.on))
            .collect();
        let mut fired = Vec::new();
        for index in occurring {
            let armed = &mut self.all[index];
            if armed.occurs() && (!decides || fired.is_empty()) {
                fired.push(armed.fire());
            }
        }
        self.change_state(&fired);
        fired
    }

    fn change_state(&mut self, fired: &[Fired]) {
        for Fired { action, .. } in fired {
            if let Action::SetState { state } = *action {
                self.state = state;
            }
        }
    }

    /// The rules whose time has come.
    pub(super) fn expire(&mut self, now: u64) -> Vec<Fired> {
        let state = self.state;
        let is_due = |armed: &&mut ArmedRule| {
            let on = &armed.rule.on;
            on.at_ns.is_some_and(|at| at <= now)
                && on.state.is_none_or(|wanted| wanted == state)
                && armed.may_fire_again()
        };
        let fired: Vec<_> = self.all.iter_mut().filter(is_due).map(ArmedRule::fire).collect();
        self.change_state(&fired);
        fired
    }

    /// The next time that a rule fires by itself. One that waits for a state is looked at when something else happens.
    pub(super) fn deadline(&self) -> Option<u64> {
        let state = self.state;
        let waiting = self.all.iter().filter(|armed| armed.may_fire_again());
        waiting
            .filter(|armed| armed.rule.on.state.is_none_or(|wanted| wanted == state))
            .filter_map(|armed| armed.rule.on.at_ns)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::trigger::Occurrence;

    fn fence(channel: u8) -> Event {
        Event::Fence { channel, engine: 0, value: 1, address: 0x1000 }
    }

    fn look(rules: &mut Rules, event: Event, decides: bool) -> Vec<u64> {
        rules.look(&event, &event.subject(), 0, decides).iter().map(|fired| fired.rule).collect()
    }

    #[test]
    fn a_name_is_for_one_rule() {
        let mut rules = Rules::default();
        assert_eq!(rules.add(1, Rule::new("r", Action::Drop)), Ok(()));
        assert!(matches!(rules.add(2, Rule::new("r", Action::Gone)), Err(RuleError::Taken(_))));
    }

    #[test]
    fn dma_accesses_are_refused_and_nothing_else() {
        let mut refuse = Rule::new("r", Action::Refuse { bytes: 0 });
        refuse.on.dma = Some(DmaKind::Write);
        refuse.on.event.addresses = Some(Range::with_length(0x1000, 8));
        let mut rules = Rules::default();
        rules.add(1, refuse).unwrap();
        assert_eq!(look(&mut rules, fence(0), true), [0; 0]);
        let mut look = |address, is_write| rules.look_at_dma(Range::with_length(address, 16), is_write, 0).is_some();
        assert_eq!([look(0xff8, true), look(0xff8, false), look(0x1008, true)], [true, false, false]);
    }

    #[test]
    fn one_rule_decides_and_all_count() {
        let mut rules = Rules::default();
        let second = Trigger { occurrence: Occurrence::Nth(2), ..Rule::new("", Action::Drop).on };
        rules.add(1, Rule::new("every", Action::Drop)).unwrap();
        rules.add(2, Rule { on: second.clone(), ..Rule::new("second", Action::Drop) }).unwrap();
        assert_eq!([look(&mut rules, fence(0), true), look(&mut rules, fence(0), true)], [[1], [1]]);
        rules.all.remove(0);
        assert_eq!(look(&mut rules, fence(0), true), [0; 0], "its second occurrence has been");
    }

    #[test]
    fn states_and_earlier_rules_enable() {
        let mut rules = Rules::default();
        let mut to_two = Rule::new("to-two", Action::SetState { state: 2 });
        to_two.on.event.channels = vec![7];
        let mut in_two = Rule::new("in-two", Action::Drop);
        in_two.on.state = Some(2);
        in_two.on.limit = Some(1);
        let mut after = Rule::new("after", Action::Drop);
        after.on.after = Some("in-two".to_owned());
        for (number, rule) in (1..).zip([to_two, in_two, after]) {
            rules.add(number, rule).unwrap();
        }
        assert_eq!(look(&mut rules, fence(0), true), [0; 0]);
        assert_eq!(look(&mut rules, fence(7), false), [1]);
        assert_eq!([look(&mut rules, fence(0), true), look(&mut rules, fence(0), true)], [[2], [3]]);
    }

    #[test]
    fn a_time_comes_once() {
        let mut rules = Rules::default();
        let mut timed = Rule::new("timed", Action::Gone);
        timed.on.at_ns = Some(5);
        rules.add(1, timed).unwrap();
        assert_eq!((rules.deadline(), rules.expire(4).len()), (Some(5), 0));
        assert_eq!((rules.expire(9).len(), rules.expire(9).len(), rules.deadline()), (1, 0, None));
        assert_eq!(look(&mut rules, fence(0), false), [0; 0], "events are nothing to it");
    }
}

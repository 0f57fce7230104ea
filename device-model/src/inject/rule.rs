// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rules: a trigger and an action, as blkdebug has them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::action::{Action, MAX_FAULTS};
use super::breakpoint::MAX_DEADLINE_NS;
use super::trigger::Trigger;
use crate::trace::{Filter, Kind};

/// Most rules of a device.
pub const MAX_RULES: usize = 256;
/// The state of the rules at first.
pub const FIRST_STATE: u32 = 1;

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// When it fires.
    #[serde(default)]
    pub on: Trigger,
    /// What it does then.
    pub action: Action,
}

/// Why a rule cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    /// The name cannot be one.
    #[error("a rule named {0:?}: a name has 1 to 64 bytes and no control characters")]
    Name(String),
    /// There is one of that name.
    #[error("there is a rule named {0:?} already; remove it first, or choose another name")]
    Taken(String),
    /// Its action cannot decide about these events.
    #[error(
        "rule {name:?}: the action {action} decides about events of the kinds {suited}; give one or more of them as event.kinds"
    )]
    Kinds {
        /// Name of the rule.
        name: String,
        /// Kind of its action.
        action: &'static str,
        /// What it can decide about.
        suited: String,
    },
    /// What belongs to events and what belongs to DMA accesses do not go together.
    #[error(
        "rule {0:?}: the action refuse, and no other one, is for DMA accesses (dma), which have no more than addresses and times"
    )]
    Dma(String),
    /// It would never fire.
    #[error("rule {0:?}: no occurrence is number 0, and a probability is at most 1,000,000 per million")]
    Occurrence(String),
    /// It reports too many faults, or none.
    #[error("rule {0:?}: the action fault is for 1 to {MAX_FAULTS} pages (count)")]
    Faults(String),
    /// It demands or returns no memory, or has no deadline that can be kept.
    #[error(
        "rule {0:?}: memory has 1 page or more (pages), and a deadline (deadline-ns) of 1 ns to {MAX_DEADLINE_NS} ns"
    )]
    Memory(String),
    /// It has both a time and what belongs to events.
    #[error("rule {0:?} fires by itself at a time (at-ns): it can have no event, occurrence or after")]
    Time(String),
    /// There are too many.
    #[error("there are {MAX_RULES} rules already; remove one first")]
    TooMany,
}

impl Rule {
    /// A rule that fires at every event that its action decides about; those of other actions, at every event at all.
    pub fn new(name: impl Into<String>, action: Action) -> Self {
        let mut rule = Self { name: name.into(), on: Trigger::default(), action };
        let kinds = action.decides_about().unwrap_or_default();
        rule.on.event.kinds = kinds.iter().filter_map(|name| Kind::from_name(name)).collect();
        rule
    }

    /// Checks what can be checked without the other rules.
    ///
    /// # Errors
    ///
    /// Those of [`RuleError`] that are about a rule alone.
    pub fn check(&self) -> Result<(), RuleError> {
        let name = || self.name.clone();
        if self.name.is_empty() || self.name.len() > 64 || self.name.chars().any(char::is_control) {
            return Err(RuleError::Name(name()));
        }
        let Trigger { event, dma, after, occurrence, at_ns, .. } = &self.on;
        let is_refusal = matches!(self.action, Action::Refuse { .. });
        if is_refusal || dma.is_some() {
            let places = Filter { addresses: event.addresses, times: event.times, ..Filter::default() };
            if !is_refusal || dma.is_none() || *event != places || at_ns.is_some() {
                return Err(RuleError::Dma(name()));
            }
        } else if let Some(suited) = self.action.decides_about() {
            let is_suited = !event.kinds.is_empty() && event.kinds.iter().all(|kind| self.action.suits(*kind));
            if !is_suited || at_ns.is_some() {
                let (action, suited) = (self.action.kind().name(), suited.join(", "));
                return Err(RuleError::Kinds { name: name(), action, suited });
            }
        }
        if matches!(self.action, Action::Fault { count, .. } if !(1..=MAX_FAULTS).contains(&count)) {
            return Err(RuleError::Faults(name()));
        }
        if !self.action.has_valid_memory() {
            return Err(RuleError::Memory(name()));
        }
        if !occurrence.is_possible() {
            return Err(RuleError::Occurrence(name()));
        }
        if at_ns.is_some() && (*event != Default::default() || after.is_some() || *occurrence != Default::default()) {
            return Err(RuleError::Time(name()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::trigger::{DmaKind, Occurrence};
    use crate::trace::range::Range;

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        let text = r#"{"name":"late","on":{"event":{"kinds":["fence"],"channels":[1]},"state":2,"after":"x",
            "occurrence":{"probability":{"per-million":5,"seed":1}},"limit":1},"action":{"kind":"delay","ns":7}}"#;
        let read: Rule = serde_json::from_str(text).unwrap();
        assert_eq!(read.action, Action::Delay { ns: 7 });
        assert_eq!(serde_json::from_str::<Rule>(&serde_json::to_string(&read).unwrap()).unwrap(), read);
        let fail: Rule = serde_json::from_str(
            r#"{"name":"f","on":{"event":{"kinds":["copy"]},"occurrence":{"nth":3}},"action":{"kind":"fail","error":"dma-read"}}"#,
        )
        .unwrap();
        assert_eq!(fail.check(), Ok(()));
        for wrong in [
            r#"{"name":"a","action":{"kind":"explode"}}"#,
            r#"{"name":"a","action":{"kind":"fail","error":"none"}}"#,
            r#"{"name":"a","on":{"occurrence":{"nth":-1}},"action":{"kind":"drop"}}"#,
        ] {
            assert!(serde_json::from_str::<Rule>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_added() {
        let rule = |action| Rule::new("r", action);
        assert_eq!(rule(Action::Drop).check(), Ok(()));
        let mut none = rule(Action::Drop);
        none.on.event = Filter::default();
        assert!(matches!(none.check(), Err(RuleError::Kinds { .. })));
        let mut other = rule(Action::Hang);
        other.on.event.kinds = vec![Kind::from_name("fence").unwrap()];
        assert!(matches!(other.check(), Err(RuleError::Kinds { .. })));
        let mut never = rule(Action::Drop);
        never.on.occurrence = Occurrence::Nth(0);
        assert!(matches!(never.check(), Err(RuleError::Occurrence(_))));
        let mut timed = rule(Action::Gone);
        timed.on.at_ns = Some(5);
        assert_eq!(timed.check(), Ok(()));
        timed.on.after = Some("x".to_owned());
        assert!(matches!(timed.check(), Err(RuleError::Time(_))));
    }

    #[test]
    fn a_storm_has_a_size() {
        let of = |count: &str| {
            let action = format!(r#"{{"kind":"fault","channel":2,"asid":1,"address":4096,"access":"write"{count}}}"#);
            Rule::new("storm", serde_json::from_str(&action).unwrap()).check()
        };
        for (count, fits) in
            [("", true), (r#","count":4096"#, true), (r#","count":0"#, false), (r#","count":4097"#, false)]
        {
            assert_eq!(of(count).is_ok(), fits, "{count}");
        }
        let unknown = r#"{"kind":"fault","channel":2,"asid":1,"address":0,"access":"writ"}"#;
        let error = serde_json::from_str::<Action>(unknown).unwrap_err().to_string();
        assert!(error.contains(r#""write""#), "{error}");
    }

    #[test]
    fn refusals_are_for_dma_accesses_and_nothing_else_is() {
        let mut refuse = Rule::new("r", Action::Refuse { bytes: 0 });
        assert!(matches!(refuse.check(), Err(RuleError::Dma(_))));
        refuse.on.dma = Some(DmaKind::Write);
        refuse.on.event.addresses = Some(Range::with_length(0x1000, 8));
        assert_eq!(refuse.check(), Ok(()));
        let other = Rule { action: Action::Drop, ..refuse.clone() };
        assert!(matches!(other.check(), Err(RuleError::Dma(_))));
        refuse.on.event.channels = vec![1];
        assert!(matches!(refuse.check(), Err(RuleError::Dma(_))));
    }
}

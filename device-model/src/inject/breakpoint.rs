// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Breakpoints: what is held, where, and for how long at most.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::site::Site;
use crate::trace::{Filter, Step};

/// Most breakpoints of a device.
pub const MAX_BREAKPOINTS: usize = 256;
/// How long a breakpoint holds unless it says otherwise, in nanoseconds: below the limits of a Linux guest's watchdogs.
pub const DEFAULT_DEADLINE_NS: u64 = 10_000_000_000;
/// How long a breakpoint can hold, in nanoseconds: an hour.
pub const MAX_DEADLINE_NS: u64 = 3_600_000_000_000;
/// Longest name in bytes.
const MAX_NAME_BYTES: usize = 64;

/// A breakpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Breakpoint {
    /// Its name, by which it is shown and resumed.
    pub name: String,
    /// Where it holds.
    #[serde(with = "step")]
    pub step: Step,
    /// What it holds: everything by default.
    #[serde(default)]
    pub when: Filter,
    /// Which of the arrivals that `when` wants is held, counted from 1 since it was set; all of them by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nth: Option<u64>,
    /// How long it holds at most, in nanoseconds, 1 to [`MAX_DEADLINE_NS`]; [`DEFAULT_DEADLINE_NS`] by default.
    #[serde(default = "default_deadline")]
    pub deadline_ns: u64,
}

fn default_deadline() -> u64 {
    DEFAULT_DEADLINE_NS
}

/// Why a breakpoint cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SetError {
    /// The name cannot be one.
    #[error("a breakpoint named {0:?}: a name has 1 to {MAX_NAME_BYTES} bytes and no control characters")]
    Name(String),
    /// There is one of that name.
    #[error("there is a breakpoint named {0:?} already; clear it first, or choose another name")]
    Taken(String),
    /// It would never hold.
    #[error("breakpoint {0:?}: arrivals are counted from 1, so none is number 0")]
    Nth(String),
    /// The deadline is out of range.
    #[error("breakpoint {name:?}: a deadline of {deadline_ns} ns; it must be 1 to {MAX_DEADLINE_NS} ns")]
    Deadline {
        /// Name of the breakpoint.
        name: String,
        /// As given, in nanoseconds.
        deadline_ns: u64,
    },
    /// There are too many.
    #[error("there are {MAX_BREAKPOINTS} breakpoints already; clear one first")]
    TooMany,
}

impl Breakpoint {
    /// A breakpoint that holds every arrival at a step, for at most [`DEFAULT_DEADLINE_NS`].
    pub fn new(name: impl Into<String>, step: Step) -> Self {
        Self { name: name.into(), step, when: Filter::default(), nth: None, deadline_ns: DEFAULT_DEADLINE_NS }
    }

    /// Checks what can be checked without the other breakpoints.
    ///
    /// # Errors
    ///
    /// Those of [`SetError`] that are about a breakpoint alone.
    pub fn check(&self) -> Result<(), SetError> {
        let name = || self.name.clone();
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES || self.name.chars().any(char::is_control) {
            return Err(SetError::Name(name()));
        }
        if self.nth == Some(0) {
            return Err(SetError::Nth(name()));
        }
        if !(1..=MAX_DEADLINE_NS).contains(&self.deadline_ns) {
            return Err(SetError::Deadline { name: name(), deadline_ns: self.deadline_ns });
        }
        Ok(())
    }
}

/// A breakpoint that is set.
#[derive(Debug)]
pub(super) struct ArmedBreakpoint {
    pub(super) number: u64,
    pub(super) breakpoint: Breakpoint,
    /// Arrivals that it wanted so far.
    arrivals: u64,
}

impl ArmedBreakpoint {
    pub(super) fn new(number: u64, breakpoint: Breakpoint) -> Self {
        Self { number, breakpoint, arrivals: 0 }
    }

    /// Counts an arrival; returns whether to hold it.
    pub(super) fn arrive(&mut self, site: &Site, time: u64) -> bool {
        if self.breakpoint.step != site.step || !site.matches(&self.breakpoint.when, time) {
            return false;
        }
        self.arrivals = self.arrivals.saturating_add(1);
        self.breakpoint.nth.is_none_or(|nth| nth == self.arrivals)
    }
}

/// A step as its name.
mod step {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::trace::Step;
    use crate::trace::nearest::nearest;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub(super) fn serialize<S: Serializer>(step: &Step, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(step.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Step, D::Error> {
        let name = String::deserialize(deserializer)?;
        let step = Step::ALL.iter().copied().find(|step| step.name() == name);
        let nearest = || nearest(&name, Step::ALL.iter().map(|step| step.name()));
        step.ok_or_else(|| D::Error::custom(format_args!("there is no step {name:?}; the nearest is {:?}", nearest())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Event;

    #[test]
    fn a_breakpoint_is_read_as_it_is_written() {
        let text = r#"{"name":"a","step":"before-fence","when":{"channels":[3],"causes":["evict"],"addresses":"0x1000+8K"},"nth":2}"#;
        let read: Breakpoint = serde_json::from_str(text).unwrap();
        assert_eq!((read.step, read.nth, read.deadline_ns), (Step::BeforeFence, Some(2), DEFAULT_DEADLINE_NS));
        let again = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(read, again);
        for wrong in [
            r#"{"name":"a","step":"nowhere"}"#,
            r#"{"name":"a","step":"before-get","when":{"causes":["none-such"]}}"#,
            r#"{"name":"a","step":"before-get","when":{"addresses":"2..1"}}"#,
            r#"{"name":"a","step":"before-get","other":1}"#,
        ] {
            assert!(serde_json::from_str::<Breakpoint>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_set() {
        let good = Breakpoint::new("good", Step::BeforeGet);
        assert_eq!(good.check(), Ok(()));
        for name in ["", "a\nb", &"x".repeat(65)] {
            assert_eq!(Breakpoint { name: name.into(), ..good.clone() }.check(), Err(SetError::Name(name.into())));
        }
        assert!(matches!(Breakpoint { nth: Some(0), ..good.clone() }.check(), Err(SetError::Nth(_))));
        for deadline_ns in [0, MAX_DEADLINE_NS + 1, u64::MAX] {
            let refused = Breakpoint { deadline_ns, ..good.clone() }.check();
            assert!(matches!(refused, Err(SetError::Deadline { .. })));
        }
    }

    #[test]
    fn arrivals_are_counted_from_one() {
        let breakpoint = Breakpoint { nth: Some(2), ..Breakpoint::new("second", Step::BeforeFence) };
        let mut armed = ArmedBreakpoint::new(1, breakpoint);
        let event = Event::Fence { channel: 0, engine: 0, value: 1, address: 0 };
        let site = |step| Site { step, event, subject: event.subject(), address: None };
        let arrive = [Step::BeforeGet, Step::BeforeFence, Step::BeforeFence, Step::BeforeFence];
        assert_eq!(arrive.map(|step| armed.arrive(&site(step), 0)), [false, false, true, false]);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which events are wanted: the language of filters.
//!
//! A filter has criteria. Several values of one criterion are alternatives; an event must satisfy every criterion that has a
//! value. How a value is typed is defined here for all who read one: kinds and causes by [their](Kind::from_str)
//! [names](cause), addresses and times as [ranges](Range). What an event is about comes from its definition
//! ([`event`](super::event)).
//!
//! | criterion | values | an event satisfies it if |
//! |---|---|---|
//! | kind | a name | it is of that kind |
//! | cause | a name | its command was submitted for that cause |
//! | channel, engine, asid | a number | it concerns that channel, that engine, that address space |
//! | address | `0x1000..0x3000`, `0x1000+8K`, `0x1000` | it is about memory in the range, in any aperture, virtual, or as the tag |
//! | time | `1.5ms..2s`, `..10us`, `3s..` | it happened then, counted from the first event |
//!
//! Rules and breakpoints ([`inject`](crate::inject)) select with the same filter while the device runs. Their times are those of
//! the device's clock.

mod text;

#[cfg(test)]
mod tests;

#[cfg(doc)]
use std::str::FromStr;

use ersatz_abi::command::Cause;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::event::Subject;
use super::kind::Kind;
use super::nearest::nearest;
use super::range::Range;
use super::record::Record;

/// Which events are wanted. The default wants all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Filter {
    /// Of these kinds.
    #[serde(with = "text::kinds", skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<Kind>,
    /// For these causes.
    #[serde(with = "text::causes", skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Of these channels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<u8>,
    /// Of these engines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub engines: Vec<u8>,
    /// Of these address spaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asids: Vec<u8>,
    /// About these addresses.
    #[serde(with = "text::addresses", skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Range>,
    /// At these times, in nanoseconds.
    #[serde(with = "text::times", skip_serializing_if = "Option::is_none")]
    pub times: Option<Range>,
}

/// No command has this cause.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("commands have no cause {name:?}; the nearest is {nearest:?}")]
pub struct NoSuchCause {
    name: String,
    nearest: &'static str,
}

/// The cause with this name.
///
/// # Errors
///
/// If there is none.
pub fn cause(name: &str) -> Result<Cause, NoSuchCause> {
    let nearest = || nearest(name, Cause::ALL.iter().map(|cause| cause.name()));
    let cause = Cause::ALL.iter().copied().find(|cause| cause.name() == name);
    cause.ok_or_else(|| NoSuchCause { name: name.to_owned(), nearest: nearest() })
}

impl Filter {
    /// Whether the event of a record is wanted; `time` is when it happened, from wherever times are counted.
    ///
    /// A record that this version cannot decode has no more than a time, and perhaps a kind.
    pub fn matches(&self, record: &Record, time: u64) -> bool {
        (self.kinds.is_empty() || record.kind().is_some_and(|kind| self.kinds.contains(&kind)))
            && self.times.is_none_or(|range| range.contains(time))
            && match record.event() {
                Some(event) => self.admits_subject(&event.subject(), |range| event.is_about(range)),
                None => !self.asks_for_subject(),
            }
    }

    /// Whether an event is wanted that happens at `time`, in nanoseconds, and concerns `subject`; `is_about` says whether it is about
    /// memory in a range.
    pub(crate) fn admits(&self, kind: Kind, time: u64, subject: &Subject, is_about: impl Fn(Range) -> bool) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && self.times.is_none_or(|range| range.contains(time))
            && self.admits_subject(subject, is_about)
    }

    fn admits_subject(&self, subject: &Subject, is_about: impl Fn(Range) -> bool) -> bool {
        is_wanted(&self.causes, subject.cause)
            && is_wanted(&self.channels, subject.channel)
            && is_wanted(&self.engines, subject.engine)
            && is_wanted(&self.asids, subject.asid)
            && self.addresses.is_none_or(is_about)
    }

    /// Whether there is a criterion that only a decoded event can satisfy.
    fn asks_for_subject(&self) -> bool {
        let Self { kinds: _, causes, channels, engines, asids, addresses, times: _ } = self;
        !(causes.is_empty() && channels.is_empty() && engines.is_empty() && asids.is_empty() && addresses.is_none())
    }
}

/// Whether a criterion is satisfied.
fn is_wanted<T: PartialEq>(wanted: &[T], value: Option<T>) -> bool {
    wanted.is_empty() || value.is_some_and(|value| wanted.contains(&value))
}

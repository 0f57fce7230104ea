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
//! | channel, asid | a number | it concerns that channel, that address space |
//! | address | `0x1000..0x3000`, `0x1000+8K`, `0x1000` | it is about memory in the range, in any aperture, virtual, or as the tag |
//! | time | `1.5ms..2s`, `..10us`, `3s..` | it happened then, counted from the first event |

#[cfg(test)]
mod tests;

#[cfg(doc)]
use std::str::FromStr;

use ersatz_abi::command::Cause;
use thiserror::Error;

use super::event::Event;
use super::kind::Kind;
use super::range::Range;
use super::record::Record;

/// Which events are wanted. The default wants all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of these kinds.
    pub kinds: Vec<Kind>,
    /// For these causes.
    pub causes: Vec<Cause>,
    /// Of these channels.
    pub channels: Vec<u8>,
    /// Of these address spaces.
    pub asids: Vec<u8>,
    /// About these addresses.
    pub addresses: Option<Range>,
    /// At these times, in nanoseconds.
    pub times: Option<Range>,
}

/// No command has this cause.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("commands have no cause {0:?}")]
pub struct NoSuchCause(String);

/// The cause with this name.
///
/// # Errors
///
/// If there is none.
pub fn cause(name: &str) -> Result<Cause, NoSuchCause> {
    Cause::ALL.iter().copied().find(|cause| cause.name() == name).ok_or_else(|| NoSuchCause(name.to_owned()))
}

impl Filter {
    /// Whether the event of a record is wanted; `time` is when it happened, from wherever times are counted.
    ///
    /// A record that this version cannot decode has no more than a time, and perhaps a kind.
    pub fn matches(&self, record: &Record, time: u64) -> bool {
        (self.kinds.is_empty() || record.kind().is_some_and(|kind| self.kinds.contains(&kind)))
            && self.times.is_none_or(|range| range.contains(time))
            && match record.event() {
                Some(event) => self.matches_subject(&event),
                None => !self.asks_for_subject(),
            }
    }

    /// Whether the event is wanted by all criteria but kind and time.
    fn matches_subject(&self, event: &Event) -> bool {
        let subject = event.subject();
        is_wanted(&self.causes, subject.cause)
            && is_wanted(&self.channels, subject.channel)
            && is_wanted(&self.asids, subject.asid)
            && self.addresses.is_none_or(|range| event.is_about(range))
    }

    /// Whether there is a criterion that only a decoded event can satisfy.
    fn asks_for_subject(&self) -> bool {
        !(self.causes.is_empty() && self.channels.is_empty() && self.asids.is_empty() && self.addresses.is_none())
    }
}

/// Whether a criterion is satisfied.
fn is_wanted<T: PartialEq>(wanted: &[T], value: Option<T>) -> bool {
    wanted.is_empty() || value.is_some_and(|value| wanted.contains(&value))
}

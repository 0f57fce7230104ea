// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All kinds of events, from the tables that define the events.

use std::str::FromStr;

use thiserror::Error;

use super::event::Event;
use super::kind::Kind;
use super::nearest::nearest;

/// No event has this kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there are no events of kind {name:?}; the nearest is {nearest:?}")]
pub struct NoSuchKind {
    name: String,
    nearest: &'static str,
}

/// The kinds by their numbers. Zero is not a kind: an unwritten slot is all zeros.
const BY_NUMBER: [Option<Kind>; 256] = {
    let mut kinds = [None; 256];
    let mut group = 0;
    while group < Event::KINDS.len() {
        let mut index = 0;
        while index < Event::KINDS[group].len() {
            let kind = Event::KINDS[group][index];
            assert!(
                kind.number() != 0 && kinds[kind.number() as usize].is_none(),
                "a number for two kinds, or zero for one"
            );
            kinds[kind.number() as usize] = Some(kind);
            index += 1;
        }
        group += 1;
    }
    kinds
};

const COUNT: usize = {
    let mut count = 0;
    let mut group = 0;
    while group < Event::KINDS.len() {
        count += Event::KINDS[group].len();
        group += 1;
    }
    count
};

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: &'static [Self] = &{
        let mut all = [Self::new(0, ""); COUNT];
        let (mut number, mut count) = (0, 0);
        while number < BY_NUMBER.len() {
            if let Some(kind) = BY_NUMBER[number] {
                all[count] = kind;
                count += 1;
            }
            number += 1;
        }
        all
    };

    /// The kind with this number, if there is one.
    pub const fn from_raw(raw: u8) -> Option<Self> {
        BY_NUMBER[raw as usize]
    }

    /// The kind with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

impl FromStr for Kind {
    type Err = NoSuchKind;

    fn from_str(name: &str) -> Result<Self, NoSuchKind> {
        let nearest = || nearest(name, Self::ALL.iter().map(|kind| kind.name()));
        Self::from_name(name).ok_or_else(|| NoSuchKind { name: name.to_owned(), nearest: nearest() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back() {
        for &kind in Kind::ALL {
            assert_eq!(Kind::from_raw(kind.number()), Some(kind));
            assert_eq!(Kind::from_name(kind.name()), Some(kind), "a name for two kinds");
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert_eq!(Kind::from_raw(0), None, "an unwritten slot has no kind");
        assert_eq!(Kind::from_name("no-such-kind"), None);
        assert_eq!(Kind::ALL.len(), COUNT);
    }
}

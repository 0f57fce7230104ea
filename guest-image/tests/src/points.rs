// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The lists of useful points: functions of the kernel at whose entry a task can be held, and what is true there.
//!
//! The lists are in `guest-image/points`, one file per subsystem. A line names a function, where its user address is (`arg0` to
//! `arg5`, `arg0+40` for the 64-bit field at an offset of what the argument points to, `-` if there is none), and says what is true
//! at its entry. `#` begins a comment.

use std::ops::RangeInclusive;

use crate::hold::Condition;

const LISTS: &[(&str, &str)] = &[
    ("migrate_device", include_str!("../../points/migrate_device.txt")),
    ("fault", include_str!("../../points/fault.txt")),
    ("unmap", include_str!("../../points/unmap.txt")),
    ("rmap", include_str!("../../points/rmap.txt")),
    ("ksm", include_str!("../../points/ksm.txt")),
    ("huge_memory", include_str!("../../points/huge_memory.txt")),
    ("hmm", include_str!("../../points/hmm.txt")),
    ("mmu_notifier", include_str!("../../points/mmu_notifier.txt")),
    ("swap", include_str!("../../points/swap.txt")),
    ("zone_device", include_str!("../../points/zone_device.txt")),
];

/// A function of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The subsystem: the name of the list.
    pub subsystem: &'static str,
    /// The function's name.
    pub function: &'static str,
    /// Where its user address is.
    pub address: Address,
    /// What is true at its entry.
    pub truth: &'static str,
}

/// Where a function's user address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// It has none.
    None,
    /// An argument.
    Argument(u32),
    /// A field of what an argument points to: the argument's number, the offset in bytes.
    Field(u32, u64),
}

impl Address {
    /// The condition that the address is in a range; `None` if there is no address.
    pub fn within(self, values: RangeInclusive<u64>) -> Option<Condition> {
        match self {
            Self::None => None,
            Self::Argument(argument) => Some(Condition::Argument(argument, values)),
            Self::Field(argument, offset) => Some(Condition::Field { argument, offset, values }),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "-" {
            return Some(Self::None);
        }
        let text = text.strip_prefix("arg")?;
        match text.split_once('+') {
            None => text.parse().ok().map(Self::Argument),
            Some((argument, offset)) => Some(Self::Field(argument.parse().ok()?, offset.parse().ok()?)),
        }
    }
}

/// All points, list by list.
///
/// # Panics
///
/// If a line of a list is malformed, which a test rules out.
pub fn all() -> impl Iterator<Item = Point> {
    LISTS.iter().flat_map(|&(subsystem, text)| {
        text.lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
            .map(move |line| parse(subsystem, line).unwrap_or_else(|| panic!("{subsystem}.txt: malformed: {line}")))
    })
}

/// The point of a function, if a list has it.
pub fn find(function: &str) -> Option<Point> {
    all().find(|point| point.function == function)
}

fn parse(subsystem: &'static str, line: &'static str) -> Option<Point> {
    let (function, rest) = line.split_once(' ')?;
    let (address, truth) = rest.trim_start().split_once(' ')?;
    let truth = Some(truth.trim()).filter(|truth| !truth.is_empty())?;
    Some(Point { subsystem, function, address: Address::parse(address)?, truth })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_line_is_a_point_of_its_own() {
        let mut seen = HashSet::new();
        for point in all() {
            assert!(seen.insert(point.function), "{} is there twice", point.function);
            assert!(point.truth.ends_with('.'), "{}: {}", point.function, point.truth);
        }
        assert!(seen.len() >= 50, "{} points", seen.len());
        for (subsystem, _) in LISTS {
            assert!(all().any(|point| point.subsystem == *subsystem), "{subsystem}.txt is empty");
        }
    }

    #[test]
    fn an_address_is_an_argument_or_a_field_of_one() {
        assert_eq!(Address::parse("-"), Some(Address::None));
        assert_eq!(Address::parse("arg1"), Some(Address::Argument(1)));
        assert_eq!(Address::parse("arg0+40"), Some(Address::Field(0, 40)));
        assert_eq!(Address::parse("0"), None);
        assert_eq!(Address::parse("arg"), None);
        assert_eq!(find("migrate_vma_pages").map(|point| point.address), Some(Address::Field(0, 40)));
    }
}

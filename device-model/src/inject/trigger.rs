// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! When a rule fires.

use serde::{Deserialize, Serialize};

use crate::trace::Filter;

/// When a rule fires. All that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Trigger {
    /// The events at which it can fire. Their times are those of the device's clock.
    pub event: Filter,
    /// In place of events: DMA accesses of this kind, those to the addresses and at the times that `event` has, if it has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dma: Option<DmaKind>,
    /// Only in this state of the rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<u32>,
    /// Only once the rule of this name has fired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At which of the events that satisfy all of the above: its *occurrences*, counted from 1.
    pub occurrence: Occurrence,
    /// How often it fires at most; without an end by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// In place of events: it fires once, by itself, when the device's clock reads this many nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_ns: Option<u64>,
}

/// What kind of DMA accesses. Those of copies and kernels are meant, and those to rings, lists, control blocks and page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DmaKind {
    /// Reads.
    Read,
    /// Writes and atomics.
    Write,
    /// All.
    Any,
}

/// Which occurrences a rule fires at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Occurrence {
    /// Each.
    #[default]
    Every,
    /// One of them, by its number from 1.
    Nth(u64),
    /// Each one whose number is a multiple of this.
    EveryNth(u64),
    /// Each one with this probability. Whether an occurrence is among them depends on the seed, the rule's name and the
    /// occurrence's number alone.
    Probability(Probability),
}

/// A probability that comes out the same each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Probability {
    /// How many of a million occurrences, 0 to 1,000,000.
    pub per_million: u32,
    /// Chooses which.
    #[serde(default)]
    pub seed: u64,
}

/// A probability of 1.
pub(super) const MILLION: u32 = 1_000_000;

impl Occurrence {
    /// Whether a rule fires at its occurrence of this number, from 1. `name` stands for the rule's name ([`hash`]).
    pub(super) fn includes(self, number: u64, name: u64) -> bool {
        match self {
            Self::Every => true,
            Self::Nth(nth) => number == nth,
            Self::EveryNth(nth) => number.checked_rem(nth) == Some(0),
            Self::Probability(Probability { per_million, seed }) => {
                let random = mix(mix(seed).wrapping_add(name)).wrapping_add(number);
                // The upper half of the product is uniform below a million.
                let drawn = (u128::from(mix(random)) * u128::from(MILLION)) >> 64;
                drawn < u128::from(per_million)
            }
        }
    }

    /// Whether it can include any.
    pub(super) fn is_possible(self) -> bool {
        match self {
            Self::Every => true,
            Self::Nth(nth) | Self::EveryNth(nth) => nth > 0,
            Self::Probability(Probability { per_million, .. }) => per_million <= MILLION,
        }
    }
}

/// A number that stands for a name: its FNV-1a hash.
pub(super) fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The finalizer of the generator splitmix64: every bit of the result depends on every bit of the argument.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chosen(occurrence: Occurrence, name: &str, count: u64) -> Vec<u64> {
        (1..=count).filter(|number| occurrence.includes(*number, hash(name))).collect()
    }

    #[test]
    fn occurrences_are_counted_from_one() {
        assert_eq!(chosen(Occurrence::Every, "a", 3), [1, 2, 3]);
        assert_eq!(chosen(Occurrence::Nth(2), "a", 5), [2]);
        assert_eq!(chosen(Occurrence::EveryNth(2), "a", 5), [2, 4]);
        assert_eq!(chosen(Occurrence::EveryNth(0), "a", 5), [0; 0]);
    }

    proptest! {
        #[test]
        fn every_nth_fires_once_in_that_many(nth in 1_u64.., from: u64, name: u64) {
            let from = from.saturating_sub(nth).max(1);
            let fires = (0..nth.min(1000)).filter(|step| Occurrence::EveryNth(nth).includes(from + step, name)).count();
            prop_assert!(fires <= 1 && (nth > 1000 || fires == 1));
            prop_assert!(Occurrence::EveryNth(nth).includes(u64::MAX / nth * nth, name));
        }

        #[test]
        fn a_probability_is_kept_and_comes_out_the_same(per_million in 0..=MILLION, seed: u64, name: u64) {
            let occurrence = Occurrence::Probability(Probability { per_million, seed });
            let fires = |number| occurrence.includes(number, name);
            let count = (1..=4000).filter(|number| fires(*number)).count() as f64;
            let expected = 4000.0 * f64::from(per_million) / f64::from(MILLION);
            // Six standard deviations.
            prop_assert!((count - expected).abs() <= 6.0 * (1000.0_f64).sqrt(), "{} of {}", count, expected);
            prop_assert_eq!(fires(17), fires(17));
            prop_assert!(per_million != 0 || count == 0.0);
            prop_assert!(per_million != MILLION || count == 4000.0);
        }

        #[test]
        fn rules_and_seeds_choose_different_ones(seed: u64) {
            let half = |seed| Occurrence::Probability(Probability { per_million: MILLION / 2, seed });
            let first = chosen(half(seed), "first", 256);
            prop_assert_ne!(&first, &chosen(half(seed), "second", 256));
            prop_assert_ne!(&first, &chosen(half(seed.wrapping_add(1)), "first", 256));
        }
    }
}

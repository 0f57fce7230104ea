// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the driver counts of its work, in debugfs.

use std::collections::HashMap;
use std::fs;
use std::ops::Sub;
use std::time::Duration;

const PATH: &str = "/sys/kernel/debug/ersatz0/stats";

/// The sums of the first device at one moment, by their names.
#[derive(Clone, Debug)]
pub struct Statistics(HashMap<String, u64>);

/// How long the steps of migrations took in sum. Steps of several threads, and copies that overlap with other steps, may make
/// more or less than the time that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Isolating pages.
    pub collect: Duration,
    /// Allocating destinations, which the kernel may clear.
    pub allocate: Duration,
    /// Mapping for DMA, submitting.
    pub map: Duration,
    /// Waiting for the device.
    pub copy: Duration,
    /// Putting destinations in the place of sources.
    pub commit: Duration,
    /// Making them visible.
    pub finalize: Duration,
}

impl Statistics {
    /// Reads them.
    ///
    /// # Panics
    ///
    /// If there are none, or they are not of the form that the driver promises.
    pub fn read() -> Self {
        let text = fs::read_to_string(PATH).unwrap_or_else(|error| panic!("{PATH}: {error}"));
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let pair = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(
            text.lines()
                .map(|line| pair(line).unwrap_or_else(|| panic!("{line:?} is no line of statistics")))
                .collect(),
        )
    }

    /// One of them.
    ///
    /// # Panics
    ///
    /// If there is no such name.
    pub fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("the statistics have no {name}"))
    }

    /// How long the steps of all migrations took.
    ///
    /// # Panics
    ///
    /// If a step is missing.
    pub fn steps(&self) -> Steps {
        let of = |step: &str| Duration::from_micros(self.get(&format!("svm_{step}_us")));
        Steps {
            collect: of("collect"),
            allocate: of("allocate"),
            map: of("map"),
            copy: of("copy"),
            commit: of("commit"),
            finalize: of("finalize"),
        }
    }
}

impl Steps {
    /// The steps in their order, with their names.
    pub fn named(&self) -> [(&'static str, Duration); 6] {
        [
            ("collect", self.collect),
            ("allocate", self.allocate),
            ("map", self.map),
            ("copy", self.copy),
            ("commit", self.commit),
            ("finalize", self.finalize),
        ]
    }
}

impl Sub for Steps {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            collect: self.collect.saturating_sub(before.collect),
            allocate: self.allocate.saturating_sub(before.allocate),
            map: self.map.saturating_sub(before.map),
            copy: self.copy.saturating_sub(before.copy),
            commit: self.commit.saturating_sub(before.commit),
            finalize: self.finalize.saturating_sub(before.finalize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "svm_collect_us: 1\nsvm_allocate_us: 2\nsvm_map_us: 3\nsvm_copy_us: 4\nsvm_commit_us: 5\nsvm_finalize_us: 6\n";

    #[test]
    fn steps_are_read_by_their_names() {
        let steps = Statistics::parse(TEXT).steps();
        assert_eq!(steps.named().map(|(_, time)| time.as_micros()), [1, 2, 3, 4, 5, 6]);
        assert_eq!(steps - steps, Steps::default());
    }

    #[test]
    #[should_panic(expected = "no line of statistics")]
    fn other_lines_are_refused() {
        Statistics::parse("svm_collect_us 1");
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Counting results, out of what cargo's test programs and KTAP reports print.

use std::fmt;
use std::ops::AddAssign;

/// Numbers of tests by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, and checks that came to no result.
    pub failed: u64,
    /// Tests that were not run.
    pub skipped: u64,
}

impl Tally {
    /// One check that passed or failed as a whole.
    pub fn check(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed), skipped: 0 }
    }

    /// Adds up the summaries of the test programs that `cargo test` ran.
    pub fn of_cargo(output: &str) -> Self {
        let mut sum = Self::default();
        for summary in output.lines().filter_map(|line| line.trim().strip_prefix("test result: ")) {
            for part in summary.split(['.', ';']).map(str::trim) {
                let Some((Ok(count), what)) = part.split_once(' ').map(|(count, what)| (count.parse::<u64>(), what))
                else {
                    continue;
                };
                match what {
                    "passed" => sum.passed += count,
                    "failed" => sum.failed += count,
                    "ignored" => sum.skipped += count,
                    _ => {}
                }
            }
        }
        sum
    }

    /// Counts the results of one KTAP report. A report that promises more results than it has lacks the rest by failure:
    /// the guest ended in the middle.
    pub fn of_ktap(output: &str) -> Self {
        let mut sum = Self::default();
        let mut planned = 0;
        for line in output.lines() {
            if let Some(count) = line.strip_prefix("1..") {
                planned = count.trim().parse().unwrap_or(0);
            } else if line.starts_with("not ok ") {
                sum.failed += 1;
            } else if line.starts_with("ok ") {
                let is_skipped = line.contains(" # SKIP");
                sum.skipped += u64::from(is_skipped);
                sum.passed += u64::from(!is_skipped);
            }
        }
        sum.failed += u64::saturating_sub(planned, sum.passed + sum.failed + sum.skipped);
        sum
    }

    /// Whether nothing failed, and something passed.
    pub fn is_good(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// Makes a check that ended badly count as failed even if none of its parts does: it broke before it could report that.
    pub fn with_end(mut self, well: bool) -> Self {
        if !well && self.failed == 0 {
            self.failed = 1;
        }
        self
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 { write!(f, ", {} skipped", self.skipped) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: u64, failed: u64, skipped: u64) -> Tally {
        Tally { passed, failed, skipped }
    }

    #[test]
    fn summaries_of_test_programs_add_up() {
        let output = "running 3 tests\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.10s\n\
            test result: FAILED. 5 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";
        assert_eq!(Tally::of_cargo(output), tally(7, 1, 1));
        assert_eq!(Tally::of_cargo("error: could not compile"), tally(0, 0, 0));
    }

    #[test]
    fn results_of_a_report_are_counted() {
        let report = "KTAP version 1\n1..4\nok 1 a\n# why\nnot ok 2 b\nok 3 c # SKIP no reason\n[    1.0] ok\nok 4 d\n";
        assert_eq!(Tally::of_ktap(report), tally(2, 1, 1));
    }

    #[test]
    fn results_that_never_came_have_failed() {
        assert_eq!(Tally::of_ktap("1..4\nok 1 a\n"), tally(1, 3, 0));
        assert_eq!(Tally::of_ktap(""), tally(0, 0, 0));
        assert!(!Tally::of_ktap("").is_good());
    }

    #[test]
    fn a_bad_end_counts_once() {
        assert_eq!(tally(3, 0, 0).with_end(false), tally(3, 1, 0));
        assert_eq!(tally(3, 2, 0).with_end(false), tally(3, 2, 0));
        assert_eq!(tally(3, 0, 0).with_end(true), tally(3, 0, 0));
    }

    #[test]
    fn the_last_line_is_as_promised() {
        assert_eq!(tally(3, 0, 0).to_string(), "3 passed, 0 failed");
        assert_eq!(tally(3, 1, 2).to_string(), "3 passed, 1 failed, 2 skipped");
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs a list of tests one after the other, as often and in the order that is asked for, and reports.

use std::io::{self, Write};
use std::time::Instant;

use crate::ktap::{Report, Verdict};

/// How often and in which order tests are run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many times the list is run.
    pub repeat: u32,
    /// The number that the order follows from, another one in each round; `None` for the order of the list.
    pub shuffle: Option<u64>,
    /// Whether the tests after one that fails are skipped.
    pub fail_fast: bool,
}

/// Rounds of tests, and their report.
#[derive(Debug)]
pub struct Rounds<W: Write> {
    plan: Plan,
    report: Report<W>,
    /// The rounds that have begun.
    begun: u32,
    has_failed: bool,
}

impl<W: Write> Rounds<W> {
    /// Begins the report on `tests` tests in each round. `complaints` are those of the kernel from before.
    ///
    /// # Errors
    ///
    /// As all functions here, fails if the report cannot be written.
    pub fn begin(out: W, plan: Plan, tests: usize, complaints: &[String]) -> io::Result<Self> {
        let mut report = Report::begin(out, tests * plan.repeat as usize)?;
        for complaint in complaints {
            report.diagnose(&format!("before the tests the kernel complained: {complaint}"))?;
        }
        Ok(Self { plan, report, begun: 0, has_failed: false })
    }

    /// Begins the next round and returns its number, from 0; `None` after the last.
    pub fn next_round(&mut self) -> Option<u64> {
        let round = self.begun;
        self.begun += u32::from(round < self.plan.repeat);
        (round < self.plan.repeat).then_some(u64::from(round))
    }

    /// Returns the report.
    pub fn report(&mut self) -> &mut Report<W> {
        &mut self.report
    }

    /// Runs the tests of the round that has begun. `run` returns what a test printed beside the verdict.
    pub fn run<T: Copy>(
        &mut self,
        tests: &[T],
        name: impl for<'a> Fn(&'a T) -> &'a str,
        mut run: impl FnMut(&T) -> (Verdict, String),
    ) -> io::Result<()> {
        let mut order = tests.to_vec();
        if let Some(shuffle) = self.plan.shuffle {
            let round = u64::from(self.begun.saturating_sub(1));
            fastrand::Rng::with_seed(shuffle.wrapping_add(round)).shuffle(&mut order);
        }
        for test in &order {
            let name = name(test);
            if self.has_failed && self.plan.fail_fast {
                self.report.result(name, &Verdict::Skip("not run after a test that failed".to_owned()), 0)?;
                continue;
            }
            self.report.start(name)?;
            let started = Instant::now();
            let (verdict, output) = run(test);
            self.report.diagnose(&output)?;
            let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.report.result(name, &verdict, milliseconds)?;
            self.has_failed |= matches!(verdict, Verdict::Fail(_));
        }
        Ok(())
    }

    /// Ends the report before its tests: none of them can be run, for this reason.
    pub fn bail_out(self, reason: &str) -> io::Result<()> {
        self.report.bail_out(reason)
    }

    /// Ends the report, and returns the exit status that says how the tests ended.
    pub fn end(self) -> io::Result<u8> {
        Ok(self.report.end()?.exit_status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_rounds_as_are_asked_for() {
        let plan = Plan { repeat: 2, shuffle: None, fail_fast: true };
        let mut rounds = Rounds::begin(Vec::new(), plan, 2, &[]).unwrap();
        let mut run = Vec::new();
        while let Some(round) = rounds.next_round() {
            let verdict = if round == 0 { Verdict::Pass } else { Verdict::Skip("none".to_owned()) };
            rounds
                .run(
                    &["a.one", "a.two"],
                    |name| name,
                    |name| {
                        run.push((round, (*name).to_owned()));
                        (verdict.clone(), String::new())
                    },
                )
                .unwrap();
        }
        assert_eq!(run.len(), 4);
        assert_eq!(run[3], (1, "a.two".to_owned()));
        assert_eq!(rounds.next_round(), None);
        assert_eq!(rounds.end().unwrap(), 0);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Results for people: a line per test, failures with their reasons and how to run them again, then a summary.

use std::io::{self, Write};
use std::time::Duration;

use super::{Reporter, Summary, in_words};
use crate::cli::guest::Mode;
use crate::cli::test::result::{TestResult, Verdict};

/// A test that takes as long is worth naming in the summary.
const SLOW: Duration = Duration::from_secs(1);

/// The reporter.
pub struct Human {
    out: Box<dyn Write + Send>,
}

impl Human {
    /// Returns one that writes to `out`.
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out }
    }
}

impl Reporter for Human {
    fn begin(&mut self, _: Mode, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn other(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "      | {text}")
    }

    fn result(&mut self, result: &TestResult) -> io::Result<()> {
        let name = &result.name;
        match &result.verdict {
            Verdict::Passed => match result.duration {
                Some(duration) => writeln!(self.out, "pass  {name} ({})", in_words(duration))?,
                None => writeln!(self.out, "pass  {name}")?,
            },
            Verdict::Skipped(reason) => writeln!(self.out, "skip  {name}: {reason}")?,
            Verdict::Failed(cause) => {
                writeln!(self.out, "FAIL  {name}: {}", cause.text())?;
                result.details.iter().try_for_each(|text| writeln!(self.out, "      {text}"))?;
                if let Some(rerun) = &result.rerun {
                    writeln!(self.out, "      run it again: {rerun}")?;
                }
            }
        }
        self.out.flush()
    }

    fn end(&mut self, summary: &Summary<'_>) -> io::Result<()> {
        let slow: Vec<String> = summary
            .slowest
            .iter()
            .filter(|(_, duration)| *duration >= SLOW)
            .map(|(name, duration)| format!("{name} {}", in_words(*duration)))
            .collect();
        if !slow.is_empty() {
            writeln!(self.out, "slowest: {}", slow.join(", "))?;
        }
        let not_run = match summary.not_run.len() {
            0 => String::new(),
            count => format!(", {count} not run"),
        };
        writeln!(
            self.out,
            "{}: {} passed, {} failed, {} skipped{not_run} in {:.1} s",
            summary.mode.name(),
            summary.counts.passed,
            summary.counts.failed,
            summary.counts.skipped,
            summary.duration.as_secs_f32()
        )
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::test::reporter::{Format, testing};

    #[test]
    fn people_see_why_a_test_failed_and_how_to_run_it_again() {
        let expected = "pass  a.one (12 ms)\n\
                        skip  a.two: no <huge> pages\n      \
                              | [ 2.0] x\n\
                        FAIL  b.three: a check failed\n      \
                              b.three: left & right\u{1} differ\n      \
                              run it again: ersatz test --mode private --exact b.three\n\
                        FAIL  b.four: the guest kernel panicked\n      \
                              Kernel panic - not syncing: why\n\
                        slowest: b.three 1.5 s\n\
                        private: 1 passed, 2 failed, 1 skipped, 1 not run in 2.5 s\n";
        assert_eq!(testing::shown(Format::Human, 1), expected);
    }
}

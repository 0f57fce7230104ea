// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The report: KTAP version 1, the kernel's test format.

use std::io::{self, Write};

use ersatz_guest_image::test_mark::{End, Mark};

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It held.
    Pass,
    /// It did not.
    Fail(Failure),
    /// It did not run, for this reason.
    Skip(String),
}

/// Why a test did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of end it was.
    pub end: End,
    /// The reason, in one or more lines.
    pub reason: String,
}

impl Failure {
    /// Returns the failure of a check.
    pub fn of_check(reason: impl Into<String>) -> Self {
        Self { end: End::Failed, reason: reason.into() }
    }
}

impl Verdict {
    /// Returns the kind of end.
    pub fn end(&self) -> End {
        match self {
            Self::Pass => End::Passed,
            Self::Skip(_) => End::Skipped,
            Self::Fail(failure) => failure.end,
        }
    }
}

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Passed.
    pub pass: usize,
    /// Failed.
    pub fail: usize,
    /// Skipped.
    pub skip: usize,
}

impl Totals {
    /// The exit status that says so, as the kernel's selftests have it: 0 pass, 1 fail, 4 skip.
    pub fn exit_status(self) -> u8 {
        match self {
            Self { fail: 1.., .. } => 1,
            Self { pass: 0, .. } => 4,
            _ => 0,
        }
    }
}

/// Writes a report as the tests end. Each line is written at once, so that a crash of the machine loses none.
#[derive(Debug)]
pub struct Report<W: Write> {
    out: W,
    number: usize,
    totals: Totals,
}

impl<W: Write> Report<W> {
    /// Begins a report on so many tests.
    ///
    /// # Errors
    ///
    /// As all functions here, if it cannot be written.
    pub fn begin(mut out: W, tests: usize) -> io::Result<Self> {
        write!(out, "KTAP version 1\n1..{tests}\n")?;
        out.flush()?;
        Ok(Self { out, number: 0, totals: Totals::default() })
    }

    /// One or more lines that a parser passes over.
    pub fn diagnose(&mut self, text: &str) -> io::Result<()> {
        for line in text.lines() {
            writeln!(self.out, "# {line}")?;
        }
        self.out.flush()
    }

    /// The start of a test.
    pub fn start(&mut self, name: &str) -> io::Result<()> {
        self.diagnose(&Mark::Started { name }.to_string())
    }

    /// The end of the next test, after so many milliseconds.
    pub fn result(&mut self, name: &str, verdict: &Verdict, milliseconds: u64) -> io::Result<()> {
        self.number += 1;
        if let Verdict::Fail(failure) = verdict {
            self.diagnose(&format!("{name}: {}", failure.reason))?;
        }
        self.diagnose(&Mark::Ended { name, end: verdict.end(), milliseconds }.to_string())?;
        let number = self.number;
        match verdict {
            Verdict::Pass => {
                self.totals.pass += 1;
                writeln!(self.out, "ok {number} {name}")?;
            }
            Verdict::Skip(reason) => {
                self.totals.skip += 1;
                writeln!(self.out, "ok {number} {name} # SKIP {}", one_line(reason))?;
            }
            Verdict::Fail(_) => {
                self.totals.fail += 1;
                writeln!(self.out, "not ok {number} {name}")?;
            }
        }
        self.out.flush()
    }

    /// Ends the report before its tests: none of them can be run, for this reason.
    pub fn bail_out(mut self, reason: &str) -> io::Result<()> {
        writeln!(self.out, "Bail out! {}", one_line(reason))?;
        self.out.flush()
    }

    /// Ends the report.
    pub fn end(mut self) -> io::Result<Totals> {
        let Totals { pass, fail, skip } = self.totals;
        self.diagnose(&format!("Totals: pass:{pass} fail:{fail} skip:{skip}"))?;
        Ok(self.totals)
    }
}

/// A reason must not spill onto a line of its own.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_ktap() {
        let mut out = Vec::new();
        let mut report = Report::begin(&mut out, 3).unwrap();
        report.start("a.one").unwrap();
        report.result("a.one", &Verdict::Pass, 7).unwrap();
        report.result("a.two", &Verdict::Skip("not\nhere".into()), 0).unwrap();
        report.result("a.three", &Verdict::Fail(Failure::of_check("first\nsecond")), 12).unwrap();
        assert_eq!(report.end().unwrap(), Totals { pass: 1, fail: 1, skip: 1 });
        let expected = "KTAP version 1\n1..3\n# started a.one\n# ended a.one after 7 ms: passed\nok 1 a.one\n\
            # ended a.two after 0 ms: skipped\nok 2 a.two # SKIP not here\n\
            # a.three: first\n# second\n# ended a.three after 12 ms: failed\nnot ok 3 a.three\n\
            # Totals: pass:1 fail:1 skip:1\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn the_exit_status_follows_the_worst() {
        assert_eq!(Totals { pass: 1, fail: 0, skip: 1 }.exit_status(), 0);
        assert_eq!(Totals { pass: 9, fail: 1, skip: 0 }.exit_status(), 1);
        assert_eq!(Totals { pass: 0, fail: 0, skip: 5 }.exit_status(), 4);
        assert_eq!(Totals::default().exit_status(), 4);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The forms in which results are shown. Each is a [`Reporter`]; [`Format`] names them.

mod human;
mod json;
mod junit;
mod ktap;

use std::io::{self, Write};
use std::time::Duration;

use clap::ValueEnum;

use super::result::{Counts, TestResult};
use crate::cli::guest::Mode;

/// How results are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line per test, and a summary.
    Human,
    /// KTAP version 1; with several memory types one subtest for each.
    Ktap,
    /// JUnit XML, as continuous integration servers read it, at the end.
    Junit,
    /// JSON Lines: an object per result as it comes, and one per memory type at its end.
    Json,
}

/// What a reporter learns at the end of a memory type.
#[derive(Clone, Debug)]
pub struct Summary<'a> {
    /// The memory type.
    pub mode: Mode,
    /// Numbers of results.
    pub counts: Counts,
    /// How long it took, with the starts of guests.
    pub duration: Duration,
    /// The exit status that this memory type alone would have.
    pub status: u8,
    /// How the guest ended, in words, unless it ended with an exit status of the tests.
    pub ending: Option<&'a str>,
    /// Names of planned tests without a result.
    pub not_run: &'a [String],
    /// The slowest tests, the slowest first.
    pub slowest: &'a [(String, Duration)],
}

/// Shows results while they come.
///
/// All functions fail if the report cannot be written.
pub trait Reporter: Send {
    /// The tests begin with a memory type.
    fn begin(&mut self, mode: Mode, planned: usize) -> io::Result<()>;
    /// The console has a line that is not part of the tests' report.
    fn other(&mut self, text: &str) -> io::Result<()>;
    /// A test has ended.
    fn result(&mut self, result: &TestResult) -> io::Result<()>;
    /// The tests with a memory type are over.
    fn end(&mut self, summary: &Summary<'_>) -> io::Result<()>;
    /// All is over.
    fn finish(&mut self) -> io::Result<()>;
}

/// Shows results in two forms.
pub struct Both(pub Box<dyn Reporter>, pub Box<dyn Reporter>);

impl Reporter for Both {
    fn begin(&mut self, mode: Mode, planned: usize) -> io::Result<()> {
        self.0.begin(mode, planned)?;
        self.1.begin(mode, planned)
    }

    fn other(&mut self, text: &str) -> io::Result<()> {
        self.0.other(text)?;
        self.1.other(text)
    }

    fn result(&mut self, result: &TestResult) -> io::Result<()> {
        self.0.result(result)?;
        self.1.result(result)
    }

    fn end(&mut self, summary: &Summary<'_>) -> io::Result<()> {
        self.0.end(summary)?;
        self.1.end(summary)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.0.finish()?;
        self.1.finish()
    }
}

impl Format {
    /// Returns a reporter that writes to `out` in this form, about so many memory types. `kernel` says which kernel it is where the user's
    /// command does not.
    pub fn reporter(self, out: Box<dyn Write + Send>, modes: usize, kernel: Option<String>) -> Box<dyn Reporter> {
        match self {
            Self::Human => Box::new(human::Human::new(out)),
            Self::Ktap => Box::new(ktap::Ktap::new(out, modes)),
            Self::Junit => Box::new(junit::Junit::new(out, kernel)),
            Self::Json => Box::new(json::Json::new(out, kernel)),
        }
    }
}

/// Returns a duration as people read it.
pub fn in_words(duration: Duration) -> String {
    match duration.as_millis() {
        milliseconds @ 0..1000 => format!("{milliseconds} ms"),
        1000..100_000 => format!("{:.1} s", duration.as_secs_f32()),
        _ => format!("{} min {} s", duration.as_secs() / 60, duration.as_secs() % 60),
    }
}

#[cfg(test)]
mod testing {
    //! Results that the tests of all reporters show.

    use super::*;
    use crate::cli::test::result::{Cause, Verdict};
    use crate::console::recorder::Recorder;

    fn result(name: &str, verdict: Verdict, milliseconds: u64) -> TestResult {
        TestResult {
            name: name.to_owned(),
            mode: Mode::Private,
            verdict,
            duration: Some(Duration::from_millis(milliseconds)),
            details: Vec::new(),
            console: Vec::new(),
            rerun: None,
        }
    }

    /// Returns what a reporter shows of a pass, a skip, a failed check and a guest that panics before the last test.
    pub fn shown(format: Format, modes: usize) -> String {
        let out = Recorder::default();
        let mut reporter = format.reporter(Box::new(out.clone()), modes, None);
        reporter.begin(Mode::Private, 5).unwrap();
        reporter.result(&result("a.one", Verdict::Passed, 12)).unwrap();
        reporter.result(&result("a.two", Verdict::Skipped("no <huge> pages".to_owned()), 0)).unwrap();
        reporter.other("[ 2.0] x").unwrap();
        reporter
            .result(&TestResult {
                details: vec!["b.three: left & right\u{1} differ".to_owned()],
                console: vec!["[ 2.0] x".to_owned()],
                rerun: Some("ersatz test --mode private --exact b.three".to_owned()),
                ..result("b.three", Verdict::Failed(Cause::Check), 1500)
            })
            .unwrap();
        let panic = "Kernel panic - not syncing: why".to_owned();
        reporter
            .result(&TestResult {
                details: vec![panic],
                duration: None,
                ..result("b.four", Verdict::Failed(Cause::GuestPanicked), 0)
            })
            .unwrap();
        reporter
            .end(&Summary {
                mode: Mode::Private,
                counts: Counts { planned: 5, passed: 1, failed: 2, skipped: 1 },
                duration: Duration::from_millis(2500),
                status: 121,
                ending: Some("the guest kernel panicked"),
                not_run: &["b.five".to_owned()],
                slowest: &[("b.three".to_owned(), Duration::from_millis(1500))],
            })
            .unwrap();
        reporter.finish().unwrap();
        out.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_unit_that_suits_them() {
        let words = [7, 1500, 125_000].map(|milliseconds| in_words(Duration::from_millis(milliseconds)));
        assert_eq!(words, ["7 ms", "1.5 s", "2 min 5 s"]);
    }
}

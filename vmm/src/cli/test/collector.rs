// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes results out of the console of one guest, on which the report of the tests is mixed with messages of the kernel.

use std::time::Duration;

use ersatz_guest_image::test_mark::{End, Mark};

use super::ktap::{Line, Outcome as Ktap};
use super::result::{Cause, TestResult, Verdict};
use crate::cli::guest::Mode;
use crate::cli::report;
use crate::console::log::ConsoleLog;
use crate::outcome::Outcome;

/// Most lines of each kind that are kept for one test: the last ones.
const LINES: usize = 400;
/// Lines of the console to show with a test that has no result.
const LAST_LINES: usize = 30;

/// What a line of the console means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A test begins.
    Started(String),
    /// A test has ended.
    Ended(TestResult),
    /// A line that is not part of the report.
    Other(String),
}

/// Reads one console.
#[derive(Debug)]
pub struct Collector {
    mode: Mode,
    /// Whether the report has begun: what comes before it are messages of the boot.
    has_begun: bool,
    seed: Option<String>,
    /// Why the tests could not be run.
    bail_out: Option<String>,
    running: Option<String>,
    ended: Option<(End, Duration)>,
    details: Vec<String>,
    console: Vec<String>,
}

impl Collector {
    /// Returns a collector for the console of a guest with this memory type.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            has_begun: false,
            seed: None,
            bail_out: None,
            running: None,
            ended: None,
            details: Vec::new(),
            console: Vec::new(),
        }
    }

    /// Returns the seed of random contents, as the tests have named it.
    pub fn seed(&self) -> Option<&str> {
        self.seed.as_deref()
    }

    /// Returns why the tests could not be run, if they have said so.
    pub fn bail_out(&self) -> Option<&str> {
        self.bail_out.as_deref()
    }

    /// Takes a line, without its end.
    pub fn take(&mut self, text: &str) -> Option<Step> {
        match Line::parse(text) {
            Line::Version => self.has_begun = true,
            Line::Plan(_) => {}
            Line::BailOut(reason) => self.bail_out = Some(reason.to_owned()),
            Line::Diagnostic(comment) => return self.take_comment(comment),
            Line::Result { name, outcome } => return Some(Step::Ended(self.result(name, outcome))),
            Line::Other("") => {}
            Line::Other(text) if self.has_begun => {
                keep(&mut self.console, text);
                return Some(Step::Other(text.to_owned()));
            }
            Line::Other(_) => {}
        }
        None
    }

    fn take_comment(&mut self, comment: &str) -> Option<Step> {
        match Mark::parse(comment) {
            Some(Mark::Started { name }) if self.running.is_none() => {
                self.clear();
                self.running = Some(name.to_owned());
                Some(Step::Started(name.to_owned()))
            }
            Some(Mark::Ended { name, end, milliseconds })
                if self.running.as_deref().is_none_or(|test| test == name) =>
            {
                self.ended = Some((end, Duration::from_millis(milliseconds)));
                None
            }
            Some(Mark::UnderWay) => None,
            // A test may print what looks like a mark.
            _ => {
                match comment.strip_prefix("seed ") {
                    Some(seed) if self.running.is_none() => self.seed = Some(seed.to_owned()),
                    _ => keep(&mut self.details, comment),
                }
                None
            }
        }
    }

    fn clear(&mut self) {
        self.details.clear();
        self.console.clear();
        self.ended = None;
    }

    fn result(&mut self, name: &str, outcome: Ktap<'_>) -> TestResult {
        self.running = None;
        let ended = self.ended.take();
        let verdict = match outcome {
            Ktap::Passed => Verdict::Passed,
            Ktap::Skipped(reason) => Verdict::Skipped(reason.to_owned()),
            Ktap::Failed => Verdict::Failed(ended.and_then(|(end, _)| Cause::of_end(end)).unwrap_or(Cause::Check)),
        };
        self.with_verdict(name, verdict, ended.map(|(_, duration)| duration))
    }

    /// Returns the result of a test with what was collected of it.
    pub fn with_verdict(&mut self, name: &str, verdict: Verdict, duration: Option<Duration>) -> TestResult {
        TestResult {
            name: name.to_owned(),
            mode: self.mode,
            verdict,
            duration,
            details: std::mem::take(&mut self.details),
            console: std::mem::take(&mut self.console),
            rerun: None,
        }
    }

    /// Returns the result of the test that was under way when its guest ended, if there was one; the last lines of the console are
    /// among its details.
    pub fn unfinished(&mut self, outcome: &Outcome, log: &ConsoleLog) -> Option<TestResult> {
        let name = self.running.take()?;
        Some(self.without_result(&name, outcome, log))
    }

    /// Returns the result of a test that its guest has not reported.
    pub fn without_result(&mut self, name: &str, outcome: &Outcome, log: &ConsoleLog) -> TestResult {
        self.details.push(describe(outcome, log));
        self.details.push("the last lines of the console:".to_owned());
        self.details.extend(log.last(LAST_LINES));
        self.with_verdict(name, Verdict::Failed(cause(outcome)), None)
    }
}

fn keep(lines: &mut Vec<String>, line: &str) {
    if lines.len() == LINES {
        lines.remove(0);
    }
    lines.push(line.to_owned());
}

/// Returns what a guest's end means for the test that it ended.
pub fn cause(outcome: &Outcome) -> Cause {
    match outcome {
        Outcome::Panicked => Cause::GuestPanicked,
        Outcome::TimedOut(_) => Cause::GuestTimedOut,
        Outcome::Silent(_) => Cause::GuestHung,
        Outcome::Splat(_) => Cause::KernelComplaint,
        Outcome::Exited(_) | Outcome::Stopped | Outcome::Interrupted => Cause::GuestEnded,
    }
}

/// Returns how a guest ended, in words.
pub fn describe(outcome: &Outcome, log: &ConsoleLog) -> String {
    report::text(outcome, log).unwrap_or_else(|| format!("the guest ended with exit status {}", outcome.status()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(collector: &mut Collector, text: &str) -> Vec<Step> {
        text.lines().filter_map(|line| collector.take(line)).collect()
    }

    #[test]
    fn a_failure_has_its_cause_its_reason_and_its_messages() {
        let mut collector = Collector::new(Mode::Private);
        let steps = steps(
            &mut collector,
            "[ 0.1] boot\nKTAP version 1\n1..1\n# seed 0x1\n# started a.b\n[ 2.0] x\n# a.b: why\n\
             # ended a.b after 1500 ms: timed-out\nnot ok 1 a.b\n",
        );
        assert_eq!(collector.seed(), Some("0x1"));
        assert_eq!(steps[..2], [Step::Started("a.b".to_owned()), Step::Other("[ 2.0] x".to_owned())]);
        let Step::Ended(result) = &steps[2] else { panic!("{steps:?}") };
        assert_eq!(result.verdict, Verdict::Failed(Cause::TimedOut));
        assert_eq!(result.duration, Some(Duration::from_millis(1500)));
        assert_eq!(
            (&result.details[..], &result.console[..]),
            (&["a.b: why".to_owned()][..], &["[ 2.0] x".to_owned()][..])
        );
    }

    #[test]
    fn tests_that_cannot_be_run_have_said_why() {
        let mut collector = Collector::new(Mode::Private);
        assert_eq!(steps(&mut collector, "KTAP version 1\n1..2\nBail out! no device\n"), []);
        assert_eq!(collector.bail_out(), Some("no device"));
    }

    #[test]
    fn a_test_cannot_end_itself_by_what_it_prints() {
        let mut collector = Collector::new(Mode::Private);
        let text = "KTAP version 1\n# started a.b\n# started c.d\n# ended c.d after 1 ms: passed\nok 1 a.b\n";
        let steps = steps(&mut collector, text);
        let Step::Ended(result) = &steps[1] else { panic!("{steps:?}") };
        assert_eq!((result.details.len(), result.duration), (2, None));
    }

    #[test]
    fn a_test_whose_guest_dies_shows_the_last_lines() {
        let log = ConsoleLog::new();
        log.push(b"[ 2.0] Kernel panic - not syncing: why\n");
        let mut collector = Collector::new(Mode::Coherent);
        assert_eq!(collector.unfinished(&Outcome::Panicked, &log), None);
        steps(&mut collector, "KTAP version 1\n# started a.b\n");
        let result = collector.unfinished(&Outcome::Panicked, &log).unwrap();
        assert_eq!(result.cause(), Some(Cause::GuestPanicked));
        assert!(result.details.last().unwrap().contains("not syncing: why"), "{result:?}");
    }
}

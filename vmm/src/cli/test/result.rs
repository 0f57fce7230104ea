// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The result of one test, whatever it is shown as.

use std::time::Duration;

use ersatz_guest_image::test_mark::End;

use crate::cli::guest::Mode;

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed.
    Passed,
    /// It was not run, for this reason.
    Skipped(String),
    /// It did not pass.
    Failed(Cause),
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// One of its checks failed, or the device was not well afterwards.
    Check,
    /// It was not done at its time limit.
    TimedOut,
    /// A signal ended it.
    Killed,
    /// The guest's kernel reported a WARN, a BUG or an Oops.
    KernelComplaint,
    /// The guest's kernel panicked while it ran.
    GuestPanicked,
    /// The guest was not done at the guest's time limit.
    GuestTimedOut,
    /// The guest fell silent.
    GuestHung,
    /// The guest ended, or could not be run.
    GuestEnded,
}

impl Cause {
    /// Returns the name in reports for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "failed",
            Self::TimedOut => "timed-out",
            Self::Killed => "killed",
            Self::KernelComplaint => "kernel-complaint",
            Self::GuestPanicked => "guest-panicked",
            Self::GuestTimedOut => "guest-timed-out",
            Self::GuestHung => "guest-hung",
            Self::GuestEnded => "guest-ended",
        }
    }

    /// Returns what people read.
    pub fn text(self) -> &'static str {
        match self {
            Self::Check => "a check failed",
            Self::TimedOut => "not done at its time limit",
            Self::Killed => "killed by a signal",
            Self::KernelComplaint => "the guest kernel complained",
            Self::GuestPanicked => "the guest kernel panicked",
            Self::GuestTimedOut => "the guest was not done at its time limit",
            Self::GuestHung => "the guest fell silent",
            Self::GuestEnded => "the guest ended",
        }
    }

    /// Whether the test itself found something, as opposed to having been ended by something else.
    pub fn is_finding(self) -> bool {
        self == Self::Check
    }

    /// Returns the cause for an end that a guest reports, if that is a failure.
    pub fn of_end(end: End) -> Option<Self> {
        match end {
            End::Passed | End::Skipped => None,
            End::Failed => Some(Self::Check),
            End::TimedOut => Some(Self::TimedOut),
            End::Killed => Some(Self::Killed),
            End::KernelComplaint => Some(Self::KernelComplaint),
        }
    }
}

/// One result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestResult {
    /// The test's name, `topic.what_holds`.
    pub name: String,
    /// The memory type that it ran with.
    pub mode: Mode,
    /// How it ended.
    pub verdict: Verdict,
    /// How long it ran, as far as its guest has said.
    pub duration: Option<Duration>,
    /// What it printed, and why it failed.
    pub details: Vec<String>,
    /// What else its guest's console had while it ran: messages of the kernel.
    pub console: Vec<String>,
    /// How to run it again, if it failed.
    pub rerun: Option<String>,
}

impl TestResult {
    /// Returns the cause, if the test failed.
    pub fn cause(&self) -> Option<Cause> {
        match self.verdict {
            Verdict::Failed(cause) => Some(cause),
            Verdict::Passed | Verdict::Skipped(_) => None,
        }
    }

    /// Returns the topic, and what holds.
    pub fn parts(&self) -> (&str, &str) {
        self.name.split_once('.').unwrap_or(("tests", &self.name))
    }
}

/// Numbers of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Results to expect.
    pub planned: usize,
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests that were skipped.
    pub skipped: usize,
}

impl Counts {
    /// Takes a result into account.
    pub fn add(&mut self, verdict: &Verdict) {
        *match verdict {
            Verdict::Passed => &mut self.passed,
            Verdict::Skipped(_) => &mut self.skipped,
            Verdict::Failed(_) => &mut self.failed,
        } += 1;
    }

    /// Returns the number of results.
    pub fn results(&self) -> usize {
        self.passed + self.failed + self.skipped
    }

    /// Returns the number of planned tests without a result.
    pub fn missing(&self) -> usize {
        self.planned.saturating_sub(self.results())
    }
}

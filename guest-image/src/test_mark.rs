// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The marks of the guest-side tests: comments in their KTAP report that say which test is under way, and how it ended after how
//! long. The guest prints them, the host reads them.
//!
//! ```text
//! # started fork.child_first
//! # under way
//! # ended fork.child_first after 12 ms: passed
//! ```

use std::fmt;

/// How a test ended, as its runner in the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It passed.
    Passed,
    /// It was not run.
    Skipped,
    /// One of its checks failed, or the device was not well afterwards.
    Failed,
    /// It was not done at its time limit.
    TimedOut,
    /// A signal ended it.
    Killed,
    /// The kernel reported a WARN, a BUG or an Oops while it ran.
    KernelComplaint,
}

impl End {
    const ALL: [Self; 6] =
        [Self::Passed, Self::Skipped, Self::Failed, Self::TimedOut, Self::Killed, Self::KernelComplaint];

    /// Returns the name, as marks and reports spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::Killed => "killed",
            Self::KernelComplaint => "kernel-complaint",
        }
    }
}

/// [`Mark::UnderWay`], printed.
const UNDER_WAY: &str = "under way";

/// A mark, without the `# ` of a comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark<'a> {
    /// A test begins.
    Started {
        /// Its name.
        name: &'a str,
    },
    /// The test that has begun has not ended: what is printed now and then, so that a silent guest is one that hangs.
    UnderWay,
    /// A test has ended; its result follows.
    Ended {
        /// Its name.
        name: &'a str,
        /// How it ended.
        end: End,
        /// How long it ran, with the checks after it.
        milliseconds: u64,
    },
}

impl<'a> Mark<'a> {
    /// Reads a comment; returns `None` if it is not a mark.
    pub fn parse(comment: &'a str) -> Option<Self> {
        if comment == UNDER_WAY {
            return Some(Self::UnderWay);
        }
        if let Some(name) = comment.strip_prefix("started ") {
            return is_name(name).then_some(Self::Started { name });
        }
        let (name, rest) = comment.strip_prefix("ended ")?.split_once(" after ")?;
        let (milliseconds, end) = rest.split_once(" ms: ")?;
        let end = End::ALL.into_iter().find(|candidate| candidate.name() == end)?;
        is_name(name).then_some(Self::Ended { name, end, milliseconds: milliseconds.parse().ok()? })
    }
}

fn is_name(text: &str) -> bool {
    text.contains('.') && !text.contains(char::is_whitespace)
}

impl fmt::Display for Mark<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnderWay => f.write_str(UNDER_WAY),
            Self::Started { name } => write!(f, "started {name}"),
            Self::Ended { name, end, milliseconds } => {
                write!(f, "ended {name} after {milliseconds} ms: {}", end.name())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read() {
        let started = Mark::Started { name: "fork.child_first" };
        assert_eq!(Mark::parse(&started.to_string()), Some(started));
        assert_eq!(Mark::parse(&Mark::UnderWay.to_string()), Some(Mark::UnderWay));
        for end in End::ALL {
            let ended = Mark::Ended { name: "fork.child_first", end, milliseconds: 12 };
            assert_eq!(Mark::parse(&ended.to_string()), Some(ended));
        }
    }

    #[test]
    fn other_comments_are_not_marks() {
        for text in ["", "started", "started a test", "ended a.b after x ms: passed", "ended a.b after 1 ms: well"] {
            assert_eq!(Mark::parse(text), None, "{text}");
        }
    }
}

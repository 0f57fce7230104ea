// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a runner tells of a scenario: one JSON object a line, each behind [`PREFIX`].
//!
//! An attempt is `begin` (on the GPU), its steps; `begin` (on plain memory), its steps; findings; `end`. An attempt without
//! `end` was broken off: the guest went down.

use serde::{Deserialize, Serialize};

use crate::symptom::Symptom;

/// Stands before each entry in a line of output.
pub const PREFIX: &str = "ersatz-scenario: ";

/// What the steps' memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ground {
    /// Memory that migrates to the GPU and back as the steps say.
    Gpu,
    /// Plain memory: the steps about the device do nothing but keep the order of the others.
    Plain,
}

/// How a held task went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Release {
    /// By `resume`.
    Resumed,
    /// Because the longest time of a hold was over.
    Deadline,
}

/// What some neighbouring pages hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PageContent {
    /// This byte everywhere; for a bit per page (`pagemap`), 0 or 1.
    Byte(u8),
    /// Bytes with this CRC-32C.
    Digest(u32),
}

/// Neighbouring pages that hold the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// How many.
    pub pages: u32,
    /// What each holds.
    pub content: PageContent,
}

/// What a step read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The CRC-32C of the contents of all pages, in order: two readings with equal digests are equal.
    pub digest: u32,
    /// What the first pages hold.
    pub runs: Vec<Run>,
    /// Pages behind those, which only `digest` tells of.
    pub more: u32,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "how", content = "value")]
pub enum StepOutcome {
    /// It did what it is for.
    Done {
        /// What is worth knowing of it and is not compared: `moved 512, left 0`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// The system refused it with this error number.
    Errno(i32),
    /// It got this signal. The process goes on with the next step: a signal ends a step only.
    Signal(i32),
    /// It read this.
    Content(Content),
    /// It is not for this ground.
    Skipped,
    /// The runner could not do it, or what it expects does not hold; why. A finding says so as well.
    Failed(String),
    /// It began, and its process was over before it ended; or it ended with a hang.
    Unfinished,
}

/// One entry of a report. Times are nanoseconds of the guest's monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "entry")]
pub enum Entry {
    /// The steps begin.
    Begin {
        /// The scenario's name.
        scenario: String,
        /// On what.
        run: Ground,
        /// From 0.
        attempt: u32,
    },
    /// A step is over.
    Step {
        /// Its thread: `setup`, a thread's name, or `finally`.
        thread: String,
        /// Its number in the thread, from 0.
        step: u16,
        /// Its line in the scenario.
        line: u32,
        /// Its text.
        text: String,
        /// When it began.
        began_ns: u64,
        /// When it ended; 0 if it did not.
        ended_ns: u64,
        /// How it ended.
        outcome: StepOutcome,
    },
    /// A step was held in the kernel.
    Held {
        /// Its thread.
        thread: String,
        /// The step that was held.
        step: u16,
        /// The kernel's function, or the device's step.
        function: String,
        /// When it stopped there.
        at_ns: u64,
        /// When it went on.
        released_ns: u64,
        /// How.
        how: Release,
    },
    /// Something is wrong.
    Finding {
        /// What kind.
        symptom: Symptom,
        /// The thread it is about, if it is about one.
        thread: Option<String>,
        /// The scenario's line, if it is about one.
        line: Option<u32>,
        /// In words; several lines for stacks.
        text: String,
    },
    /// The scenario cannot be tried here, and nothing was: no device, say.
    Unavailable {
        /// The scenario's name.
        scenario: String,
        /// Why.
        reason: String,
    },
    /// The attempt is over.
    End {
        /// The scenario's name.
        scenario: String,
        /// From 0.
        attempt: u32,
    },
}

impl Entry {
    /// The line to print, without its end.
    ///
    /// # Panics
    ///
    /// Never: all parts of an entry can be JSON.
    pub fn to_line(&self) -> String {
        let json = serde_json::to_string(self).expect("entries have no maps and no foreign types");
        format!("{PREFIX}{json}")
    }

    /// Reads a line of output. `None` if it is something else's.
    ///
    /// # Errors
    ///
    /// If the line begins as an entry and is none: another writer's text may have got into it.
    pub fn from_line(line: &str) -> Option<Result<Self, serde_json::Error>> {
        let (_, json) = line.split_once(PREFIX)?;
        Some(serde_json::from_str(json.trim_end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(outcome: StepOutcome) -> Entry {
        Entry::Step { thread: "t1".into(), step: 3, line: 12, text: "read r".into(), began_ns: 5, ended_ns: 9, outcome }
    }

    #[test]
    fn entries_are_read_as_they_are_written() {
        let runs = vec![Run { pages: 512, content: PageContent::Byte(7) }];
        let entries = [
            Entry::Begin { scenario: "a14".into(), run: Ground::Gpu, attempt: 0 },
            step(StepOutcome::Done { detail: None }),
            step(StepOutcome::Done { detail: Some("moved 512, left 0".into()) }),
            step(StepOutcome::Errno(16)),
            step(StepOutcome::Signal(7)),
            step(StepOutcome::Content(Content { digest: 1, runs, more: 0 })),
            step(StepOutcome::Skipped),
            step(StepOutcome::Failed("nothing of that name is mapped".into())),
            step(StepOutcome::Unfinished),
            Entry::Finding { symptom: Symptom::KernelBug, thread: None, line: Some(1), text: "a\nb".into() },
            Entry::Unavailable { scenario: "a14".into(), reason: "no device".into() },
            Entry::End { scenario: "a14".into(), attempt: 0 },
        ];
        for entry in entries {
            let line = entry.to_line();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(Entry::from_line(&format!("\r{line}\r")).unwrap().unwrap(), entry, "{line}");
        }
    }

    #[test]
    fn other_lines_are_not_entries() {
        assert!(Entry::from_line("[    1.0] BUG: something").is_none());
        assert!(Entry::from_line("ersatz-scenario: {\"entry\":\"st[    1.0] BUG").unwrap().is_err());
    }
}

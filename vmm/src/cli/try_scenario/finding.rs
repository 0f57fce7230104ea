// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One thing that is wrong, whoever found it: the runner in the guest, the kernel, the oracle over the trace.

use ersatz_scenario::Symptom;

/// Most lines of details that are kept.
const DETAILS: usize = 200;

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of which kind.
    pub symptom: Symptom,
    /// The thread of the scenario it is about, if it is about one.
    pub thread: Option<String>,
    /// The line of the scenario it is about, if it is about one.
    pub line: Option<u32>,
    /// In one line.
    pub text: String,
    /// Further lines: a kernel's messages, stacks.
    pub details: Vec<String>,
}

impl Finding {
    /// Returns a finding whose text may have several lines: those after the first are its details.
    pub fn new(symptom: Symptom, thread: Option<String>, line: Option<u32>, text: &str) -> Self {
        let mut lines = text.lines().map(str::to_owned);
        let text = lines.next().unwrap_or_default();
        Self { symptom, thread, line, text, details: lines.take(DETAILS).collect() }
    }
}

/// The symptoms of some findings, each once.
pub fn symptoms<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Vec<Symptom> {
    let mut symptoms: Vec<_> = findings.into_iter().map(|finding| finding.symptom).collect();
    symptoms.sort_unstable();
    symptoms.dedup();
    symptoms
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Prints the entries of the report, and remembers what was found.

use std::collections::BTreeSet;
use std::io::{self, Write};

use ersatz_scenario::Symptom;
use ersatz_scenario::report::Entry;

/// Prints entries to standard output.
#[derive(Debug, Default)]
pub struct Reporter {
    symptoms: BTreeSet<Symptom>,
}

impl Reporter {
    /// Prints an entry at once: the next step may bring the guest down.
    pub fn tell(&mut self, entry: &Entry) {
        if let Entry::Finding { symptom, .. } = entry {
            self.symptoms.insert(*symptom);
        }
        // In one piece, so that a message of the kernel does not get into it more than need be. Nobody could be told of a failure.
        let line = format!("{}\n", entry.to_line());
        let _ = io::stdout().lock().write_all(line.as_bytes()).and_then(|()| io::stdout().lock().flush());
    }

    /// Prints a finding.
    pub fn find(&mut self, symptom: Symptom, thread: Option<&str>, line: Option<u32>, text: String) {
        self.tell(&Entry::Finding { symptom, thread: thread.map(str::to_owned), line, text });
    }

    /// What was found since the last call.
    pub fn take_symptoms(&mut self) -> BTreeSet<Symptom> {
        std::mem::take(&mut self.symptoms)
    }
}

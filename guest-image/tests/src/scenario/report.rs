// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Prints the entries of the report, and remembers what was found.

use std::collections::BTreeSet;
use std::io::{self, Write};

use ersatz_scenario::Symptom;
use ersatz_scenario::report::{Entry, Ground};

/// Prints entries to standard output.
#[derive(Debug, Default)]
pub struct Reporter {
    symptoms: BTreeSet<Symptom>,
    /// Whether steps are printed only of attempts in which something is wrong.
    brief: bool,
    /// Entries of the attempt under way that are not printed yet.
    pending: Vec<Entry>,
    /// Whether something is wrong in the attempt under way.
    found: bool,
}

impl Reporter {
    /// A reporter that prints the steps of an attempt only if something is wrong in it: a console is slow.
    pub fn brief() -> Self {
        Self { brief: true, ..Self::default() }
    }

    /// Prints an entry at once, unless it is one that a brief report may leave out: the next step may bring the guest down.
    pub fn tell(&mut self, entry: &Entry) {
        match entry {
            Entry::Finding { symptom, .. } => {
                self.symptoms.insert(*symptom);
                self.found = true;
                self.flush();
            }
            Entry::Begin { run: Ground::Gpu, .. } => {}
            Entry::Begin { .. } | Entry::Step { .. } | Entry::Held { .. } if self.brief => {
                self.pending.push(entry.clone());
                return;
            }
            Entry::End { .. } => {
                if std::mem::take(&mut self.found) {
                    self.flush();
                }
                self.pending.clear();
            }
            _ => {}
        }
        print(entry);
    }

    fn flush(&mut self) {
        self.pending.drain(..).for_each(|entry| print(&entry));
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

/// In one piece, so that a message of the kernel does not get into it more than need be. Nobody could be told of a failure.
fn print(entry: &Entry) {
    let line = format!("{}\n", entry.to_line());
    let _ = io::stdout().lock().write_all(line.as_bytes()).and_then(|()| io::stdout().lock().flush());
}

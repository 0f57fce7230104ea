// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest's console shows of a scenario: the runner's report, attempt by attempt, and the complaints of the kernel.
//!
//! [`Evidence`] is the console's sink. The guest is not trusted: lines that are no entries are counted and shown as a finding, and
//! what is kept is bounded.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ersatz_scenario::Symptom;
use ersatz_scenario::report::{Entry, Ground, Release, StepOutcome};

use super::finding::Finding;
use super::lines::{Line, Lines};
use super::splat::{Splat, Splats};

/// Most entries that are kept of one guest.
const ENTRIES: usize = 200_000;

/// Collects what a console shows. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Evidence(Arc<Mutex<State>>);

/// What a console has shown.
#[derive(Debug, Default)]
pub struct Collected {
    /// The attempts, in their order.
    pub attempts: Vec<Attempt>,
    /// Why the runner tried nothing, if it says so.
    pub unavailable: Option<String>,
    /// Lines that begin as entries and are not valid.
    pub damaged: u32,
}

/// What is known of one attempt.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    /// Its number, from 0.
    pub number: u32,
    /// Whether the report of it is complete.
    pub ended: bool,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// The steps on the GPU that are over, in the order of the report.
    pub steps: Vec<Step>,
    /// The holds on the GPU.
    pub holds: Vec<Hold>,
}

impl Attempt {
    /// Leaves out how the attempt differs from plain memory, if its steps did not come in the order that is compared: such differences follow
    /// from that.
    pub fn leave_out_incomparable(&mut self) {
        let is_comparison = |symptom| matches!(symptom, Symptom::Content | Symptom::Errno | Symptom::Signal);
        if self.findings.iter().any(|finding| finding.symptom == Symptom::Order) {
            self.findings.retain(|finding| !is_comparison(finding.symptom));
        }
    }
}

/// A step that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its thread.
    pub thread: String,
    /// Its number in the thread.
    pub number: u16,
    /// Its text.
    pub text: String,
    /// When it began, in nanoseconds of the guest's clock.
    pub began_ns: u64,
    /// When it ended; 0 if it did not.
    pub ended_ns: u64,
    /// How it ended.
    pub outcome: StepOutcome,
}

/// A hold that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The thread that was held.
    pub thread: String,
    /// The number of the step that was held.
    pub step: u16,
    /// Where it was held.
    pub function: String,
    /// When it stopped there, in nanoseconds of the guest's clock.
    pub at_ns: u64,
    /// When it went on.
    pub released_ns: u64,
    /// How it went on.
    pub how: Release,
}

#[derive(Debug, Default)]
struct State {
    lines: Lines,
    splats: Splats,
    /// For each splat the index of the attempt that it belongs to.
    owners: Vec<usize>,
    collected: Collected,
    ground: Option<Ground>,
    entries: usize,
}

impl Evidence {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what has been collected, with each splat as a finding of its attempt.
    pub fn take(&self) -> Collected {
        let State { owners, splats, mut collected, .. } = std::mem::take(&mut *self.state());
        for (owner, splat) in owners.iter().zip(splats.found()) {
            collected.add_splat(*owner, splat);
        }
        collected
    }
}

impl Write for Evidence {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        let mut lines = std::mem::take(&mut state.lines);
        lines.push(bytes, &mut |line| state.take(line));
        state.lines = lines;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl State {
    fn take(&mut self, line: Line) {
        match line {
            Line::Other(line) => {
                if self.splats.take(&line) {
                    // What comes after the end of an attempt is the next one's, since a report may be printed at the end.
                    let ended = self.collected.attempts.iter().filter(|attempt| attempt.ended).count();
                    self.owners.push(ended);
                }
            }
            Line::Report(json) => match serde_json::from_str(&json) {
                Ok(entry) if self.entries < ENTRIES => {
                    self.entries += 1;
                    self.add(entry);
                }
                _ => self.collected.damaged = self.collected.damaged.saturating_add(1),
            },
        }
    }

    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Begin { run, attempt: number, .. } => {
                self.ground = Some(run);
                if self.collected.attempts.last().is_none_or(|last| last.number != number || last.ended) {
                    self.collected.attempts.push(Attempt { number, ..Attempt::default() });
                }
            }
            Entry::Step { thread, step: number, text, began_ns, ended_ns, outcome, .. } if self.is_on_gpu() => {
                let step = Step { thread, number, text, began_ns, ended_ns, outcome };
                self.collected.current().steps.push(step);
            }
            Entry::Held { thread, step, function, at_ns, released_ns, how } if self.is_on_gpu() => {
                self.collected.current().holds.push(Hold { thread, step, function, at_ns, released_ns, how });
            }
            Entry::Step { .. } | Entry::Held { .. } => {}
            Entry::Finding { symptom, thread, line, text } => {
                self.collected.current().findings.push(Finding::new(symptom, thread, line, &text));
            }
            Entry::Unavailable { reason, .. } => self.collected.unavailable = Some(reason),
            Entry::End { .. } => {
                self.ground = None;
                self.collected.current().ended = true;
            }
        }
    }

    fn is_on_gpu(&self) -> bool {
        self.ground == Some(Ground::Gpu)
    }
}

impl Collected {
    /// The attempt under way; the first one if none has begun.
    fn current(&mut self) -> &mut Attempt {
        self.attempt(self.attempts.len().saturating_sub(1))
    }

    /// Adds a splat: to the attempt in which the runner has seen it, in place of what the runner has of it, else to that of an index.
    fn add_splat(&mut self, index: usize, splat: &Splat) {
        let is_of_splat = |finding: &Finding| finding.symptom == Symptom::KernelBug && splat.has(&finding.text);
        let seen = self.attempts.iter().position(|attempt| attempt.findings.iter().any(is_of_splat));
        let attempt = self.attempt(seen.unwrap_or(index));
        attempt.findings.retain(|finding| !is_of_splat(finding));
        attempt.findings.push(of_splat(splat));
    }

    /// The attempt of an index; the last one if it never began.
    fn attempt(&mut self, index: usize) -> &mut Attempt {
        if self.attempts.is_empty() {
            self.attempts.push(Attempt::default());
        }
        let last = self.attempts.len() - 1;
        &mut self.attempts[index.min(last)]
    }
}

fn of_splat(splat: &Splat) -> Finding {
    Finding { details: splat.lines.clone(), ..Finding::new(Symptom::KernelBug, None, None, &splat.title) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn collected(text: &str) -> Collected {
        let mut evidence = Evidence::default();
        text.as_bytes().chunks(11).for_each(|piece| evidence.write_all(piece).unwrap());
        evidence.take()
    }

    fn begin(run: Ground, attempt: u32) -> Entry {
        Entry::Begin { scenario: "s".to_owned(), run, attempt }
    }

    fn step(text: &str) -> Entry {
        let (thread, text) = ("t1".to_owned(), text.to_owned());
        let outcome = StepOutcome::Done { detail: None };
        Entry::Step { thread, step: 0, line: 1, text, began_ns: 1, ended_ns: 2, outcome }
    }

    fn finding(symptom: Symptom, text: &str) -> Entry {
        Entry::Finding { symptom, thread: None, line: Some(3), text: text.to_owned() }
    }

    fn end(attempt: u32) -> Entry {
        Entry::End { scenario: "s".to_owned(), attempt }
    }

    fn console(entries: &[Entry]) -> String {
        entries.iter().map(|entry| entry.to_line() + "\r\n").collect()
    }

    #[test]
    fn an_attempt_has_its_steps_on_the_gpu_and_its_findings() {
        let collected = collected(&console(&[
            begin(Ground::Gpu, 0),
            step("read r"),
            begin(Ground::Plain, 0),
            step("read r"),
            finding(Symptom::Content, "page 3 reads 0\nwith more"),
            end(0),
            begin(Ground::Gpu, 1),
        ]));
        let [first, second] = &collected.attempts[..] else { panic!("{collected:?}") };
        assert_eq!((first.steps.len(), first.ended, second.ended), (1, true, false));
        assert_eq!((first.findings[0].symptom, first.findings[0].text.as_str()), (Symptom::Content, "page 3 reads 0"));
        assert_eq!(first.findings[0].details, ["with more"]);
    }

    #[test]
    fn a_splat_belongs_to_the_attempt_that_is_not_over() {
        let splat = "[    9.000000] BUG: unable to handle page fault\r\n[    9.000001] ---[ end trace 0 ]---\r\n";
        let attempts = [console(&[begin(Ground::Gpu, 0), end(0)]), console(&[begin(Ground::Gpu, 1), end(1)])];
        let between = collected(&format!("{}{splat}{}", attempts[0], attempts[1]));
        assert_eq!(between.attempts[1].findings[0].symptom, Symptom::KernelBug);
        assert_eq!(between.attempts[1].findings[0].details.len(), 2);
        let after = collected(&format!("{}{}{splat}", attempts[0], attempts[1]));
        assert_eq!(after.attempts.iter().map(|attempt| attempt.findings.len()).collect::<Vec<_>>(), [0, 1]);
        let alone = collected(splat);
        assert_eq!(alone.attempts[0].findings.len(), 1);
    }

    #[test]
    fn a_splat_takes_the_place_of_what_the_runner_says_of_it() {
        let splat =
            "[    9.000000] BUG: at f\r\n[    9.000001] RIP: 0010:f+0x1\r\n[    9.000002] ---[ end trace 0 ]---\r\n";
        let said =
            ["[    9.000000] BUG: at f", "[    9.000001] RIP: 0010:f+0x1", "[    7.000000] page dumped because: x"];
        let said = said.map(|text| finding(Symptom::KernelBug, text));
        let first = [&[begin(Ground::Gpu, 0)][..], &said, &[end(0)]].concat();
        // The console had it only when the attempt was over.
        let collected = collected(&format!("{}{splat}{}", console(&first), console(&[begin(Ground::Gpu, 1), end(1)])));
        let texts: Vec<_> = collected.attempts[0].findings.iter().map(|finding| finding.text.as_str()).collect();
        assert_eq!(texts, ["[    7.000000] page dumped because: x", "BUG: at f"]);
        assert!(collected.attempts[1].findings.is_empty());
    }

    #[test]
    fn hostile_lines_are_counted() {
        let text = "ersatz-scenario: \r\nersatz-scenario: {\"entry\":\"nothing\"}\r\nersatz-scenario: {}\r\n";
        assert_eq!(collected(text).damaged, 3);
        let bodies = console(&[end(7), finding(Symptom::Leak, ""), step("before the beginning")]);
        let collected = collected(&bodies);
        assert_eq!(collected.attempts.len(), 1);
        assert!(collected.attempts[0].steps.is_empty());
    }

    #[test]
    fn a_runner_may_say_that_nothing_can_be_tried() {
        let unavailable = Entry::Unavailable { scenario: "s".to_owned(), reason: "no device".to_owned() };
        assert_eq!(collected(&console(&[unavailable])).unavailable.as_deref(), Some("no device"));
    }

    proptest! {
        #[test]
        fn no_console_panics(words in proptest::collection::vec("(ersatz-scenario: )?[{}\"a-z:,0-9\\[\\]. ]{0,40}\n", 0..20)) {
            collected(&words.concat());
        }
    }
}

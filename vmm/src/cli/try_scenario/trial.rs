// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What became of one scenario with one kernel and one memory type: the evidence of its guest, put together and judged.

use std::time::Duration;

use ersatz_device_model::trace::check::Finding as BrokenRule;
use ersatz_scenario::Symptom;

use super::evidence::{Attempt, Collected};
use super::finding::{Finding, symptoms};
use super::interleaving::{Interleavings, Row, annotate, of_report};
use super::script::Script;
use super::verdict::Verdict;
use crate::cli::guest::Mode;
use crate::outcome::Outcome;

/// One scenario with one kernel and one memory type.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The scenario's name.
    pub scenario: String,
    /// What it is about, in a line; may be empty.
    pub title: String,
    /// Its steps.
    pub script: Script,
    /// The kernel, as the command line names it.
    pub kernel: String,
    /// How VRAM is registered.
    pub memory: Mode,
    /// What it is expected to show, each symptom once.
    pub expected: Vec<Symptom>,
    /// How many attempts were asked for.
    pub attempts: u32,
}

impl Subject {
    /// A name for files about it.
    pub fn file_name(&self) -> String {
        let Self { scenario, kernel, memory, .. } = self;
        format!("{scenario}-{kernel}-{}", memory.name()).replace('/', "_")
    }
}

/// What a device's log has of a guest.
#[derive(Debug, Default)]
pub struct Traced {
    /// The order of steps and events, attempt by attempt.
    pub interleavings: Interleavings,
    /// Where the protocol was broken.
    pub broken: Vec<BrokenRule>,
    /// Why the log could not be read.
    pub failure: Option<String>,
}

impl Traced {
    /// Takes what it has of one attempt.
    pub fn take(&mut self, attempt: u32) -> Self {
        let is_in = |broken: &BrokenRule| self.interleavings.is_in(broken.sequence, attempt);
        let (broken, others) = std::mem::take(&mut self.broken).into_iter().partition(is_in);
        self.broken = others;
        let interleavings = self.interleavings.split_off(attempt);
        Self { interleavings, broken, failure: self.failure.clone() }
    }
}

/// What became of a [`Subject`].
#[derive(Clone, Debug)]
pub struct Trial {
    /// What was tried.
    pub subject: Subject,
    /// What became of it.
    pub verdict: Verdict,
    /// The attempts that began.
    pub attempts: Vec<Tried>,
    /// How long the guest took, from the start of the machine.
    pub took: Duration,
}

/// One attempt.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Its number, from 0.
    pub number: u32,
    /// Whether its report is complete.
    pub ended: bool,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What happened in which order.
    pub interleaving: Vec<Row>,
}

impl Trial {
    /// Returns the trial of a subject whose guest was not run.
    pub fn not_run(subject: Subject, reason: String) -> Self {
        Self { subject, verdict: Verdict::NotRun(reason), attempts: Vec::new(), took: Duration::ZERO }
    }

    /// Judges what a guest has shown: its console, how it ended, and the log of its device.
    pub fn new(subject: Subject, mut shown: Collected, outcome: &Outcome, mut traced: Traced, took: Duration) -> Self {
        if let Some(finding) = of_outcome(outcome) {
            let has_it = |attempt: &Attempt| attempt.findings.iter().any(|other| other.symptom == finding.symptom);
            match shown.attempts.last_mut() {
                // The kernel's own last words say more.
                Some(last) if has_it(last) && finding.symptom == Symptom::KernelBug => {}
                Some(last) => last.findings.push(finding),
                None => shown.attempts.push(Attempt { findings: vec![finding], ..Attempt::default() }),
            }
        }
        attribute(&mut shown.attempts, &traced);
        shown.attempts.iter_mut().for_each(Attempt::leave_out_incomparable);
        let found = symptoms(shown.attempts.iter().flat_map(|attempt| &attempt.findings));
        let verdict = match shortfall(&subject, &shown, outcome, &traced) {
            // What is wrong is wrong, however little of the rest is known.
            Some(reason) if found.is_empty() => Verdict::NotRun(reason),
            _ => Verdict::of(&subject.expected, &found),
        };
        let script = subject.script.clone();
        let tried = |attempt: Attempt| {
            let rows = traced.interleavings.take(attempt.number).filter(|rows| !rows.is_empty());
            let mut interleaving = rows.unwrap_or_else(|| of_report(&attempt, &script));
            annotate(&mut interleaving, &attempt, &script);
            Tried { number: attempt.number, ended: attempt.ended, findings: attempt.findings, interleaving }
        };
        let attempts = shown.attempts.into_iter().map(tried).collect();
        Self { subject, verdict, attempts, took }
    }

    /// The attempt that says most: the first with something unexpected, else the first with a finding, else the first.
    pub fn telling(&self) -> Option<&Tried> {
        let expected = &self.subject.expected;
        let is_unexpected = |tried: &&Tried| tried.findings.iter().any(|finding| !expected.contains(&finding.symptom));
        let has_findings = |tried: &&Tried| !tried.findings.is_empty();
        let mut attempts = self.attempts.iter();
        attempts.find(is_unexpected).or_else(|| self.attempts.iter().find(has_findings)).or(self.attempts.first())
    }

    /// How many attempts have findings.
    pub fn with_findings(&self) -> usize {
        self.attempts.iter().filter(|tried| !tried.findings.is_empty()).count()
    }
}

/// What is wrong with how a guest ended, if it is.
fn of_outcome(outcome: &Outcome) -> Option<Finding> {
    let (symptom, text) = match outcome {
        Outcome::Exited(_) | Outcome::Splat(_) | Outcome::Interrupted => return None,
        Outcome::Panicked => (Symptom::KernelBug, "the guest kernel panicked".to_owned()),
        Outcome::Stopped => (Symptom::KernelBug, "the guest went down without a word".to_owned()),
        Outcome::TimedOut(lines) | Outcome::Silent(lines) => {
            (Symptom::Hang, format!("the guest did not end in time; it was here:\n{}", lines.join("\n")))
        }
    };
    Some(Finding::new(symptom, None, None, &text))
}

/// Adds the broken rules of a log to the attempts that they happened in.
fn attribute(attempts: &mut [Attempt], traced: &Traced) {
    for broken in &traced.broken {
        let text = format!("{} at record {}: {}", broken.rule.name(), broken.sequence, broken.message);
        let owner = attempts.iter().position(|attempt| traced.interleavings.is_in(broken.sequence, attempt.number));
        let last = attempts.len().saturating_sub(1);
        if let Some(attempt) = attempts.get_mut(owner.unwrap_or(last)) {
            attempt.findings.push(Finding::new(Symptom::Oracle, None, None, &text));
        }
    }
}

/// Why a guest without findings says nothing about the scenario, if it does not.
fn shortfall(subject: &Subject, shown: &Collected, outcome: &Outcome, traced: &Traced) -> Option<String> {
    if let Some(reason) = &shown.unavailable {
        return Some(reason.clone());
    }
    let complete = shown.attempts.iter().filter(|attempt| attempt.ended).count();
    if u32::try_from(complete).is_ok_and(|complete| complete < subject.attempts) {
        let asked = subject.attempts;
        return Some(format!("the runner ended with status {} after {complete} of {asked} attempts", outcome.status()));
    }
    if shown.damaged > 0 {
        return Some(format!("{} lines of the runner's report are not valid", shown.damaged));
    }
    traced.failure.clone()
}

#[cfg(test)]
mod tests {
    use ersatz_device_model::trace::check::Rule;

    use super::*;

    fn subject(expected: &[Symptom], attempts: u32) -> Subject {
        Subject {
            scenario: "s".to_owned(),
            title: String::new(),
            script: Script::default(),
            kernel: "7.2".to_owned(),
            memory: Mode::Private,
            expected: expected.to_vec(),
            attempts,
        }
    }

    fn attempt(number: u32, found: &[Symptom]) -> Attempt {
        let findings = found.iter().map(|symptom| Finding::new(*symptom, None, None, "x")).collect();
        Attempt { number, ended: true, findings, ..Attempt::default() }
    }

    fn shown(attempts: &[Attempt]) -> Collected {
        Collected { attempts: attempts.to_vec(), ..Collected::default() }
    }

    fn judged(subject: Subject, shown: Collected, outcome: &Outcome) -> Trial {
        Trial::new(subject, shown, outcome, Traced::default(), Duration::ZERO)
    }

    #[test]
    fn one_attempt_of_several_is_enough_to_show_something() {
        let attempts = [attempt(0, &[]), attempt(1, &[Symptom::KernelBug]), attempt(2, &[])];
        let trial = judged(subject(&[Symptom::KernelBug], 3), shown(&attempts), &Outcome::Exited(1));
        assert_eq!(trial.verdict, Verdict::Shown(vec![Symptom::KernelBug]));
        assert_eq!((trial.with_findings(), trial.telling().map(|tried| tried.number)), (1, Some(1)));
    }

    #[test]
    fn differences_that_follow_from_another_order_do_not_count() {
        let attempts =
            [attempt(0, &[Symptom::Order, Symptom::Errno, Symptom::Signal]), attempt(1, &[Symptom::Content])];
        let trial = judged(subject(&[Symptom::Order], 1), shown(&attempts[..1]), &Outcome::Exited(1));
        assert_eq!(trial.verdict, Verdict::Shown(vec![Symptom::Order]));
        let trial = judged(subject(&[Symptom::Order], 2), shown(&attempts), &Outcome::Exited(1));
        assert_eq!(trial.verdict, Verdict::Unexpected(vec![Symptom::Content]), "of an attempt that came in order");
    }

    #[test]
    fn a_report_that_broke_off_is_no_verdict_without_a_finding() {
        let unfinished = Attempt { ended: false, ..attempt(0, &[]) };
        let trial = judged(subject(&[], 1), shown(&[unfinished]), &Outcome::Exited(139));
        assert!(matches!(&trial.verdict, Verdict::NotRun(reason) if reason.contains("139")), "{:?}", trial.verdict);
        let found = Attempt { ended: false, ..attempt(0, &[Symptom::KernelBug]) };
        let trial = judged(subject(&[Symptom::KernelBug], 1), shown(&[found]), &Outcome::Panicked);
        assert_eq!(trial.verdict, Verdict::Shown(vec![Symptom::KernelBug]));
        let missing = judged(subject(&[], 2), shown(&[attempt(0, &[])]), &Outcome::Exited(0));
        assert!(matches!(missing.verdict, Verdict::NotRun(_)));
    }

    #[test]
    fn how_the_guest_ended_is_a_finding() {
        let ends = [
            (Outcome::Panicked, Symptom::KernelBug),
            (Outcome::Stopped, Symptom::KernelBug),
            (Outcome::TimedOut(vec!["vCPU 0: rip 0x1".to_owned()]), Symptom::Hang),
        ];
        for (outcome, symptom) in ends {
            let trial = judged(subject(&[], 1), shown(&[]), &outcome);
            assert_eq!(trial.verdict, Verdict::Unexpected(vec![symptom]), "{outcome:?}");
        }
    }

    #[test]
    fn a_broken_rule_is_a_finding_and_a_log_that_cannot_be_read_is_no_verdict() {
        let broken = BrokenRule { sequence: 9, time: 1, rule: Rule::FenceRises, message: "fell".to_owned() };
        let traced = Traced { broken: vec![broken], ..Traced::default() };
        let well = || shown(&[attempt(0, &[])]);
        let trial = Trial::new(subject(&[], 1), well(), &Outcome::Exited(0), traced, Duration::ZERO);
        assert_eq!(trial.verdict, Verdict::Unexpected(vec![Symptom::Oracle]));
        assert_eq!(trial.attempts[0].findings[0].text, "fence-rises at record 9: fell");
        let traced = Traced { failure: Some("no log".to_owned()), ..Traced::default() };
        let trial = Trial::new(subject(&[], 1), well(), &Outcome::Exited(0), traced, Duration::ZERO);
        assert_eq!(trial.verdict, Verdict::NotRun("no log".to_owned()));
    }
}

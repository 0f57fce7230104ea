// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What came of an attempt on one ground, and how two grounds compare.

use ersatz_scenario::report::{Entry, PageContent, StepOutcome};
use ersatz_scenario::{Aspect, Scenario, Step, Symptom};

use super::content::first_difference;

/// What came of an attempt on one ground.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// For each sequence, for each step that began, how it ended.
    pub outcomes: Vec<Vec<Option<StepOutcome>>>,
    /// How the processes ended, in words: the first one, then the forked ones.
    pub ends: Vec<String>,
    /// Whether a step did not end, and the processes were killed.
    pub hung: bool,
}

/// Says where the GPU shows: steps and ends of processes that are not as on plain memory.
pub fn compare(scenario: &Scenario, gpu: &Trial, plain: &Trial) -> Vec<Entry> {
    let mut findings = Vec::new();
    for (index, sequence) in scenario.sequences().enumerate() {
        for (number, step) in sequence.steps.iter().enumerate() {
            let of = |trial: &Trial| trial.outcomes.get(index).and_then(|steps| steps.get(number)).cloned().flatten();
            if step.call.is_synchronisation() || step.call.is_for_device() {
                continue;
            }
            let Some((aspect, text)) = differ(&of(gpu), &of(plain)) else { continue };
            if step.may_differ.contains(&aspect) {
                continue;
            }
            findings.push(finding(aspect.into(), sequence.name, step, text));
        }
    }
    if findings.is_empty() {
        findings.extend(ends_differ(&gpu.ends, &plain.ends));
    }
    findings
}

fn finding(symptom: Symptom, thread: &str, step: &Step, text: String) -> Entry {
    let text = format!("{}: {text}", step.call);
    Entry::Finding { symptom, thread: Some(thread.to_owned()), line: Some(step.line), text }
}

/// What differs in two outcomes of a step, if something does.
fn differ(gpu: &Option<StepOutcome>, plain: &Option<StepOutcome>) -> Option<(Aspect, String)> {
    use StepOutcome::{Content, Done, Errno, Failed, Signal};
    let aspect = match (gpu, plain) {
        (Some(Content(one)), Some(Content(other))) => {
            if one == other {
                return None;
            }
            let text = first_difference(one, other).map_or_else(
                || "a page beyond those that are told differs".into(),
                |(page, one, other)| format!("page {page} is {}, on plain memory {}", describe(one), describe(other)),
            );
            return Some((Aspect::Content, text));
        }
        (Some(Done { .. }), Some(Done { .. })) => return None,
        // These are findings of their own.
        (Some(Failed(_)), _) | (_, Some(Failed(_))) => return None,
        (one, other) if one == other => return None,
        (Some(Signal(_)), _) | (_, Some(Signal(_))) => Aspect::Signal,
        (Some(Errno(_)), _) | (_, Some(Errno(_))) => Aspect::Errno,
        _ => Aspect::Signal,
    };
    Some((aspect, format!("{}, on plain memory {}", words(gpu), words(plain))))
}

fn describe(content: PageContent) -> String {
    match content {
        PageContent::Byte(byte) => format!("all {byte}"),
        PageContent::Digest(digest) => format!("something with CRC-32C {digest:#010x}"),
    }
}

fn words(outcome: &Option<StepOutcome>) -> String {
    match outcome {
        None => "never begun".into(),
        Some(StepOutcome::Done { .. }) => "done".into(),
        Some(StepOutcome::Errno(errno)) => nix::errno::Errno::from_raw(*errno).to_string(),
        Some(StepOutcome::Signal(signal)) => match nix::sys::signal::Signal::try_from(*signal) {
            Ok(signal) => signal.to_string(),
            Err(_) => format!("signal {signal}"),
        },
        Some(StepOutcome::Content(_)) => "read".into(),
        Some(StepOutcome::Skipped) => "skipped".into(),
        Some(StepOutcome::Failed(reason)) => reason.clone(),
        Some(StepOutcome::Unfinished) => "not ended".into(),
    }
}

fn ends_differ(gpu: &[String], plain: &[String]) -> Option<Entry> {
    let index = gpu.iter().zip(plain).position(|(one, other)| one != other)?;
    let who = if index == 0 { "the first process".into() } else { format!("forked process {index}") };
    let text = format!("{who} ended with {}, on plain memory with {}", gpu[index], plain[index]);
    Some(Entry::Finding { symptom: Symptom::Signal, thread: None, line: None, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "setup\nmap r 4K\nmigrate r to-device\nread r\nmadvise r cold may-differ errno";

    fn findings(gpu: [StepOutcome; 4], plain: [StepOutcome; 4]) -> Vec<(Symptom, u32)> {
        let scenario = ersatz_scenario::parse("x", TEXT).unwrap();
        let trial =
            |outcomes: [StepOutcome; 4]| Trial { outcomes: vec![outcomes.map(Some).into()], ..Trial::default() };
        let entries = compare(&scenario, &trial(gpu), &trial(plain));
        let told = entries.into_iter().map(|entry| match entry {
            Entry::Finding { symptom, line, .. } => (symptom, line.unwrap()),
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    fn content(byte: u8) -> StepOutcome {
        let mut reader = super::super::content::Reader::default();
        reader.page(&[byte; 4096]);
        StepOutcome::Content(reader.finish())
    }

    #[test]
    fn what_the_device_is_told_is_not_compared() {
        let done = || StepOutcome::Done { detail: None };
        let moved = || StepOutcome::Done { detail: Some("moved 1, left 0".into()) };
        let same = findings([done(), moved(), content(7), done()], [done(), StepOutcome::Skipped, content(7), done()]);
        assert_eq!(same, []);
    }

    #[test]
    fn differences_are_found_where_they_may_not_be() {
        let done = || StepOutcome::Done { detail: None };
        let plain = || [done(), StepOutcome::Skipped, content(7), done()];
        assert_eq!(findings([done(), done(), content(0), done()], plain()), [(Symptom::Content, 4)]);
        assert_eq!(findings([done(), done(), StepOutcome::Signal(7), done()], plain()), [(Symptom::Signal, 4)]);
        assert_eq!(findings([StepOutcome::Errno(12), done(), content(7), done()], plain()), [(Symptom::Errno, 2)]);
        assert_eq!(findings([done(), done(), content(7), StepOutcome::Errno(16)], plain()), []);
        assert_eq!(findings([done(), done(), content(7), StepOutcome::Signal(7)], plain()), [(Symptom::Signal, 5)]);
    }
}

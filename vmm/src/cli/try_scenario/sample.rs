// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Trials for the tests of those that show them.

use std::time::Duration;

use ersatz_scenario::Symptom;
use ersatz_scenario::mark::Edge;

use super::finding::Finding;
use super::interleaving::{Row, What};
use super::script::{Script, Sequence};
use super::trial::{Subject, Trial, Tried};
use super::verdict::Verdict;
use crate::cli::guest::Mode;

fn subject() -> Subject {
    let sequence = |name: &str| Sequence { name: name.to_owned(), steps: vec!["read r".to_owned()] };
    Subject {
        scenario: "calm".to_owned(),
        title: "nothing happens".to_owned(),
        script: Script { sequences: ["setup", "t1", "finally"].map(sequence).to_vec() },
        kernel: "7.2".to_owned(),
        memory: Mode::Private,
        expected: Vec::new(),
        attempts: 1,
    }
}

/// A trial in which all is well.
pub fn well() -> Trial {
    let step = What::Step { thread: 1, step: 0, edge: Edge::Begin, note: String::new() };
    let device = What::Device("copy 4 KiB vram to system (cpu-fault)".to_owned());
    let interleaving = vec![Row { at_ns: 0, what: step }, Row { at_ns: 1000, what: device }];
    let tried = Tried { number: 0, ended: true, findings: Vec::new(), interleaving };
    let took = Duration::from_millis(1500);
    Trial { subject: subject(), verdict: Verdict::Well, attempts: vec![tried], took }
}

/// A trial with a finding that nobody expects.
pub fn unexpected() -> Trial {
    let mut trial = well();
    trial.verdict = Verdict::Unexpected(vec![Symptom::Content]);
    let text = "page 3 <reads> 0\nand more";
    trial.attempts[0].findings.push(Finding::new(Symptom::Content, Some("t1".to_owned()), Some(9), text));
    trial
}

/// A trial whose guest was not run.
pub fn not_run() -> Trial {
    Trial::not_run(subject(), "no device".to_owned())
}

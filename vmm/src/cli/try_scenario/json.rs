// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Trials as one JSON document, whose members `docs/verdicts.md` lists.

use serde_json::{Value, json};

use super::finding::Finding;
use super::interleaving::{Row, What};
use super::script::Script;
use super::trial::{Trial, Tried};
use super::verdict::Verdict;

/// The version of the document: raised when a member changes its meaning or goes.
const VERSION: u32 = 1;

/// Returns the document of some trials.
pub fn document(trials: &[Trial], status: u8) -> Value {
    json!({ "version": VERSION, "status": status, "trials": trials.iter().map(trial).collect::<Vec<_>>() })
}

fn trial(trial: &Trial) -> Value {
    let subject = &trial.subject;
    let reason = if let Verdict::NotRun(reason) = &trial.verdict { Some(reason) } else { None };
    let symptoms = match &trial.verdict {
        Verdict::Shown(symptoms) | Verdict::Unexpected(symptoms) => names(symptoms),
        _ => Vec::new(),
    };
    // Orders are long: they are given for the attempts that one may want to read.
    let telling = trial.telling().map(|tried| tried.number);
    let attempts: Vec<_> = trial
        .attempts
        .iter()
        .map(|tried| attempt(tried, &subject.script, !tried.findings.is_empty() || telling == Some(tried.number)))
        .collect();
    json!({
        "scenario": subject.scenario,
        "title": subject.title,
        "kernel": subject.kernel,
        "memory": subject.memory.name(),
        "verdict": trial.verdict.name(),
        "symptoms": symptoms,
        "expected": names(&subject.expected),
        "reason": reason,
        "seconds": trial.took.as_secs_f64(),
        "attempts": attempts,
    })
}

fn names(symptoms: &[ersatz_scenario::Symptom]) -> Vec<&'static str> {
    symptoms.iter().map(|symptom| symptom.name()).collect()
}

fn attempt(tried: &Tried, script: &Script, with_order: bool) -> Value {
    let rows = if with_order { &tried.interleaving[..] } else { &[] };
    json!({
        "number": tried.number,
        "ended": tried.ended,
        "findings": tried.findings.iter().map(finding).collect::<Vec<_>>(),
        "interleaving": rows.iter().map(|row| self::row(row, script)).collect::<Vec<_>>(),
    })
}

fn finding(finding: &Finding) -> Value {
    json!({
        "symptom": finding.symptom.name(),
        "thread": finding.thread,
        "line": finding.line,
        "text": finding.text,
        "details": finding.details,
    })
}

fn row(row: &Row, script: &Script) -> Value {
    match &row.what {
        What::Device(text) => json!({ "at_ns": row.at_ns, "device": text }),
        What::Step { thread, step, edge, note } => json!({
            "at_ns": row.at_ns,
            "thread": script.sequences.get(*thread).map(|sequence| &sequence.name),
            "step": step,
            "text": script.step(*thread, *step),
            "edge": edge_name(*edge),
            "note": note,
        }),
    }
}

fn edge_name(edge: ersatz_scenario::mark::Edge) -> &'static str {
    use ersatz_scenario::mark::Edge;
    match edge {
        Edge::Begin => "begin",
        Edge::End => "end",
        Edge::Held => "held",
        Edge::Resumed => "resumed",
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{not_run, unexpected, well};
    use super::*;

    #[test]
    fn a_document_has_what_its_description_lists() {
        let document = document(&[well(), unexpected(), not_run()], 1);
        assert_eq!((&document["version"], &document["status"]), (&json!(1), &json!(1)));
        let [well, unexpected, not_run] = &document["trials"].as_array().unwrap()[..] else { panic!("{document}") };
        assert_eq!((&well["verdict"], &well["reason"]), (&json!("well"), &Value::Null));
        assert_eq!(
            (&well["scenario"], &well["kernel"], &well["memory"]),
            (&json!("calm"), &json!("7.2"), &json!("private"))
        );
        assert_eq!(unexpected["symptoms"], json!(["content"]));
        let attempt = &unexpected["attempts"][0];
        assert_eq!(attempt["findings"][0]["text"], "page 3 <reads> 0");
        assert_eq!(attempt["interleaving"][0]["edge"], "begin");
        assert_eq!(attempt["interleaving"][0]["text"], "read r");
        assert!(attempt["interleaving"][1]["device"].is_string());
        assert_eq!((&not_run["verdict"], &not_run["reason"]), (&json!("not-run"), &json!("no device")));
    }

    #[test]
    fn the_manual_lists_every_member() {
        let manual = include_str!("../../../../docs/verdicts.md");
        let document = document(&[unexpected()], 1);
        let trial = &document["trials"][0];
        let attempt = &trial["attempts"][0];
        let parts = [
            &document,
            trial,
            attempt,
            &attempt["findings"][0],
            &attempt["interleaving"][0],
            &attempt["interleaving"][1],
        ];
        for member in parts.iter().flat_map(|part| part.as_object().unwrap().keys()) {
            assert!(manual.contains(&format!("`{member}`")), "{member}");
        }
    }
}

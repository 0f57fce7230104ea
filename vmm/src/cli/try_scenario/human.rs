// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A trial for people: the verdict first, then what is wrong, then what happened in which order.

use super::columns::lay_out;
use super::finding::Finding;
use super::trial::Trial;
use super::verdict::{Verdict, listed};

/// Most lines of one trial, unless all are asked for.
const LINES: usize = 60;
/// Most findings that are shown then.
const FINDINGS: usize = 6;
/// Most lines of one finding that are shown then.
const DETAILS: usize = 12;

/// How much is shown of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The verdict.
    Verdict,
    /// What fits on a screen.
    Screen,
    /// All of it.
    All,
}

/// Returns the lines of a trial.
pub fn lines(trial: &Trial, detail: Detail) -> Vec<String> {
    let mut lines = vec![headline(trial)];
    if detail == Detail::Verdict {
        return lines;
    }
    if !trial.subject.title.is_empty() {
        lines.push(format!("  {}", trial.subject.title));
    }
    if trial.verdict == Verdict::NotShown {
        lines.push(format!("  expected: {}", listed(&trial.subject.expected)));
    }
    let Some(tried) = trial.telling() else { return lines };
    let bounded = |limit: usize| if detail == Detail::All { usize::MAX } else { limit };
    for finding in tried.findings.iter().take(bounded(FINDINGS)) {
        add_finding(&mut lines, finding, bounded(DETAILS));
    }
    add_more(&mut lines, tried.findings.len().saturating_sub(bounded(FINDINGS)), "findings");
    if trial.subject.attempts > 1 {
        lines.push(format!("  the order in attempt {}:", tried.number));
    }
    if !tried.interleaving.is_empty() {
        let room = (detail == Detail::Screen).then(|| LINES.saturating_sub(lines.len()));
        lines.push(String::new());
        lines.extend(lay_out(&tried.interleaving, &trial.subject.script, room.map(|room| room.saturating_sub(1))));
    }
    lines
}

/// The verdict, in one line.
fn headline(trial: &Trial) -> String {
    let subject = &trial.subject;
    let (scenario, kernel, memory) = (&subject.scenario, &subject.kernel, subject.memory.name());
    let seconds = trial.took.as_secs_f64();
    let word = if trial.verdict.is_expected() { "ok  " } else { "FAIL" };
    let times = match subject.attempts {
        1 => String::new(),
        _ if trial.with_findings() == 0 => format!(", in all of {} attempts", trial.attempts.len()),
        _ => format!(", in {} of {} attempts", trial.with_findings(), trial.attempts.len()),
    };
    format!("{word}  {scenario} ({kernel}, {memory}): {}{times}  [{seconds:.1} s]", trial.verdict)
}

fn add_finding(lines: &mut Vec<String>, finding: &Finding, details: usize) {
    let place = match (&finding.thread, finding.line) {
        (Some(thread), Some(line)) => format!(" ({thread}, line {line})"),
        (Some(thread), None) => format!(" ({thread})"),
        (None, Some(line)) => format!(" (line {line})"),
        (None, None) => String::new(),
    };
    lines.push(format!("  {}{place}: {}", finding.symptom, finding.text));
    lines.extend(finding.details.iter().take(details).map(|line| format!("    {line}")));
    add_more(lines, finding.details.len().saturating_sub(details), "lines");
}

fn add_more(lines: &mut Vec<String>, hidden: usize, what: &str) {
    if hidden > 0 {
        lines.push(format!("    ... {hidden} more {what}; --verbose shows them"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{not_run, unexpected, well};
    use super::*;

    #[test]
    fn the_verdict_comes_first() {
        assert_eq!(lines(&well(), Detail::Verdict), ["ok    calm (7.2, private): well  [1.5 s]"]);
        assert_eq!(lines(&not_run(), Detail::Screen)[0], "FAIL  calm (7.2, private): not run: no device  [0.0 s]");
        let text = lines(&unexpected(), Detail::Screen);
        assert_eq!(text[0], "FAIL  calm (7.2, private): unexpected content  [1.5 s]");
        assert_eq!(text[2], "  content (t1, line 9): page 3 <reads> 0");
    }

    #[test]
    fn a_screen_holds_a_trial_with_many_findings_and_rows() {
        let mut trial = unexpected();
        let tried = &mut trial.attempts[0];
        tried.findings[0].details = vec!["more".to_owned(); 100];
        tried.findings = vec![tried.findings[0].clone(); 2];
        tried.interleaving = vec![tried.interleaving[1].clone(); 500];
        let text = lines(&trial, Detail::Screen);
        assert!(text.len() <= LINES, "{}", text.len());
        assert!(text.iter().any(|line| line.contains("88 more lines")), "{text:?}");
        assert!(lines(&trial, Detail::All).len() > 700);
    }

    #[test]
    fn attempts_are_counted() {
        let mut trial = unexpected();
        trial.subject.attempts = 20;
        trial.attempts.push(well().attempts.remove(0));
        assert!(lines(&trial, Detail::Verdict)[0].contains("unexpected content, in 1 of 2 attempts"));
    }
}

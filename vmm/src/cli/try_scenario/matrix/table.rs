// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The matrix in a terminal: a row for each call, a column for each state, a character for each cell.

use std::time::Duration;

use super::cell::{Cell, Slice};
use super::results::{Judged, Mark, Results};

/// What the characters mean.
const LEGEND: &str =
    ". well   k known fault of the kernel   X unexpected   ? known fault not shown   ! not run   - no such cell";

/// Returns the lines of the table of one kernel and memory type.
pub fn lines(slice: &Slice, results: &Results) -> Vec<String> {
    let width = slice.calls.iter().map(|call| call.name.len()).max().unwrap_or(0);
    let height = slice.states.iter().map(|state| state.name.len()).max().unwrap_or(0);
    let mut lines = vec![format!("{}, {} memory", results.kernel, results.memory.name())];
    for row in 0..height {
        // Names end where the table begins.
        let letter = |name: &str| {
            let above = height - name.len();
            row.checked_sub(above).and_then(|at| name.chars().nth(at)).unwrap_or(' ')
        };
        let letters = slice.states.iter().map(|state| format!(" {}", letter(state.name)));
        lines.push(format!("{:width$}{}", "", letters.collect::<String>()).trim_end().to_owned());
    }
    for call in &slice.calls {
        let marks = slice.states.iter().map(|state| format!(" {}", results.mark(state, call).letter()));
        lines.push(format!("{:width$}{}", call.name, marks.collect::<String>()));
    }
    lines.push(LEGEND.to_owned());
    lines
}

/// Returns a line or two for each cell that is not green.
pub fn explained(results: &Results) -> Vec<String> {
    let not_green = results.judged.iter().filter(|judged| judged.mark() != Mark::Well);
    not_green.flat_map(explain).collect()
}

fn explain(judged: &Judged) -> Vec<String> {
    let Judged { cell, trial } = judged;
    let entry = cell.known().map_or_else(String::new, |known| format!("  [{}: {}]", known.entry, known.what));
    let mut lines = vec![format!("{} {}: {}{entry}", judged.mark().letter(), cell.name(), trial.verdict)];
    if judged.mark() == Mark::Unexpected {
        let findings = trial.telling().into_iter().flat_map(|tried| &tried.findings);
        lines.extend(findings.take(2).map(|finding| format!("    {}: {}", finding.symptom, finding.text)));
    }
    lines
}

/// Returns the line with all numbers.
pub fn summary(slice: &Slice, all: &[Results], took: Duration) -> String {
    let judged = || all.iter().flat_map(|results| &results.judged);
    let count = |mark: Mark| judged().filter(|judged| judged.mark() == mark).count();
    let pairs = slice.states.iter().flat_map(|state| slice.calls.iter().map(move |call| (*state, *call)));
    let senseless = |results: &Results| {
        let cell = |(state, call)| Cell { state, call, memory: results.memory_type() };
        pairs.clone().filter(|pair| cell(*pair).senseless().is_some()).count()
    };
    format!(
        "{} cells: {} well, {} known, {} unexpected, {} known and not shown, {} not run; {} make no sense  [{:.1} s]",
        judged().count(),
        count(Mark::Well),
        count(Mark::Known),
        count(Mark::Unexpected),
        count(Mark::NotShown),
        count(Mark::NotRun),
        all.iter().map(senseless).sum::<usize>(),
        took.as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::super::sample::results;
    use super::*;

    #[test]
    fn a_cell_is_a_character() {
        let (slice, results) = results();
        let text = lines(&slice, &results);
        assert_eq!(text[0], "7.2, private memory");
        // The names of the states stand upright above their columns.
        assert_eq!(text[1], "         s");
        assert_eq!(text[6], "read     . X");
        assert_eq!(text[7], "collapse - !");
        assert_eq!(explained(&results)[0], "X huge/read: unexpected content");
        assert!(explained(&results)[1].contains("page 3 <reads> 0"));
        let line = summary(&slice, &[results], Duration::from_millis(1500));
        assert_eq!(
            line,
            "3 cells: 1 well, 0 known, 1 unexpected, 0 known and not shown, 1 not run; 1 make no sense  [1.5 s]"
        );
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Many trials at a glance: a row for each scenario and memory type, a column for each kernel.

use super::trial::Trial;
use super::verdict::Verdict;

/// Blanks between columns.
const GAP: usize = 2;

/// Returns the lines of the table, in the order of the trials.
pub fn lines(trials: &[Trial]) -> Vec<String> {
    let mut kernels: Vec<&str> = Vec::new();
    let mut rows: Vec<(&str, &str)> = Vec::new();
    for Trial { subject, .. } in trials {
        let row = (subject.scenario.as_str(), subject.memory.name());
        if !kernels.contains(&subject.kernel.as_str()) {
            kernels.push(&subject.kernel);
        }
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    let titles = ["scenario", "memory"].iter().chain(&kernels);
    let mut cells: Vec<Vec<String>> = vec![titles.map(|title| (*title).to_owned()).collect()];
    for (scenario, memory) in rows {
        let of = |kernel: &str| {
            let fits = |trial: &&Trial| {
                let subject = &trial.subject;
                (subject.scenario.as_str(), subject.memory.name(), subject.kernel.as_str())
                    == (scenario, memory, kernel)
            };
            trials.iter().find(fits).map_or_else(|| "-".to_owned(), cell)
        };
        let verdicts = kernels.iter().map(|kernel| of(kernel));
        cells.push([scenario.to_owned(), memory.to_owned()].into_iter().chain(verdicts).collect());
    }
    aligned(&cells)
}

/// One verdict, with the seconds that it took.
fn cell(trial: &Trial) -> String {
    let seconds = trial.took.as_secs_f64();
    match &trial.verdict {
        // The reason has been printed.
        Verdict::NotRun(_) => "not run".to_owned(),
        verdict if trial.subject.attempts > 1 => {
            format!("{verdict} {}/{} {seconds:.1} s", trial.with_findings(), trial.attempts.len())
        }
        verdict => format!("{verdict} {seconds:.1} s"),
    }
}

fn aligned(cells: &[Vec<String>]) -> Vec<String> {
    let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let gap = " ".repeat(GAP);
    let line = |row: &Vec<String>| {
        let padded: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join(&gap).trim_end().to_owned()
    };
    cells.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample::{not_run, unexpected, well};
    use super::*;

    #[test]
    fn a_scenario_is_a_row_and_a_kernel_a_column() {
        let mut other = unexpected();
        other.subject.kernel = "7.3".to_owned();
        let mut alone = not_run();
        alone.subject.scenario = "a14".to_owned();
        assert_eq!(
            lines(&[well(), other, alone]),
            [
                "scenario  memory   7.2         7.3",
                "calm      private  well 1.5 s  unexpected content 1.5 s",
                "a14       private  not run     -"
            ]
        );
    }
}

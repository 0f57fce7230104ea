// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether `ersatz try` tells right from wrong, in real guests: one scenario in which all is well, and one with a finding, expected and
//! not; and a slice of the matrix.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Tally;
use crate::progress::Progress;
use crate::store::Store;

/// A scenario in which all is well.
const WELL: &str = include_str!("scenarios/well.scenario");
/// A scenario that expects the finding it has.
const FINDING: &str = include_str!("scenarios/finding.scenario");
/// Cells of the matrix in which all is well, or a known fault of the kernel is shown.
const SLICE: &str = "--matrix=small,half/read,munmap-half,mremap,fork";
/// How many they are.
const CELLS: usize = 8;
/// The line of [`FINDING`] that says so.
const EXPECTATION: &str = "shows oracle\n";

/// Tries the scenarios with an accelerator.
pub fn check(ersatz: &Path, series: &str, accelerator: &str, store: &Store, progress: &Progress) -> Tally {
    let stage = progress.stage(&format!("scenarios, kernel {series}, {accelerator}"));
    let result = verdicts(ersatz, series, accelerator, store).and_then(|()| matrix(ersatz, series, accelerator, store));
    if let Err(error) = &result {
        stage.say(&format!("FAILED: {error:#}"));
    }
    stage.done();
    Tally::check(result.is_ok())
}

fn verdicts(ersatz: &Path, series: &str, accelerator: &str, store: &Store) -> Result<()> {
    let folder = store.log("scenarios").with_extension("texts");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let unexpected = FINDING.replace(EXPECTATION, "");
    let texts = [("well", WELL), ("finding", FINDING), ("unexpected", unexpected.as_str())];
    for (name, text) in texts {
        fs::write(folder.join(name).with_extension("scenario"), text)?;
    }
    let output = Command::new(ersatz)
        .args(["try", "--format", "json", "--kernel", series, "--accel", accelerator, "--vram", "16M"])
        .args(texts.map(|(name, _)| folder.join(name).with_extension("scenario")))
        .env("ERSATZ_GUEST", store.root())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", ersatz.display()))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    let document: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("ersatz try ended with {} and no report: {messages}", output.status))?;
    ensure!(output.status.code() == Some(1), "ersatz try ended with {}: {document:#}", output.status);
    let trials = document["trials"].as_array().context("a report without trials")?;
    let wanted = [("well", "well"), ("finding", "shown"), ("unexpected", "unexpected")];
    // Each with both memory types.
    ensure!(trials.len() == 2 * wanted.len(), "{} trials: {document:#}", trials.len());
    for trial in trials {
        let verdict = wanted.iter().find(|(scenario, _)| trial["scenario"] == *scenario).map(|(_, verdict)| *verdict);
        ensure!(verdict.is_some_and(|verdict| trial["verdict"] == verdict), "not the verdict: {trial:#}");
    }
    let order = trials[0]["attempts"][0]["interleaving"].as_array().context("a trial without an order")?;
    let has = |member: &str| order.iter().any(|row| row[member].is_string());
    ensure!(has("thread") && has("device"), "steps or device events are missing: {order:#?}");
    Ok(())
}

/// A few cells of the matrix in one guest.
fn matrix(ersatz: &Path, series: &str, accelerator: &str, store: &Store) -> Result<()> {
    let output = Command::new(ersatz)
        .args(["try", "--format", "json", "--kernel", series, "--accel", accelerator, "--mode", "private"])
        .arg(SLICE)
        .env("ERSATZ_GUEST", store.root())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", ersatz.display()))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    let document: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the matrix ended with {} and no report: {messages}", output.status))?;
    ensure!(output.status.success(), "the matrix ended with {}: {document:#}", output.status);
    let count = document["trials"].as_array().map_or(0, Vec::len);
    ensure!(count == CELLS, "{count} cells: {document:#}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_scenario_has_the_expectation_that_is_taken_from_it() {
        assert!(FINDING.contains(EXPECTATION) && !WELL.contains("shows"));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a scenario changes outside of its processes, put back when it is over.

use std::fs;
use std::path::PathBuf;

use ersatz_scenario::Scenario;
use ersatz_scenario::call::Call;

use super::calls::{CGROUP, setting_file};
use crate::swap_disk::SwapDisk;

/// The surroundings as they were. Dropped, they are so again.
#[derive(Debug)]
pub struct Surroundings {
    settings: Vec<(PathBuf, String)>,
    _swap: Option<SwapDisk>,
}

impl Surroundings {
    /// Remembers what the scenario's steps change; gives the guest something to swap to if they swap
    /// and it can: without, such steps fail.
    pub fn keep(scenario: &Scenario) -> Self {
        let calls = || scenario.sequences().flat_map(|sequence| sequence.steps).map(|step| &step.call);
        let mut settings = Vec::new();
        for call in calls() {
            let files: Vec<PathBuf> = match call {
                Call::Set { setting, .. } => vec![setting_file(setting)],
                Call::KsmMerge(_) | Call::KsmScan => {
                    ["run", "pages_to_scan", "sleep_millisecs"].map(|name| setting_file(&format!("ksm/{name}"))).into()
                }
                _ => Vec::new(),
            };
            for file in files {
                if let Ok(text) = fs::read_to_string(&file) {
                    settings.push((file, chosen(&text).to_owned()));
                }
            }
        }
        let swaps = |call: &Call| match call {
            Call::SwapOut(_) => true,
            Call::Madvise { advice, .. } => advice.name() == "pageout",
            _ => false,
        };
        Self { settings, _swap: calls().any(swaps).then(SwapDisk::try_on).and_then(Result::ok) }
    }
}

/// The value in what a setting shows: the word in brackets where it lists all that there are.
fn chosen(text: &str) -> &str {
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(text.trim(), |(word, _)| word)
}

impl Drop for Surroundings {
    fn drop(&mut self) {
        // Best effort: what the scenario found is told already.
        for (file, value) in self.settings.iter().rev() {
            let _ = fs::write(file, value);
        }
        let _ = fs::remove_dir(CGROUP);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The steps of a scenario by number, as marks in a trace and entries of a report name them.

use ersatz_scenario::Scenario;

/// The steps of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Setup, the threads, finally.
    pub sequences: Vec<Sequence>,
}

/// Steps that follow one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Their thread.
    pub name: String,
    /// Their texts.
    pub steps: Vec<String>,
}

impl Script {
    /// Returns the steps of a scenario.
    pub fn of(scenario: &Scenario) -> Self {
        let sequences = scenario.sequences().map(|sequence| Sequence {
            name: sequence.name.to_owned(),
            steps: sequence.steps.iter().map(|step| step.call.to_string()).collect(),
        });
        Self { sequences: sequences.collect() }
    }

    /// The number of a thread.
    pub fn thread(&self, name: &str) -> Option<usize> {
        self.sequences.iter().position(|sequence| sequence.name == name)
    }

    /// The text of a step; empty for one that does not exist.
    pub fn step(&self, thread: usize, step: u16) -> &str {
        let step = self.sequences.get(thread).and_then(|sequence| sequence.steps.get(usize::from(step)));
        step.map_or("", String::as_str)
    }
}

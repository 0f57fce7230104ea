// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a scenario consists of.

use std::time::Duration;

use ersatz_uapi::MemoryType;

use crate::call::{Call, Point};
use crate::limits;
use crate::symptom::{Aspect, Symptom};

/// A scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name: of the file, without folder and ending.
    pub name: String,
    /// The first line of comment; empty if the text begins otherwise.
    pub title: String,
    /// What it needs of the guest.
    pub guest: Guest,
    /// What it shows, and on which kernels. Without an entry, all must be well.
    pub shows: Vec<Shows>,
    /// The longest that a step is held.
    pub hold_limit: Duration,
    /// The longest that a step may take, holds apart.
    pub deadline: Duration,
    /// What the first process does before its threads begin.
    pub setup: Vec<Step>,
    /// The threads, which begin together.
    pub threads: Vec<Thread>,
    /// What the first process does after all threads and forked processes have ended.
    pub finally: Vec<Step>,
}

/// What a scenario needs of the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// How VRAM may be registered; empty for either way.
    pub memory: Vec<MemoryType>,
    /// Bytes of VRAM.
    pub vram: Option<u64>,
    /// Virtual CPUs.
    pub vcpus: Option<u8>,
    /// Bytes of system memory.
    pub ram: Option<u64>,
    /// Words for the kernel command line.
    pub kernel_args: Vec<String>,
    /// Parameters of the driver, `NAME=VALUE`.
    pub driver_args: Vec<String>,
}

/// What is expected of an unmended kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shows {
    /// The kind of finding.
    pub symptom: Symptom,
    /// Versions, major and minor: `7.2`. Empty for all.
    pub kernels: Vec<String>,
}

/// Which process a thread is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Process {
    /// The one that did the setup.
    First,
    /// A forked one, by its name.
    Child(String),
}

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its name.
    pub name: String,
    /// The CPU that it stays on.
    pub cpu: Option<u8>,
    /// Its process.
    pub process: Process,
    /// What it does.
    pub steps: Vec<Step>,
}

/// A step of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its line in the text, from 1.
    pub line: u32,
    /// What is done.
    pub call: Call,
    /// What of its outcome may differ from plain memory.
    pub may_differ: Vec<Aspect>,
}

/// Steps that are done one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// `setup`, a thread's name, or `finally`.
    pub name: &'a str,
    /// What is done.
    pub steps: &'a [Step],
}

/// The name of the steps before the threads.
pub const SETUP: &str = "setup";
/// In place of a version: kernels built with checkers.
pub const DEBUG: &str = "debug";
/// The name of the steps after the threads.
pub const FINALLY: &str = "finally";

impl Scenario {
    /// All steps: setup, the threads in their order, finally. Marks and reports number them so.
    pub fn sequences(&self) -> impl Iterator<Item = Sequence<'_>> {
        let setup = Sequence { name: SETUP, steps: &self.setup };
        let threads = self.threads.iter().map(|thread| Sequence { name: &thread.name, steps: &thread.steps });
        let finally = Sequence { name: FINALLY, steps: &self.finally };
        std::iter::once(setup).chain(threads).chain(std::iter::once(finally))
    }

    /// Whether a function of the kernel is held.
    pub fn holds_kernel(&self) -> bool {
        self.points().any(|point| matches!(point, Point::Kernel(_)))
    }

    /// Whether a step of the device's work is held.
    pub fn holds_device(&self) -> bool {
        self.points().any(|point| matches!(point, Point::Device(_)))
    }

    /// Where its steps are held.
    pub fn points(&self) -> impl Iterator<Item = &Point> {
        self.sequences().flat_map(|sequence| sequence.steps).filter_map(|step| match &step.call {
            Call::Hold(hold) => Some(&hold.point),
            _ => None,
        })
    }

    /// The symptoms that are expected on a kernel, given as `7.2`, `7.2.12` or a release.
    pub fn expected_on(&self, kernel: &str) -> Vec<Symptom> {
        let is_debug = kernel.split('-').any(|part| part == DEBUG);
        let fits = |version: &String| {
            (version == DEBUG && is_debug)
                || kernel
                    .strip_prefix(version.as_str())
                    .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let shown = self.shows.iter().filter(|shows| shows.kernels.is_empty() || shows.kernels.iter().any(fits));
        shown.map(|shows| shows.symptom).collect()
    }
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: String::new(),
            title: String::new(),
            guest: Guest::default(),
            shows: Vec::new(),
            hold_limit: limits::USUAL_HOLD,
            deadline: limits::USUAL_DEADLINE,
            setup: Vec::new(),
            threads: Vec::new(),
            finally: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symptoms_are_of_whole_versions() {
        let of = |kernels: &[&str]| Scenario {
            shows: vec![Shows {
                symptom: Symptom::Leak,
                kernels: kernels.iter().map(|&version| version.to_owned()).collect(),
            }],
            ..Scenario::default()
        };
        assert_eq!(of(&[]).expected_on("7.2.12"), [Symptom::Leak]);
        assert_eq!(of(&["7.2", "7.3"]).expected_on("7.3"), [Symptom::Leak]);
        assert_eq!(of(&["7.2"]).expected_on("7.2.12-amd64"), [Symptom::Leak]);
        assert_eq!(of(&["7.2"]).expected_on("7.21"), []);
        assert_eq!(of(&["7.3"]).expected_on("7.2.12"), []);
        assert_eq!(of(&[DEBUG]).expected_on("7.2.12-ersatz-debug"), [Symptom::Leak]);
        assert_eq!(of(&[DEBUG]).expected_on("7.2.12+deb13-amd64"), []);
    }
}

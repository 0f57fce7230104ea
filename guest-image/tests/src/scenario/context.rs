// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What all threads of a process know about the attempt they are part of.

use std::time::Duration;

use ersatz_scenario::mark::{Edge, Mark};
use ersatz_scenario::report::{Ground, StepOutcome};
use ersatz_scenario::{Process, Scenario};
use nix::errno::Errno;
use nix::libc::c_int;

use super::board::Board;
use super::disk::Disk;
use super::ranges::Ranges;
use crate::device::Device;

/// An attempt, on one ground.
#[derive(Debug)]
pub struct Context<'a> {
    /// What is tried.
    pub scenario: &'a Scenario,
    /// Where all of it is noted.
    pub board: &'a Board,
    /// On what.
    pub ground: Ground,
    /// From 0.
    pub attempt: u32,
    /// Where memory is, in this process.
    pub ranges: Ranges,
    /// The device; none on plain memory.
    pub device: Option<Device>,
    /// The disk, if the scenario uses one.
    pub disk: Option<&'a Disk>,
    /// Bytes of VRAM that were free before.
    pub free_before: u64,
}

impl Context<'_> {
    /// Puts a step's edge into the device's trace.
    pub fn mark(&self, sequence: usize, step: usize, edge: Edge) {
        let mark = Mark { thread: sequence as u8, step: step as u16, attempt: self.attempt as u16, edge };
        if let Some(device) = &self.device {
            // A device that is gone has no trace; the steps themselves tell of that.
            let _ = device.try_mark(mark.encode());
        }
    }

    /// The longest that a step waits for another thread.
    pub fn patience(&self) -> Duration {
        self.scenario.deadline + self.scenario.hold_limit
    }

    /// The number of a forked process, from 0.
    pub fn child(&self, name: &str) -> Result<usize, String> {
        children(self.scenario).position(|child| child == name).ok_or_else(|| format!("no process is called {name}"))
    }

    /// The numbers of the sequences that are a process's threads.
    pub fn threads_of(&self, process: &Process) -> Vec<usize> {
        let threads = self.scenario.threads.iter().zip(1..);
        threads.filter(|(thread, _)| thread.process == *process).map(|(_, index)| index).collect()
    }

    /// The number of a thread's sequence.
    pub fn thread(&self, name: &str) -> Result<usize, String> {
        let position = self.scenario.threads.iter().position(|thread| thread.name == name);
        position.map(|index| index + 1).ok_or_else(|| format!("no thread is called {name}"))
    }
}

/// The names of forked processes, in the order of their numbers.
pub fn children(scenario: &Scenario) -> impl Iterator<Item = &str> {
    let steps = scenario.sequences().flat_map(|sequence| sequence.steps);
    steps.filter_map(|step| match &step.call {
        ersatz_scenario::call::Call::Fork(child) => Some(child.as_str()),
        _ => None,
    })
}

/// Why a call did not do what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The system said so.
    Errno(Errno),
    /// It got a signal.
    Signal(c_int),
    /// The runner cannot do it, or an expectation does not hold.
    Reason(String),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Reason(reason)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        error.raw_os_error().map_or_else(|| Self::Reason(error.to_string()), |raw| Self::Errno(Errno::from_raw(raw)))
    }
}

impl From<Failure> for StepOutcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Errno(errno) => Self::Errno(errno as i32),
            Failure::Signal(signal) => Self::Signal(signal),
            Failure::Reason(reason) => Self::Failed(reason),
        }
    }
}

/// What a call comes to.
pub type Done = Result<StepOutcome, Failure>;

/// Done, and nothing more to say.
pub fn done() -> Done {
    Ok(StepOutcome::Done { detail: None })
}

/// Done, with something worth knowing.
pub fn done_with(detail: impl Into<String>) -> Done {
    Ok(StepOutcome::Done { detail: Some(detail.into()) })
}

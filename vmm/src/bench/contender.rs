// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One VMM of a comparison: starting it, waiting for the guest's init, looking at its memory, ending it.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::footprint::{FootprintError, own_bytes};
use super::init_program::GREETING;
use crate::qemu::Tail;
use crate::threads::{Role, spawn};

/// How long a boot may take.
const LIMIT: Duration = Duration::from_secs(180);
/// How long the messages of a process that closed its console are waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long init sleeps before memory is looked at: what the VMM frees after a boot is free by then.
const SETTLE: Duration = Duration::from_millis(500);
/// The end of the console to show when a boot fails.
const SHOWN_BYTES: usize = 800;

/// A VMM and what it boots.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contender {
    /// What the report calls it.
    pub name: String,
    /// Program and arguments. The guest's console must be its standard output.
    pub command: Vec<String>,
    /// Variables to set.
    pub environment: BTreeMap<String, String>,
    /// Guest memory in bytes.
    pub memory: u64,
}

/// What one boot took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// From exec to init's first output.
    pub boot: Duration,
    /// Resident bytes besides guest memory and VRAM.
    pub own_bytes: u64,
}

/// Why a contender did not boot.
#[derive(Debug, Error)]
pub enum ContenderError {
    /// The plan names no program.
    #[error("the plan names no program")]
    Empty,
    /// It could not be started.
    #[error("cannot start {program}")]
    Spawn {
        /// The program.
        program: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// There is no thread left to read its output.
    #[error("cannot follow what it prints")]
    Follow(#[source] io::Error),
    /// Its output ended without init's greeting.
    #[error("it ended before init was up; the end of the console: {console}; its messages: {messages}")]
    Ended {
        /// The end of the guest's console.
        console: String,
        /// The end of its standard error.
        messages: String,
    },
    /// It took too long.
    #[error("init was not up after {LIMIT:?}; its messages: {messages}")]
    TooLong {
        /// The end of its standard error.
        messages: String,
    },
    /// Its memory is not known.
    #[error(transparent)]
    Footprint(#[from] FootprintError),
}

impl Contender {
    /// Boots once.
    ///
    /// # Errors
    ///
    /// Fails if init does not come up.
    pub fn boot(&self) -> Result<Sample, ContenderError> {
        let [program, arguments @ ..] = &self.command[..] else { return Err(ContenderError::Empty) };
        let mut command = Command::new(program);
        command.args(arguments).envs(&self.environment);
        // Closed input would end a serial console in some VMMs; an open one that is silent does nothing.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = Instant::now();
        let child = command.spawn();
        let mut child = Killed(child.map_err(|source| ContenderError::Spawn { program: program.clone(), source })?);
        let follow = child.0.stderr.take().map(Tail::follow).transpose();
        let messages = follow.map_err(ContenderError::Follow)?.unwrap_or_default();
        let (sender, receiver) = channel();
        if let Some(console) = child.0.stdout.take() {
            let body = move || watch(console, |result| drop(sender.send(result)));
            spawn(Role::BenchConsole, body).map_err(ContenderError::Follow)?;
        }
        let messages = |patience| {
            messages.wait_for_end(patience);
            messages.last_lines(8).join("; ")
        };
        let up = match receiver.recv_timeout(LIMIT) {
            Ok(Ok(up)) => up,
            Ok(Err(console)) => return Err(ContenderError::Ended { console, messages: messages(LAST_WORDS) }),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(ContenderError::Ended { console: String::new(), messages: messages(LAST_WORDS) });
            }
            Err(RecvTimeoutError::Timeout) => {
                return Err(ContenderError::TooLong { messages: messages(Duration::ZERO) });
            }
        };
        std::thread::sleep(SETTLE);
        Ok(Sample { boot: up.saturating_duration_since(start), own_bytes: own_bytes(child.0.id(), self.memory)? })
    }
}

/// Reads a console to its end; reports when the greeting arrived, or the end of the output without it.
fn watch(mut console: ChildStdout, report: impl FnOnce(Result<Instant, String>)) {
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    let mut report = Some(report);
    // It is read on after the greeting, so that the guest never has to wait for room.
    while let Ok(length @ 1..) = console.read(&mut buffer) {
        if report.is_none() {
            continue;
        }
        said.extend_from_slice(&buffer[..length]);
        if contains_greeting(&said) {
            if let Some(report) = report.take() {
                report(Ok(Instant::now()));
            }
        }
        let surplus = said.len().saturating_sub(SHOWN_BYTES);
        said.drain(..surplus);
    }
    if let Some(report) = report {
        report(Err(String::from_utf8_lossy(&said).replace(['\r', '\n'], " ")));
    }
}

/// Whether a console has shown the greeting; a terminal makes its end of line two characters.
fn contains_greeting(said: &[u8]) -> bool {
    let text = GREETING.trim_ascii_end();
    said.windows(text.len()).any(|window| window == text)
}

/// A process that is killed when this is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Contender {
        Contender {
            name: "shell".to_owned(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            environment: BTreeMap::new(),
            memory: 1 << 40,
        }
    }

    #[test]
    fn a_vmm_that_ends_early_is_reported_with_its_words() {
        let error = shell("echo panic; echo no such kernel >&2").boot().unwrap_err();
        let ContenderError::Ended { console, messages } = error else { panic!("{error}") };
        assert_eq!((console.trim(), messages.as_str()), ("panic", "no such kernel"));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let contender = Contender { command: vec!["/nowhere/vmm".to_owned()], ..shell("") };
        assert!(matches!(contender.boot(), Err(ContenderError::Spawn { program, .. }) if program == "/nowhere/vmm"));
    }

    #[test]
    fn without_guest_memory_there_is_no_sample() {
        let error = shell("printf 'boot\\r\\nersatz: init is up\\r\\n'; exec sleep 100").boot().unwrap_err();
        assert!(matches!(error, ContenderError::Footprint(FootprintError::NoGuestMemory { .. })), "{error}");
    }
}

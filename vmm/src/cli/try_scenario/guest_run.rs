// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Running the guest of one trial: what it boots with, what it brings, and where its log goes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ersatz_device_model::trace::TraceFile;
use ersatz_device_model::trace::check::Checker;
use ersatz_guest_image::error_chain::chain;
use ersatz_guest_image::initramfs::Archive;
use ersatz_guest_image::run::{SCENARIO_PATH, TESTS_PATH, append};

use super::evidence::Evidence;
use super::interleaving;
use super::source::Source;
use super::trial::{Subject, Traced, Trial};
use crate::accel::accelerator::Accelerator;
use crate::cli::CommandError;
use crate::cli::artifacts::KernelChoice;
use crate::cli::guest::GuestOptions;
use crate::cli::report::{self, say};
use crate::console::log::ConsoleLog;
use crate::launch::{Connection, launch};
use crate::outcome::Outcome;
use crate::spec::{GuestSpec, WrittenPath};

/// How long a guest may run for its first attempt, and for each further one. The runner has deadlines of its own; this is for a
/// kernel that hangs, and long enough for one that reports a soft lockup first.
const FIRST_ATTEMPT: Duration = Duration::from_secs(120);
const FURTHER_ATTEMPT: Duration = Duration::from_secs(20);

/// A guest that is ready to run.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What it is for.
    subject: Subject,
    /// What it runs on.
    accelerator: &'a Accelerator,
    /// What to run.
    spec: GuestSpec,
    /// Whether it boots though it could start from a snapshot.
    cold: bool,
    /// The folder in which the logs of its devices are kept; `None` if they are not.
    traces: Option<WrittenPath>,
}

impl<'a> Plan<'a> {
    /// Returns the guest for a scenario: the options, with what the scenario needs in place of what they say.
    ///
    /// # Errors
    ///
    /// Fails if something to boot is missing, or the options contradict each other.
    pub fn new(
        source: &Source,
        subject: Subject,
        kernel: Option<&KernelChoice>,
        options: &GuestOptions,
        accelerator: &'a Accelerator,
    ) -> Result<Self, CommandError> {
        let mut options = options.clone();
        let wanted = &source.scenario.guest;
        options.gpu.vram = wanted.vram.unwrap_or(options.gpu.vram);
        options.gpu.control_window |= source.scenario.holds_device();
        let traces = options.gpu.trace.take();
        options.resources.vcpus = wanted.vcpus.unwrap_or(options.resources.vcpus);
        options.resources.memory = wanted.ram.unwrap_or(options.resources.memory);
        let driver_words = wanted.driver_args.iter().map(|word| format!("ersatz.{word}"));
        let words =
            options.kernel_args.take().into_iter().chain(wanted.kernel_args.iter().cloned()).chain(driver_words);
        options.kernel_args = Some(words.collect::<Vec<_>>().join(" "));
        let attempts = subject.attempts.to_string();
        let command = [TESTS_PATH, "--scenario", SCENARIO_PATH, "--repeat", &attempts].map(str::to_owned);
        let limit = FIRST_ATTEMPT.saturating_add(FURTHER_ATTEMPT.saturating_mul(subject.attempts - 1));
        let mut guest = options.guest(kernel, &[subject.memory], Some(&command), Some(limit))?;
        let mut archive = Archive::new();
        archive.file(SCENARIO_PATH, 0o644, source.text.as_str())?;
        append(&mut guest.spec.run.request, &archive.to_bytes()?);
        Ok(Self { subject, accelerator, spec: guest.spec, cold: options.is_cold(), traces })
    }

    /// Runs the guest, and judges what it shows. `None` if the user interrupts it.
    pub fn run(self) -> Option<Trial> {
        let subject = self.subject.clone();
        match self.try_run() {
            Ok(trial) => trial,
            Err(error) => Some(Trial::not_run(subject, chain(error.as_ref()).to_string())),
        }
    }

    fn try_run(mut self) -> Result<Option<Trial>, CommandError> {
        let scratch = tempfile::tempdir()?;
        let folder = self.traces.as_deref().unwrap_or(scratch.path());
        fs::create_dir_all(folder)
            .map_err(|error| format!("--trace names a folder, and {} is not one: {error}", folder.display()))?;
        let logs: Vec<WrittenPath> =
            (0..self.spec.run.devices.len()).map(|gpu| log_path(folder, &self.subject, gpu)).collect();
        for (gpu, log) in self.spec.run.devices.iter_mut().zip(&logs) {
            gpu.trace = Some(log.clone());
        }
        let evidence = Evidence::default();
        let connection = Connection {
            sink: Some(Box::new(evidence.clone())),
            interactive: false,
            keys: false,
            verbatim: false,
            cold: self.cold,
            control: None,
            progress: Box::new(say),
        };
        let started = Instant::now();
        let (outcome, log) = launch(&self.spec, self.accelerator, connection)?;
        let took = started.elapsed();
        if outcome == Outcome::Interrupted {
            return Ok(None);
        }
        let shown = evidence.take();
        if shown.attempts.is_empty() && shown.unavailable.is_none() {
            return Ok(Some(Trial::not_run(self.subject, why_nothing(&outcome, &log))));
        }
        Ok(Some(Trial::new(self.subject, shown, &outcome, traced(&logs), took)))
    }
}

/// The log of one GPU of a subject.
fn log_path(folder: &Path, subject: &Subject, gpu: usize) -> WrittenPath {
    let Subject { scenario, kernel, memory, .. } = subject;
    let kernel = kernel.replace('/', "_");
    let path = WrittenPath::from(folder.join(format!("{scenario}-{kernel}-{}.trace", memory.name())));
    if gpu == 0 { path } else { path.with_suffix(&format!("gpu{gpu}")) }
}

/// Reads the logs of a guest's devices. The order of steps is in that of the first.
fn traced(logs: &[WrittenPath]) -> Traced {
    let mut traced = Traced::default();
    for (index, path) in logs.iter().enumerate() {
        let read = TraceFile::open(path).and_then(|file| {
            let broken = Checker::check(&file)?.findings;
            let interleavings = if index == 0 { interleaving::of_trace(&file)? } else { Default::default() };
            Ok((broken, interleavings))
        });
        match read {
            Ok((broken, interleavings)) if index == 0 => {
                traced.broken = broken;
                traced.interleavings = interleavings;
            }
            Ok((broken, _)) => traced.broken.extend(broken),
            Err(error) => traced.failure = Some(chain(&error).to_string()),
        }
    }
    traced
}

/// Why a guest's console has nothing of a scenario.
fn why_nothing(outcome: &Outcome, log: &ConsoleLog) -> String {
    const LAST_LINES: usize = 3;
    let end = report::text(outcome, log)
        .unwrap_or_else(|| format!("the runner ended with status {} before it began", outcome.status()));
    let lines: Vec<String> = log.last(usize::MAX).into_iter().filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    if last.is_empty() { end } else { format!("{end}; the console ends with: {}", last.join(" | ")) }
}

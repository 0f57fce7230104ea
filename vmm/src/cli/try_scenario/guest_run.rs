// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Running the guest of one trial, or of many: what it boots with, what it brings, and where its log goes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ersatz_device_model::trace::TraceFile;
use ersatz_device_model::trace::check::Checker;
use ersatz_guest_image::error_chain::chain;
use ersatz_guest_image::initramfs::Archive;
use ersatz_guest_image::run::{SCENARIO_PATH, TESTS_PATH, append};
use ersatz_scenario::Guest;

use super::evidence::{Collected, Evidence};
use super::interleaving;
use super::source::Source;
use super::trial::{Subject, Traced, Trial};
use crate::accel::accelerator::Accelerator;
use crate::cli::CommandError;
use crate::cli::artifacts::KernelChoice;
use crate::cli::guest::{GuestOptions, Mode};
use crate::cli::report::{self, say};
use crate::console::log::ConsoleLog;
use crate::launch::{Connection, launch};
use crate::outcome::Outcome;
use crate::spec::{GuestSpec, WrittenPath};

/// How long a guest may run for its first attempt, and for each further one. The runner has deadlines of its own; this is for a
/// kernel that hangs, and long enough for one that reports a soft lockup first.
const FIRST_ATTEMPT: Duration = Duration::from_secs(120);
const FURTHER_ATTEMPT: Duration = Duration::from_secs(20);

/// A guest that is ready to try scenarios.
#[derive(Debug)]
pub struct TryGuest<'a> {
    /// What it runs on.
    accelerator: &'a Accelerator,
    /// What to run.
    spec: GuestSpec,
    /// Whether it boots though it could start from a snapshot.
    cold: bool,
    /// The folder in which the logs of its devices are kept; `None` if they are not.
    traces: Option<WrittenPath>,
}

/// What scenarios are tried on: kernel, options, accelerator.
#[derive(Clone, Copy, Debug)]
pub struct Testbed<'a> {
    /// The kernel; `None` for the default one.
    pub kernel: Option<&'a KernelChoice>,
    /// What a guest is like, unless its scenario says otherwise.
    pub options: &'a GuestOptions,
    /// What guests run on.
    pub accelerator: &'a Accelerator,
}

/// What the guest is for: the runner's arguments and the files that it reads.
#[derive(Debug)]
pub struct Errand<'a> {
    /// The memory type of VRAM.
    pub memory: Mode,
    /// The arguments of the runner in the guest.
    pub arguments: Vec<String>,
    /// Files, by their paths in the guest.
    pub files: Vec<(String, &'a str)>,
    /// Whether a scenario holds the device, which takes its control window.
    pub holds_device: bool,
    /// How long the guest may run.
    pub limit: Duration,
}

/// What a guest has shown.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub outcome: Outcome,
    /// What its console has of scenarios.
    pub shown: Collected,
    /// What the logs of its devices have.
    pub traced: Traced,
    /// How long it took, from the start of the machine.
    pub took: Duration,
    console: ConsoleLog,
}

impl Ran {
    /// Why the console has nothing of a scenario, if it has nothing.
    pub fn why_nothing(&self) -> Option<String> {
        let nothing = self.shown.attempts.is_empty() && self.shown.unavailable.is_none();
        nothing.then(|| why_nothing(&self.outcome, &self.console))
    }
}

impl<'a> TryGuest<'a> {
    /// Returns a guest: the options of the testbed, with what the scenario needs in place of what they say.
    ///
    /// # Errors
    ///
    /// Fails if something to boot is missing, or the options contradict each other.
    pub fn new(testbed: &Testbed<'a>, wanted: &Guest, errand: &Errand<'_>) -> Result<Self, CommandError> {
        let mut options = testbed.options.clone();
        options.gpu.vram = wanted.vram.unwrap_or(options.gpu.vram);
        options.gpu.control_window |= errand.holds_device;
        let traces = options.gpu.trace.take();
        options.resources.vcpus = wanted.vcpus.unwrap_or(options.resources.vcpus);
        options.resources.memory = wanted.ram.unwrap_or(options.resources.memory);
        let driver_words = wanted.driver_args.iter().map(|word| format!("ersatz.{word}"));
        let words =
            options.kernel_args.take().into_iter().chain(wanted.kernel_args.iter().cloned()).chain(driver_words);
        options.kernel_args = Some(words.collect::<Vec<_>>().join(" "));
        let command: Vec<String> =
            std::iter::once(TESTS_PATH.to_owned()).chain(errand.arguments.iter().cloned()).collect();
        let mut guest = options.guest(testbed.kernel, &[errand.memory], Some(&command), Some(errand.limit))?;
        let mut archive = Archive::new();
        for (path, text) in &errand.files {
            archive.file(path, 0o644, *text)?;
        }
        append(&mut guest.spec.run.request, &archive.to_bytes()?);
        Ok(Self { accelerator: testbed.accelerator, spec: guest.spec, cold: options.is_cold(), traces })
    }

    /// Runs the guest. `None` if the user interrupts it. `name` is that of its log, if logs are kept.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be run.
    pub fn run(mut self, name: &str) -> Result<Option<Ran>, CommandError> {
        let scratch = tempfile::tempdir()?;
        let folder = self.traces.as_deref().unwrap_or(scratch.path());
        fs::create_dir_all(folder)
            .map_err(|error| format!("--trace names a folder, and {} is not one: {error}", folder.display()))?;
        let logs: Vec<WrittenPath> = (0..self.spec.run.devices.len()).map(|gpu| log_path(folder, name, gpu)).collect();
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
            collect: None,
            shares: Vec::new(),
            progress: Box::new(say),
        };
        let started = Instant::now();
        let (outcome, console) = launch(&self.spec, self.accelerator, connection)?;
        let took = started.elapsed();
        if outcome == Outcome::Interrupted {
            return Ok(None);
        }
        Ok(Some(Ran { outcome, shown: evidence.take(), traced: traced(&logs), took, console }))
    }
}

/// One scenario, and the guest that is ready to try it.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What the guest is for.
    subject: Subject,
    guest: TryGuest<'a>,
}

impl<'a> Plan<'a> {
    /// Returns the guest for a scenario.
    ///
    /// # Errors
    ///
    /// As [`TryGuest::new`].
    pub fn new(testbed: &Testbed<'a>, source: &Source, subject: Subject) -> Result<Self, CommandError> {
        let attempts = subject.attempts.to_string();
        let errand = Errand {
            memory: subject.memory,
            arguments: ["--scenario", SCENARIO_PATH, "--repeat", &attempts].map(str::to_owned).into(),
            files: vec![(SCENARIO_PATH.to_owned(), source.text.as_str())],
            holds_device: source.scenario.holds_device(),
            limit: FIRST_ATTEMPT.saturating_add(FURTHER_ATTEMPT.saturating_mul(subject.attempts - 1)),
        };
        let guest = TryGuest::new(testbed, &source.scenario.guest, &errand)?;
        Ok(Self { subject, guest })
    }

    /// Runs the guest, and judges what it shows. `None` if the user interrupts it.
    pub fn run(self) -> Option<Trial> {
        let Self { subject, guest } = self;
        match guest.run(&subject.file_name()) {
            Ok(Some(ran)) => Some(match ran.why_nothing() {
                Some(reason) => Trial::not_run(subject, reason),
                None => Trial::new(subject, ran.shown, &ran.outcome, ran.traced, ran.took),
            }),
            Ok(None) => None,
            Err(error) => Some(Trial::not_run(subject, chain(error.as_ref()).to_string())),
        }
    }
}

/// The log of one GPU of a guest.
fn log_path(folder: &Path, name: &str, gpu: usize) -> WrittenPath {
    let path = WrittenPath::from(folder.join(format!("{name}.trace")));
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

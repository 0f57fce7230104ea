// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz test --isolated`: each test in a guest of its own, several guests side by side.
//!
//! Guests that start from a snapshot are cheap enough. What a test does to its kernel it does to no other test: a guest that
//! panics or hangs is one test that failed. Results are reported in the order in which tests end.

use std::fs;
use std::io;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use ersatz_guest_image::error_chain::chain;

use super::collector::{Collector, Step, cause, describe};
use super::result::{Cause, TestResult, Verdict};
use super::session::Session;
use super::{FAIL, LIMIT, PASS, SKIP, TestOptions};
use crate::accel::accelerator::Accelerator;
use crate::cli::CommandError;
use crate::cli::guest::Mode;
use crate::cli::report::say;
use crate::console::log::{ConsoleLog, clean};
use crate::console::recorder::Recorder;
use crate::launch::{Connection, launch};
use crate::outcome::Outcome;
use crate::spec::WrittenPath;
use crate::threads::{Role, spawn_scoped};

/// What the tests run on, and where their results go.
struct Runs<'a> {
    options: &'a TestOptions,
    mode: Mode,
    accelerator: &'a Accelerator,
    names: &'a [String],
    next: AtomicUsize,
    session: &'a Session,
    interrupted: AtomicBool,
    has_failed: AtomicBool,
}

/// Runs the tests `names`. Returns how that ended, apart from what the session counts.
pub(super) fn run(
    options: &TestOptions,
    mode: Mode,
    names: &[String],
    session: &Session,
) -> Result<Outcome, CommandError> {
    if let Some(folder) = &options.guest.gpu.trace {
        fs::create_dir_all(folder).map_err(|error| {
            format!("with --isolated, --trace names a folder, and {} is not one: {error}", folder.display())
        })?;
    }
    let manifest = options.guest.guest(options.kernel.kernel.as_ref(), &[mode], None, LIMIT)?.manifest;
    let accelerator = options.guest.accelerator(manifest.as_ref())?;
    let count = names.len() * options.repeat as usize;
    let runs = Runs {
        options,
        mode,
        accelerator: &accelerator,
        names,
        next: AtomicUsize::new(0),
        session,
        interrupted: AtomicBool::new(false),
        has_failed: AtomicBool::new(false),
    };
    let workers = options.jobs.map_or_else(|| thread::available_parallelism().map_or(1, NonZero::get), usize::from);
    thread::scope(|scope| {
        let count = u8::try_from(workers.min(count)).unwrap_or(u8::MAX);
        let spawned = (0..count).map(|number| spawn_scoped(scope, Role::TestWorker(number), || runs.work()));
        let workers = spawned.collect::<io::Result<Vec<_>>>()?;
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
    .map_err(|error| -> CommandError { error })?;
    if runs.interrupted.into_inner() {
        return Ok(Outcome::Interrupted);
    }
    let counts = session.counts();
    Ok(Outcome::Exited(match (counts.failed, counts.passed) {
        (0, 0) => SKIP,
        (0, _) => PASS,
        _ => FAIL,
    }))
}

impl Runs<'_> {
    /// Returns the next test to run, and its round.
    fn next(&self) -> Option<(&str, u32)> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let round = u32::try_from(index / self.names.len()).ok().filter(|round| *round < self.options.repeat)?;
        Some((&self.names[index % self.names.len()], round))
    }

    /// Runs tests one after the other until there are no more.
    fn work(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        while let Some((name, round)) = self.next() {
            if self.interrupted.load(Ordering::Relaxed) {
                return Ok(());
            }
            let mut collector = Collector::new(self.mode);
            if self.options.fail_fast && self.has_failed.load(Ordering::Relaxed) {
                let reason = "not run after a test that failed".to_owned();
                self.session.ended(collector.with_verdict(name, Verdict::Skipped(reason), None), None)?;
                continue;
            }
            self.session.started(name);
            let result = match self.guest_run(name, round) {
                Ok((Outcome::Interrupted, ..)) => {
                    self.interrupted.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Ok((outcome, console, log)) => result(name, &mut collector, &outcome, &console, &log),
                // A guest that could not be run fails this test only.
                Err(error) => {
                    let mut result = collector.with_verdict(name, Verdict::Failed(Cause::GuestEnded), None);
                    result.details.push(chain(error.as_ref()).to_string());
                    result
                }
            };
            if result.cause().is_some() {
                self.has_failed.store(true, Ordering::Relaxed);
            }
            self.session.ended(result, collector.seed())?;
        }
        Ok(())
    }

    /// Runs a guest, and returns the whole output of its console.
    fn guest_run(&self, name: &str, round: u32) -> Result<(Outcome, String, ConsoleLog), CommandError> {
        let options = self.options;
        let mut spec = options.guest(self.mode, &[name.to_owned()], u64::from(round))?.spec;
        for (gpu, index) in spec.run.devices.iter_mut().zip(0u8..) {
            gpu.control_window = true;
            gpu.trace =
                options.guest.gpu.trace.as_ref().map(|folder| trace_path(folder, (name, round), self.mode, index));
        }
        let console = Recorder::default();
        let connection = Connection {
            sink: Some(Box::new(console.clone())),
            interactive: false,
            keys: false,
            verbatim: false,
            cold: options.guest.is_cold(),
            // Several guests run side by side.
            control: None,
            collect: None,
            shares: Vec::new(),
            progress: Box::new(say),
        };
        let (outcome, log) = launch(&spec, self.accelerator, connection)?;
        Ok((outcome, String::from_utf8_lossy(&console.take()).into_owned(), log))
    }
}

/// The trace of one GPU of one test; rounds after the first have a number.
fn trace_path(folder: &Path, (test, round): (&str, u32), mode: Mode, gpu: u8) -> WrittenPath {
    let name = if round == 0 { format!("{test}.trace") } else { format!("{test}-{round}.trace") };
    mode.beside(&WrittenPath::from(folder.join(name)).with_suffix(&format!("gpu{gpu}")))
}

/// Returns the result of a test whose guest has ended.
fn result(name: &str, collector: &mut Collector, outcome: &Outcome, console: &str, log: &ConsoleLog) -> TestResult {
    let steps = console.lines().filter_map(|line| collector.take(&clean(line.as_bytes())));
    let mut results = steps.filter_map(|step| if let Step::Ended(result) = step { Some(result) } else { None });
    let reported = results.next();
    let Some(mut result) = reported.or_else(|| collector.unfinished(outcome, log)) else {
        return collector.without_result(name, outcome, log);
    };
    // The guest's own status takes precedence: its kernel may have complained, or the guest not have ended.
    if result.verdict == Verdict::Passed && *outcome != Outcome::Exited(PASS) {
        result.verdict = Verdict::Failed(cause(outcome));
        result.details.push(describe(outcome, log));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = "[ 1.0] hello\nKTAP version 1\n1..1\n# seed 0x1\n# started a.b\nok 1 a.b\n# Totals: pass:1\n";

    fn result_of(outcome: &Outcome, console: &str) -> TestResult {
        result("a.b", &mut Collector::new(Mode::Private), outcome, console, &ConsoleLog::new())
    }

    #[test]
    fn a_result_is_taken_from_its_guest() {
        assert_eq!(result_of(&Outcome::Exited(0), PASSED).verdict, Verdict::Passed);
        let skipped = result_of(&Outcome::Exited(4), "KTAP version 1\nok 1 a.b # SKIP no GPU\n");
        assert_eq!(skipped.verdict, Verdict::Skipped("no GPU".to_owned()));
        let failed = result_of(&Outcome::Exited(1), "KTAP version 1\n[ 2.0] x\n# why\nnot ok 1 a.b\n");
        assert_eq!(failed.verdict, Verdict::Failed(Cause::Check));
        assert_eq!((failed.details, failed.console), (vec!["why".to_owned()], vec!["[ 2.0] x".to_owned()]));
    }

    #[test]
    fn a_pass_in_a_guest_that_ended_badly_does_not_count() {
        let result = result_of(&Outcome::Splat("[ 2.0] WARNING: x".to_owned()), PASSED);
        assert_eq!(result.verdict, Verdict::Failed(Cause::KernelComplaint));
        assert!(result.details[0].contains("WARNING: x"), "{result:?}");
    }

    #[test]
    fn a_guest_without_a_result_is_a_failure_that_shows_its_last_lines() {
        let log = ConsoleLog::new();
        log.push(b"[ 2.0] Kernel panic - not syncing: why\n");
        let mut collector = Collector::new(Mode::Private);
        let result = result("a.b", &mut collector, &Outcome::Panicked, "KTAP version 1\n1..1\n", &log);
        assert_eq!(result.verdict, Verdict::Failed(Cause::GuestPanicked));
        assert!(result.details.last().unwrap().starts_with("[ 2.0] Kernel panic"), "{result:?}");
    }

    #[test]
    fn each_test_has_traces_of_its_own() {
        let path = trace_path(Path::new("t"), ("fork.child_first", 0), Mode::Private, 1);
        assert_eq!(&*path, Path::new("t/fork.child_first-gpu1-private.trace"));
        let path = trace_path(Path::new("t"), ("fork.child_first", 2), Mode::Private, 1);
        assert_eq!(&*path, Path::new("t/fork.child_first-2-gpu1-private.trace"));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz test --isolated`: each test in a guest of its own, several guests side by side.
//!
//! Guests that start from a snapshot are cheap enough. What a test does to its kernel it does to no other test: a guest that
//! panics or hangs is one test that failed. Out of the reports of all the guests this makes one, in the order in which tests end.

use std::fs;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use ersatz_guest_image::error_chain::chain;

use super::ktap::{Line, Verdict};
use super::report::Report;
use super::{LIMIT, PROGRAM, TestOptions};
use crate::accel::accelerator::Accelerator;
use crate::cli::CommandError;
use crate::cli::guest::Mode;
use crate::cli::report::{self, say};
use crate::console::log::ConsoleLog;
use crate::console::recorder::Recorder;
use crate::launch::{Connection, launch};
use crate::outcome::Outcome;
use crate::spec::WrittenPath;
use crate::threads::{Role, spawn_scoped};

/// Lines of a guest's console to show with a test that has no result.
const LAST_LINES: usize = 30;

/// What the tests run on, and where their results go.
struct Runs<'a> {
    options: &'a TestOptions,
    mode: Mode,
    accelerator: &'a Accelerator,
    names: &'a [String],
    next: AtomicUsize,
    done: Mutex<(usize, Report)>,
    interrupted: AtomicBool,
}

/// Runs the tests that the options select. Returns how that ended, apart from what the report counts.
pub(super) fn run(options: &TestOptions, mode: Mode, report: &Report) -> Result<Outcome, CommandError> {
    if let Some(folder) = &options.guest.gpu.trace {
        fs::create_dir_all(folder).map_err(|error| {
            format!("with --isolated, --trace names a folder, and {} is not one: {error}", folder.display())
        })?;
    }
    let manifest = options.guest.guest(options.kernel.kernel.as_ref(), &[mode], None, LIMIT)?.manifest;
    let accelerator = options.guest.accelerator(manifest.as_ref())?;
    let names = match list(options, mode, &accelerator)? {
        Ok(names) => names,
        Err(outcome) => return Ok(outcome),
    };
    let mut out = report.clone();
    writeln!(out, "KTAP version 1\n1..{}", names.len())?;
    let runs = Runs {
        options,
        mode,
        accelerator: &accelerator,
        names: &names,
        next: AtomicUsize::new(0),
        done: Mutex::new((0, out)),
        interrupted: AtomicBool::new(false),
    };
    let workers = options.jobs.map_or_else(|| thread::available_parallelism().map_or(1, NonZero::get), usize::from);
    thread::scope(|scope| {
        let count = u8::try_from(workers.min(names.len())).unwrap_or(u8::MAX);
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
    let counts = report.counts();
    Ok(Outcome::Exited(match (counts.failed, counts.passed) {
        (0, 0) => super::SKIP,
        (0, _) => super::PASS,
        _ => super::FAIL,
    }))
}

/// Returns the names of the tests, as a guest has them; or how that guest ended, which is then reported.
fn list(
    options: &TestOptions,
    mode: Mode,
    accelerator: &Accelerator,
) -> Result<Result<Vec<String>, Outcome>, CommandError> {
    let mut words = vec![PROGRAM.to_owned(), "--list".to_owned()];
    words.extend(options.filter.iter().cloned());
    let (outcome, console, log) = guest_run(options, mode, accelerator, &words, None)?;
    if outcome != Outcome::Exited(0) {
        report::ending(&outcome, &log, report::Shown::Not);
        return Ok(Err(outcome));
    }
    // A name has no blanks; messages of the kernel in between have.
    let is_name = |line: &&str| line.contains('.') && !line.contains(char::is_whitespace);
    Ok(Ok(console.lines().map(str::trim).filter(is_name).map(str::to_owned).collect()))
}

/// Runs a guest, and returns the whole output of its console.
fn guest_run(
    options: &TestOptions,
    mode: Mode,
    accelerator: &Accelerator,
    words: &[String],
    test: Option<&str>,
) -> Result<(Outcome, String, ConsoleLog), CommandError> {
    let mut spec = options.guest.guest(options.kernel.kernel.as_ref(), &[mode], Some(words), LIMIT)?.spec;
    for (gpu, index) in spec.run.devices.iter_mut().zip(0u8..) {
        gpu.control_window = true;
        gpu.trace = match (&options.guest.gpu.trace, test) {
            (Some(folder), Some(test)) => Some(trace_path(folder, test, mode, index)),
            _ => None,
        };
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
        progress: Box::new(say),
    };
    let (outcome, log) = launch(&spec, accelerator, connection)?;
    Ok((outcome, String::from_utf8_lossy(&console.take()).into_owned(), log))
}

/// The trace of one GPU of one test.
fn trace_path(folder: &Path, test: &str, mode: Mode, gpu: u8) -> WrittenPath {
    let path = WrittenPath::from(folder.join(format!("{test}.trace")));
    mode.beside(&path.with_suffix(&format!("gpu{gpu}")))
}

impl Runs<'_> {
    /// Runs tests one after the other until there are no more.
    fn work(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        while let Some(name) = self.names.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.interrupted.load(Ordering::Relaxed) {
                return Ok(());
            }
            let words = [PROGRAM, "--exact", name].map(str::to_owned);
            let run = guest_run(self.options, self.mode, self.accelerator, &words, Some(name));
            // A guest that could not be run fails this test only.
            let text = match run {
                Ok((Outcome::Interrupted, ..)) => {
                    self.interrupted.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Ok((outcome, console, log)) => result(name, &outcome, &console, &log),
                Err(error) => failure(name, &[chain(error.as_ref()).to_string()]),
            };
            self.report(&text)?;
        }
        Ok(())
    }

    /// Adds a test to the report. Its result has no number yet.
    fn report(&self, text: &str) -> io::Result<()> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.0 += 1;
        let number = done.0;
        for line in text.lines() {
            match line.split_once(NUMBER) {
                Some((before, after)) => writeln!(done.1, "{before}{number}{after}")?,
                None => writeln!(done.1, "{line}")?,
            }
        }
        done.1.flush()
    }
}

/// Stands for the number of a result.
const NUMBER: &str = "\u{1}";

/// The lines of the report for a test whose guest has ended.
fn result(name: &str, outcome: &Outcome, console: &str, log: &ConsoleLog) -> String {
    let mut text = String::new();
    let mut found = false;
    // Before the report are messages of the boot.
    for line in console.lines().skip_while(|line| Line::parse(line) != Line::Version) {
        match Line::parse(line) {
            Line::Result { verdict, .. } if !found => {
                found = true;
                let (word, note) = match verdict {
                    // The guest's own status takes precedence: its kernel may have complained, or the guest not have ended.
                    Verdict::Passed if *outcome != Outcome::Exited(0) => {
                        return text + &failure(name, &[describe(outcome, log)]);
                    }
                    Verdict::Passed => ("ok", String::new()),
                    Verdict::Failed => ("not ok", String::new()),
                    Verdict::Skipped(reason) => ("ok", format!(" # SKIP {reason}")),
                };
                text.push_str(&format!("{word} {NUMBER} {name}{note}\n"));
            }
            Line::Diagnostic(explanation) if !found => text.push_str(&format!("# {explanation}\n")),
            Line::Other(said) if !found && !said.trim().is_empty() => text.push_str(&format!("{said}\n")),
            _ => {}
        }
    }
    if found {
        return text;
    }
    let mut reasons = log.last(LAST_LINES);
    reasons.push(describe(outcome, log));
    failure(name, &reasons)
}

fn describe(outcome: &Outcome, log: &ConsoleLog) -> String {
    report::text(outcome, log).unwrap_or_else(|| format!("the guest ended with exit status {}", outcome.status()))
}

fn failure(name: &str, reasons: &[String]) -> String {
    let explained: Vec<String> =
        reasons.iter().flat_map(|reason| reason.lines()).map(|line| format!("# {line}\n")).collect();
    format!("{}not ok {NUMBER} {name}\n", explained.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = "[ 1.0] hello\nKTAP version 1\n1..1\n# seed 0x1\nok 1 a.b\n# Totals: pass:1\n";

    #[test]
    fn a_result_is_taken_from_its_guest() {
        let log = ConsoleLog::new();
        let text = result("a.b", &Outcome::Exited(0), PASSED, &log);
        assert_eq!(text, format!("# seed 0x1\nok {NUMBER} a.b\n"));
        let skipped = result("a.b", &Outcome::Exited(4), "KTAP version 1\nok 1 a.b # SKIP no GPU\n", &log);
        assert_eq!(skipped, format!("ok {NUMBER} a.b # SKIP no GPU\n"));
        let failed = result("a.b", &Outcome::Exited(1), "KTAP version 1\n[ 2.0] x\n# why\nnot ok 1 a.b\n", &log);
        assert_eq!(failed, format!("[ 2.0] x\n# why\nnot ok {NUMBER} a.b\n"));
    }

    #[test]
    fn a_pass_in_a_guest_that_ended_badly_does_not_count() {
        let log = ConsoleLog::new();
        let splat = Outcome::Splat("[ 2.0] WARNING: x".to_owned());
        let text = result("a.b", &splat, PASSED, &log);
        assert!(text.ends_with(&format!("not ok {NUMBER} a.b\n")) && text.contains("WARNING: x"), "{text}");
    }

    #[test]
    fn a_guest_without_a_result_is_a_failure_that_shows_its_last_lines() {
        let log = ConsoleLog::new();
        log.push(b"[ 2.0] Kernel panic - not syncing: why\n");
        let text = result("a.b", &Outcome::Panicked, "KTAP version 1\n1..1\n", &log);
        assert!(
            text.starts_with("# [ 2.0] Kernel panic") && text.ends_with(&format!("not ok {NUMBER} a.b\n")),
            "{text}"
        );
    }

    #[test]
    fn each_test_has_traces_of_its_own() {
        let path = trace_path(Path::new("t"), "fork.child_first", Mode::Private, 1);
        assert_eq!(&*path, Path::new("t/fork.child_first-gpu1-private.trace"));
    }
}

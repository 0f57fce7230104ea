// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz test`: boots a guest and runs the guest-side tests in it, once for each memory type.
//!
//! [`ktap`] reads what the tests report, [`report`] shows it.

mod isolated;
pub mod ktap;
pub mod report;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::{Args, Command, ValueEnum};
use ersatz_guest_image::run::TESTS_PATH;

use self::ktap::Counts;
use self::report::{Report, Style};
use super::CommandError;
use super::guest::{GuestOptions, KernelOption, Mode};
use super::report::{self as ending, Shown, say};
use crate::launch::{Connection, launch};
use crate::outcome::{Outcome, STATUS_FAILED};

/// The tests, in the guest.
const PROGRAM: &str = TESTS_PATH;

/// How long a guest may run: twice what the full suite takes under emulation twice over on a busy machine.
const LIMIT: Option<Duration> = Some(Duration::from_secs(3600));

/// VRAM of each GPU, unless `--vram` says otherwise: the tests can fill it in acceptable time. With more VRAM they skip those
/// that do.
const VRAM: &str = "256M";

/// Exit status when all tests passed.
const PASS: u8 = 0;
/// Exit status when a test failed.
const FAIL: u8 = 1;
/// Exit status when no test was run.
const SKIP: u8 = 4;

/// Run the guest-side tests, in one boot for each memory type
///
/// Exit status: 0 all passed, 1 one failed, 4 all were skipped; else as for `ersatz run`.
#[derive(Debug, Args)]
pub struct TestOptions {
    #[command(flatten)]
    kernel: KernelOption,
    #[command(flatten)]
    pub(super) guest: GuestOptions,
    /// Memory types to run the tests with, each in a guest of its own
    #[arg(
        long,
        value_name = "MODE[,MODE...]",
        value_enum,
        value_delimiter = ',',
        default_values = ["private", "coherent"],
        help_heading = "Tests"
    )]
    mode: Vec<Mode>,
    /// List the tests instead of running them
    #[arg(long, help_heading = "Tests")]
    list: bool,
    /// Give each test a guest of its own, several side by side; with --trace DIR each has its own log there
    #[arg(long, conflicts_with_all = ["list", "control"], help_heading = "Tests")]
    isolated: bool,
    /// How many guests run side by side with --isolated [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64), requires = "isolated", help_heading = "Tests")]
    jobs: Option<u8>,
    /// How to report
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "human", help_heading = "Tests")]
    format: Format,
    /// Run only tests whose name contains one of these
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
}

/// Changes the defaults of options that all guests have to those of tests.
pub fn with_defaults(command: Command) -> Command {
    command.mut_arg("vram", |vram| vram.default_value(VRAM))
}

/// How results are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line per test, and a summary.
    Human,
    /// KTAP version 1; with several memory types one subtest for each.
    Ktap,
}

/// Runs the tests; returns the exit status.
///
/// # Errors
///
/// Fails if a guest cannot be run at all.
pub fn run(options: &TestOptions) -> Result<u8, CommandError> {
    // A list does not depend on the memory type.
    let modes = if options.list { &options.mode[..1] } else { &options.mode[..] };
    let nested = modes.len() > 1;
    let in_ktap = options.format == Format::Ktap && !options.list;
    if in_ktap && nested {
        writeln!(io::stdout(), "KTAP version 1\n1..{}", modes.len())?;
    }
    let mut statuses = Vec::new();
    for (number, mode) in (1..).zip(modes) {
        let status = run_in_mode(options, *mode, Style::of(options.format, options.list, nested))?;
        if in_ktap && nested {
            let (verdict, note) = match status {
                PASS => ("ok", ""),
                SKIP => ("ok", " # SKIP all tests were skipped"),
                _ => ("not ok", ""),
            };
            writeln!(io::stdout(), "{verdict} {number} {}{note}", mode.name())?;
        }
        statuses.push(status);
        // Any other end is a failure of the machine, not of the memory type.
        if !matches!(status, PASS | FAIL | SKIP) {
            break;
        }
    }
    Ok(combined(&statuses))
}

/// Runs the tests in one guest, or each in a guest of its own.
fn run_in_mode(options: &TestOptions, mode: Mode, style: Style) -> Result<u8, CommandError> {
    let report = Report::new(Box::new(io::stdout()), style);
    let started = Instant::now();
    let outcome = if options.isolated {
        isolated::run(options, mode, &report)?
    } else {
        run_in_one_guest(options, mode, &report)?
    };
    let counts = report.counts();
    if style == Style::Human {
        let Counts { passed, failed, skipped, .. } = counts;
        let seconds = started.elapsed().as_secs_f32();
        writeln!(
            io::stdout(),
            "{}: {passed} passed, {failed} failed, {skipped} skipped in {seconds:.1} s",
            mode.name()
        )?;
    }
    Ok(if options.list { outcome.status() } else { status(&outcome, counts) })
}

/// Boots a guest, or restores one, and runs all the tests in it.
fn run_in_one_guest(options: &TestOptions, mode: Mode, report: &Report) -> Result<Outcome, CommandError> {
    let mut words = vec![PROGRAM.to_owned()];
    if options.list {
        words.push("--list".to_owned());
    }
    words.extend(options.filter.iter().cloned());
    let mut guest = options.guest.guest(options.kernel.kernel.as_ref(), &[mode], Some(&words), LIMIT)?;
    for gpu in &mut guest.spec.run.devices {
        // Some tests have the device hold or fail.
        gpu.control_window = true;
        if options.mode.len() > 1 {
            gpu.trace = gpu.trace.take().map(|path| mode.beside(&path));
        }
    }
    let accelerator = options.guest.accelerator(guest.manifest.as_ref())?;
    let connection = Connection {
        sink: Some(Box::new(report.clone())),
        interactive: false,
        keys: false,
        verbatim: false,
        cold: options.guest.is_cold(),
        control: options.guest.control.clone(),
        progress: Box::new(say),
    };
    let (outcome, log) = launch(&guest.spec, &accelerator, connection)?;
    ending::ending(&outcome, &log, Shown::Not);
    Ok(outcome)
}

/// Returns the status of one guest: its own, unless its report contradicts that.
fn status(outcome: &Outcome, counts: Counts) -> u8 {
    match outcome {
        // `ersatz-guest-tests` reports a filter that fits no test itself; there is no report then.
        Outcome::Exited(PASS | FAIL | SKIP) if counts.planned.is_some() && !counts.is_complete() => {
            say(&format!("{} of {:?} planned tests have a result", counts.results(), counts.planned));
            STATUS_FAILED
        }
        Outcome::Exited(PASS) if counts.failed > 0 || counts.passed == 0 => {
            say("the tests' exit status is that of success, but their report has failures or no passes");
            STATUS_FAILED
        }
        outcome => outcome.status(),
    }
}

/// Returns one status for several guests: the first that is not a result of tests, else failed, else passed, else skipped.
fn combined(statuses: &[u8]) -> u8 {
    let other = statuses.iter().find(|status| !matches!(**status, PASS | FAIL | SKIP));
    let rank = [FAIL, PASS, SKIP].into_iter().find(|status| statuses.contains(status));
    other.copied().or(rank).unwrap_or(SKIP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_several_guests_counts() {
        assert_eq!(combined(&[PASS, SKIP]), PASS);
        assert_eq!(combined(&[SKIP, SKIP]), SKIP);
        assert_eq!(combined(&[FAIL, PASS]), FAIL);
        assert_eq!(combined(&[FAIL, 121]), 121);
    }

    #[test]
    fn a_report_that_broke_off_is_no_pass() {
        let counts = Counts { planned: Some(3), passed: 2, failed: 0, skipped: 0 };
        assert_eq!(status(&Outcome::Exited(PASS), counts), STATUS_FAILED);
        let counts = Counts { passed: 3, ..counts };
        assert_eq!(status(&Outcome::Exited(PASS), counts), PASS);
        assert_eq!(status(&Outcome::Exited(PASS), Counts::default()), STATUS_FAILED);
        assert_eq!(status(&Outcome::Panicked, counts), Outcome::Panicked.status());
    }
}

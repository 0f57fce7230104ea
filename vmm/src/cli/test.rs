// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz test`: boots a guest and runs the guest-side tests in it, or the kernel's own, once for each memory type.
//!
//! [`suite`] says which of the two. [`list`] has the names of the tests, [`selection`] those to run. [`ktap`] reads lines of a guest's console, [`collector`] makes
//! results of them, [`session`] passes these on to a [`reporter`].

mod collector;
mod isolated;
mod ktap;
mod list;
mod progress;
mod reporter;
mod rerun;
mod result;
mod selection;
mod session;
mod suite;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Args, Command};
use ersatz_guest_image::run::TESTS_PATH;

use self::progress::StatusLine;
use self::reporter::{Both, Format, Reporter};
use self::rerun::Rerun;
use self::result::Counts;
use self::selection::Selection;
use self::session::{Console, Session};
use self::suite::{Driver, Suite};
use super::CommandError;
use super::artifacts;
use super::guest::{Guest, GuestOptions, KernelOption, Mode};
use super::report::{self as ending, Shown, say};
use crate::launch::{Connection, launch};
use crate::outcome::{Outcome, STATUS_FAILED, STATUS_USAGE};

/// The tests, in the guest.
const PROGRAM: &str = TESTS_PATH;

/// How long a guest may run: twice what the full suite takes under emulation twice over on a busy machine.
const LIMIT: Option<Duration> = Some(Duration::from_secs(3600));

/// How long its console may be silent: while a test runs, its runner gives a sign of life every 20 seconds.
const SILENCE: Duration = Duration::from_secs(180);

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
    /// Which tests.
    #[command(flatten)]
    selection: Selection,
    /// Driver that the kernel's own tests (`ersatz test hmm-tests`) are about: this one, or the kernel's test driver [default: ersatz]
    #[arg(long, value_name = "DRIVER", value_enum, help_heading = "Tests")]
    driver: Option<Driver>,
    /// List the selected tests instead of running them; boots no guest
    #[arg(long, help_heading = "Tests")]
    list: bool,
    /// Run the tests N times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "Tests")]
    repeat: u32,
    /// Run the tests in an order that follows from this number; each round of --repeat has another order
    #[arg(long, value_name = "SEED", conflicts_with = "isolated", help_heading = "Tests")]
    shuffle: Option<u64>,
    /// Seed of the tests' random contents, as a report names it; rounds after the first add their number to it
    #[arg(long, value_name = "HEX", value_parser = parse_seed, help_heading = "Tests")]
    seed: Option<u64>,
    /// Run no test after the first that fails
    #[arg(long, help_heading = "Tests")]
    fail_fast: bool,
    /// Seconds that a test may take, on which those that move much have a multiple
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Tests")]
    test_timeout: Option<u32>,
    /// Give each test a guest of its own, several side by side; with --trace DIR each has its own log there
    #[arg(long, conflicts_with_all = ["list", "control"], help_heading = "Tests")]
    isolated: bool,
    /// How many guests run side by side with --isolated [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64), requires = "isolated", help_heading = "Tests")]
    jobs: Option<u8>,
    /// How to report
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "human", help_heading = "Tests")]
    format: Format,
    /// Write the report to this file; the standard output has lines for people then
    #[arg(long, value_name = "FILE", help_heading = "Tests")]
    output: Option<PathBuf>,
    /// How to run one test again.
    #[arg(skip)]
    rerun: Rerun,
}

fn parse_seed(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|_| "a seed is a hexadecimal number of up to 16 digits".to_owned())
}

/// Changes the defaults of options that all guests have to those of tests.
pub fn with_defaults(command: Command) -> Command {
    command.mut_arg("vram", |vram| vram.default_value(VRAM))
}

impl TestOptions {
    /// Takes note of the command line, to show how to run a test again.
    pub fn keep_command_line(&mut self, command: &Command, matches: &ArgMatches) {
        self.rerun = Rerun::of(command, matches);
    }

    /// Returns the guest that runs `names`. `round` is added to the seed.
    fn guest(&self, mode: Mode, names: &[String], round: u64) -> Result<Guest, CommandError> {
        let suite = Suite::of(self)?;
        let mut guest = suite.guest(self, mode, &self.words(suite, names, round))?;
        guest.spec.run.silence = Some(SILENCE);
        Ok(guest)
    }

    /// Returns the words that run `names` in a guest.
    fn words(&self, suite: Suite, names: &[String], round: u64) -> Vec<String> {
        let mut words = vec![PROGRAM.to_owned()];
        let mut option = |name: &str, value: Option<String>| {
            words.extend(value.into_iter().flat_map(|value| [format!("--{name}"), value]));
        };
        if let Suite::Hmm(driver) = suite {
            option("hmm-tests", Some(driver.name().to_owned()));
        }
        option("seed", self.seed.map(|seed| format!("{:#x}", seed.wrapping_add(round))));
        option("shuffle", self.shuffle.map(|seed| seed.to_string()));
        option("timeout", self.test_timeout.map(|seconds| seconds.to_string()));
        option("repeat", (!self.isolated).then(|| self.repeat.to_string()));
        words.extend(self.fail_fast.then(|| "--fail-fast".to_owned()));
        words.push("--exact".to_owned());
        words.extend(names.iter().cloned());
        words
    }

    fn reporter(&self, modes: usize, kernel: Option<String>) -> Result<Box<dyn Reporter>, CommandError> {
        let Some(path) = &self.output else { return Ok(self.format.reporter(Box::new(io::stdout()), modes, kernel)) };
        let file = File::create(path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let people = Format::Human.reporter(Box::new(io::stdout()), modes, None);
        Ok(Box::new(Both(people, self.format.reporter(Box::new(file), modes, kernel))))
    }
}

/// Runs the tests; returns the exit status.
///
/// # Errors
///
/// Fails if a guest cannot be run at all.
pub fn run(options: &TestOptions) -> Result<u8, CommandError> {
    let suite = match Suite::of(options) {
        Ok(suite) => suite,
        Err(error) => {
            say(&error.to_string());
            return Ok(STATUS_USAGE);
        }
    };
    let mut names = match list::names(options, suite)? {
        Ok(names) => names,
        Err(outcome) => return Ok(outcome.status()),
    };
    names.retain(|name| options.mode.iter().any(|mode| suite.has(name, *mode)));
    let names = match options.selection.of(&names) {
        Ok(names) => names,
        Err(error) => {
            say(&error.to_string());
            return Ok(STATUS_USAGE);
        }
    };
    if options.list {
        names.iter().try_for_each(|name| writeln!(io::stdout(), "{name}"))?;
        return Ok(PASS);
    }
    if names.is_empty() {
        say("there are fewer tests than shards: this one has none");
        return Ok(SKIP);
    }
    let manifest = artifacts::find(options.kernel.kernel.as_ref(), options.guest.initramfs.is_some())?;
    let kernel = ending::kernel(manifest.as_ref());
    ending::say_kernel(manifest.as_ref());
    let of_mode = |mode: &Mode| names.iter().filter(|name| suite.has(name, *mode)).cloned().collect::<Vec<_>>();
    let modes: Vec<(Mode, Vec<String>)> =
        options.mode.iter().map(|mode| (*mode, of_mode(mode))).filter(|(_, names)| !names.is_empty()).collect();
    let for_people = options.format == Format::Human || options.output.is_some();
    let session =
        Session::new(options.reporter(modes.len(), kernel)?, StatusLine::new(for_people), options.rerun.clone())?;
    let mut statuses = Vec::new();
    for (mode, names) in &modes {
        let status = run_in_mode(options, *mode, names, &session)?;
        statuses.push(status);
        // Any other end is a failure of the machine, not of the memory type.
        if !matches!(status, PASS | FAIL | SKIP) || (status == FAIL && options.fail_fast) {
            break;
        }
    }
    session.finish()?;
    Ok(combined(&statuses))
}

/// Runs the tests in one guest, or each in a guest of its own.
fn run_in_mode(options: &TestOptions, mode: Mode, names: &[String], session: &Session) -> Result<u8, CommandError> {
    let planned = std::iter::repeat_n(names, options.repeat as usize).flatten().cloned().collect();
    session.begin(mode, planned)?;
    let (outcome, ending) = if options.isolated {
        (isolated::run(options, mode, names, session)?, None)
    } else {
        run_in_one_guest(options, mode, names, session)?
    };
    let status = status(&outcome, session.counts());
    session.end(mode, status, ending.as_deref())?;
    Ok(status)
}

/// Boots a guest, or restores one, and runs all the tests in it. Returns how it ended, in words, too, unless that is the tests' status.
fn run_in_one_guest(
    options: &TestOptions,
    mode: Mode,
    names: &[String],
    session: &Session,
) -> Result<(Outcome, Option<String>), CommandError> {
    let mut guest = options.guest(mode, names, 0)?;
    for gpu in &mut guest.spec.run.devices {
        // Some tests have the device hold or fail.
        gpu.control_window = true;
        if options.mode.len() > 1 {
            gpu.trace = gpu.trace.take().map(|path| mode.beside(&path));
        }
    }
    let accelerator = options.guest.accelerator(guest.manifest.as_ref())?;
    let console = Console::new(session.clone(), mode);
    let connection = Connection {
        sink: Some(Box::new(console.clone())),
        interactive: false,
        keys: false,
        verbatim: false,
        cold: options.guest.is_cold(),
        control: options.guest.control.clone(),
        collect: None,
        shares: Vec::new(),
        progress: Box::new(say),
    };
    let (outcome, log) = launch(&guest.spec, &accelerator, connection)?;
    // A test that the user ended has no result.
    if outcome != Outcome::Interrupted {
        console.end(|collector| collector.unfinished(&outcome, &log))?;
    }
    ending::ending(&outcome, &log, Shown::Not);
    let bail_out = console.bail_out();
    bail_out.iter().for_each(|reason| say(reason));
    let words = match outcome {
        _ if bail_out.is_some() => bail_out,
        Outcome::Exited(PASS | FAIL | SKIP) => None,
        _ => Some(collector::describe(&outcome, &log)),
    };
    Ok((outcome, words))
}

/// Returns the status of one guest: its own, unless its report contradicts that.
fn status(outcome: &Outcome, counts: Counts) -> u8 {
    match outcome {
        Outcome::Exited(PASS | FAIL | SKIP) if counts.missing() > 0 => {
            say(&format!("{} of {} planned tests have a result", counts.results(), counts.planned));
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
        let counts = Counts { planned: 3, passed: 2, failed: 0, skipped: 0 };
        assert_eq!(status(&Outcome::Exited(PASS), counts), STATUS_FAILED);
        let counts = Counts { passed: 3, ..counts };
        assert_eq!(status(&Outcome::Exited(PASS), counts), PASS);
        assert_eq!(status(&Outcome::Exited(PASS), Counts::default()), STATUS_FAILED);
        assert_eq!(status(&Outcome::Panicked, counts), Outcome::Panicked.status());
    }
}

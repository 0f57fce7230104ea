// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz try`: tries scenarios, each in a fresh guest, and says what they show.
//!
//! [`source`] reads the scenarios, [`guest_run`] runs the guest of each trial, [`pool`] several side by side. What a guest shows goes
//! through [`lines`] and [`splat`] into [`evidence`], and beside the device's log ([`interleaving`], [`device_events`]) becomes a
//! [`trial`] with its [`verdict`]. [`human`] (with [`columns`]), [`table`], [`json`] and [`junit`] show trials. [`mod@matrix`] and [`explore`] make many scenarios, which [`batch`]
//! tries in few guests.

mod batch;
mod columns;
mod device_events;
mod evidence;
mod explore;
mod finding;
mod guest_run;
mod human;
mod interleaving;
mod json;
mod junit;
mod lines;
mod matrix;
mod pool;
#[cfg(test)]
mod sample;
mod script;
mod source;
mod splat;
mod table;
mod trial;
mod verdict;

use std::fs;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use clap::{Args, Command, ValueEnum};
use ersatz_guest_image::error_chain::chain;
use ersatz_guest_image::manifest::Manifest;
use ersatz_uapi::MemoryType;

use self::explore::Exploration;
use self::guest_run::{Plan, Testbed};
use self::human::Detail;
use self::matrix::Slice;
use self::script::Script;
use self::source::Source;
use self::trial::{Subject, Trial};
use super::CommandError;
use super::artifacts::{self, KernelChoice};
use super::guest::{GuestOptions, Mode};
use super::report::{self, say};
use crate::accel::accelerator::Accelerator;
use crate::outcome::{STATUS_INTERRUPTED, STATUS_USAGE};

/// VRAM of each GPU, unless the scenario or `--vram` says otherwise.
const VRAM: &str = "256M";

/// Try scenarios: suspected races of device memory, written down in a few lines
///
/// Each scenario is tried in a fresh guest, once with each kernel and each memory type, and judged: by the kernel's own complaints, by
/// the same steps on plain memory, by the device's log. docs/scenarios.md has the language, docs/verdicts.md what is printed.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct TryOptions {
    /// Kernels: series that were built (7.2), the debug kernel (debug), bzImage or ELF files, folders of kernel trees that are built [default: the first series in guest-image/kernels.toml]
    #[arg(
        long,
        value_name = "SERIES|debug|FILE|TREE[,...]",
        value_parser = artifacts::parse_kernel,
        value_delimiter = ',',
        help_heading = "Guest"
    )]
    kernel: Vec<KernelChoice>,
    #[command(flatten)]
    pub(super) guest: GuestOptions,
    /// Memory types to try, of those that a scenario names [default: all of them]
    #[arg(long, value_name = "MODE[,MODE...]", value_enum, value_delimiter = ',', help_heading = "Trials")]
    mode: Vec<Mode>,
    /// Try each scenario N times in its guest, as far as that survives
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000), default_value = "1", help_heading = "Trials")]
    repeat: u32,
    /// Try all scenarios of the clone's guest-image/scenarios
    #[arg(long, conflicts_with = "file", help_heading = "Trials")]
    museum: bool,
    /// How many guests run side by side [default: one per two cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64), help_heading = "Trials")]
    jobs: Option<u8>,
    /// How to report
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "human", help_heading = "Trials")]
    format: Format,
    /// Show all findings, all their lines, and the whole order of steps and device events
    #[arg(long, short, help_heading = "Trials")]
    verbose: bool,
    /// Try every state of memory against every call, or those of a slice: huge,split/munmap, */fork (docs/matrix.md)
    #[arg(long, value_name = "STATES/CALLS", value_parser = Slice::parse, num_args = 0..=1, require_equals = true,
        default_missing_value = "*/*", conflicts_with_all = ["museum", "file", "cell", "repeat"], help_heading = "Trials")]
    matrix: Option<Slice>,
    /// Try cells of the matrix as scenarios, each in a guest of its own
    #[arg(long, value_name = "STATE/CALL", value_parser = Slice::parse, conflicts_with_all = ["museum", "file"], help_heading = "Trials")]
    cell: Vec<Slice>,
    /// Print the scenario of --cell instead of trying it
    #[arg(long, requires = "cell", help_heading = "Trials")]
    print: bool,
    /// Write the matrix to FILE as a page
    #[arg(long, value_name = "FILE", requires = "matrix", help_heading = "Trials")]
    html: Option<PathBuf>,
    /// Try all orders of the steps of each scenario's threads, and make one that fails as short as it can be (docs/matrix.md)
    #[arg(long, conflicts_with_all = ["matrix", "print", "repeat"], help_heading = "Trials")]
    explore: bool,
    /// Most orders of --explore
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50_000), default_value = "500", requires = "explore", help_heading = "Trials")]
    bound: u32,
    /// Scenarios
    #[arg(value_name = "FILE", required_unless_present_any = ["museum", "matrix", "cell"])]
    file: Vec<PathBuf>,
}

/// The end of `ersatz try --help`.
const AFTER_HELP: &str = "\
With --trace DIR the device's log of each trial is kept there.

Exit status: 0 if all is well, or just what the scenarios expect was shown; 1 if not; 2 for a file that is not a scenario;
4 if nothing could be tried.";

/// How trials are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The verdict, what is wrong, and what happened in which order; of several trials a table, too.
    Human,
    /// One JSON document.
    Json,
    /// The XML of JUnit.
    Junit,
}

/// Changes the defaults of options that all guests have to those of scenarios.
pub fn with_defaults(command: Command) -> Command {
    command.mut_arg("vram", |vram| vram.default_value(VRAM))
}

/// A kernel to try scenarios with.
struct Kernel {
    choice: Option<KernelChoice>,
    /// As the command line names it.
    name: String,
    /// Its release, or its name if that is not known.
    release: String,
    accelerator: Accelerator,
}

impl Kernel {
    fn testbed<'a>(&'a self, options: &'a GuestOptions) -> Testbed<'a> {
        Testbed { kernel: self.choice.as_ref(), options, accelerator: &self.accelerator }
    }
}

/// Tries the scenarios; returns the exit status.
///
/// # Errors
///
/// Fails if there is nothing to boot, or the results cannot be printed.
pub fn run(options: &TryOptions) -> Result<u8, CommandError> {
    if options.print {
        return print_cells(options);
    }
    if let Some(slice) = &options.matrix {
        return try_matrix(options, slice);
    }
    let Some(sources) = sources(options)? else { return Ok(STATUS_USAGE) };
    if options.explore {
        return explore_all(options, &sources);
    }
    let kernels = kernels(options)?;
    let plans = plans(options, &sources, &kernels)?;
    if plans.is_empty() {
        say("no scenario is for a memory type that --mode asks for");
    }
    let several = plans.len() > 1;
    let mut trials = Vec::new();
    let mut show = |trial: Trial| {
        if options.format == Format::Human {
            print(&human::lines(&trial, detail(&trial, options.verbose, several)))?;
        }
        trials.push(trial);
        Ok(())
    };
    let workers = options.jobs.map_or_else(usual_jobs, usize::from);
    if pool::run(plans, workers, &mut show)?.is_interrupted() {
        return Ok(STATUS_INTERRUPTED);
    }
    let table = if several { [vec![String::new()], table::lines(&trials)].concat() } else { Vec::new() };
    report(&trials, options.format, &table)
}

/// Prints lines. A closed pipe is not an error: the exit status still counts.
fn print(lines: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match lines.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Of one trial the order of events is always of interest; of several, that of those which did not go as expected.
fn detail(trial: &Trial, verbose: bool, several: bool) -> Detail {
    match (verbose, several && trial.verdict.is_expected()) {
        (true, _) => Detail::All,
        (false, true) => Detail::Verdict,
        (false, false) => Detail::Screen,
    }
}

fn usual_jobs() -> usize {
    thread::available_parallelism().map_or(1, |cores| (NonZero::get(cores) / 2).max(1))
}

/// Reads the scenarios. `None` if one of them is none, which is then said.
fn sources(options: &TryOptions) -> Result<Option<Vec<Source>>, CommandError> {
    let mut cells = Vec::new();
    for mode in wanted_modes(&options.mode) {
        cells.extend(options.cell.iter().map(|slice| matrix::sources(slice, mode)).collect::<Result<Vec<_>, _>>()?);
    }
    let paths = if options.museum { source::museum()? } else { options.file.clone() };
    let (sources, errors): (Vec<_>, Vec<_>) = paths.iter().map(|path| source::read(path)).partition(Result::is_ok);
    let errors: Vec<_> = errors.into_iter().filter_map(Result::err).collect();
    errors.iter().for_each(|error| say(&chain(error).to_string()));
    Ok(errors.is_empty().then(|| cells.into_iter().flatten().chain(sources.into_iter().flatten()).collect()))
}

fn kernels(options: &TryOptions) -> Result<Vec<Kernel>, CommandError> {
    let choices: Vec<Option<KernelChoice>> = match &options.kernel[..] {
        [] => vec![None],
        kernels => kernels.iter().cloned().map(Some).collect(),
    };
    let kernel = |choice: Option<KernelChoice>| {
        let manifest = artifacts::find(choice.as_ref(), options.guest.initramfs.is_some())?;
        let name = kernel_name(choice.as_ref(), manifest.as_ref());
        let release = manifest.as_ref().map_or_else(|| name.clone(), |manifest| manifest.release.clone());
        let accelerator = options.guest.accelerator(manifest.as_ref())?;
        Ok(Kernel { choice, name, release, accelerator })
    };
    choices.into_iter().map(kernel).collect()
}

/// The name of a kernel: as it was given, or of the default one its series.
fn kernel_name(choice: Option<&KernelChoice>, manifest: Option<&Manifest>) -> String {
    match choice {
        Some(KernelChoice::Series(series)) => series.clone(),
        Some(KernelChoice::File(path)) => path.display().to_string(),
        Some(KernelChoice::Tree(tree)) => {
            report::kernel(manifest).unwrap_or_else(|| tree.folder().display().to_string())
        }
        None => manifest.map_or_else(|| "default".to_owned(), |manifest| series(&manifest.release)),
    }
}

/// The series of a release: `7.2` of `7.2.12+deb13-amd64`.
fn series(release: &str) -> String {
    let numbers: Vec<&str> = release.split(|c: char| !c.is_ascii_digit()).take(2).collect();
    numbers.join(".")
}

fn plans<'a>(
    options: &'a TryOptions,
    sources: &[Source],
    kernels: &'a [Kernel],
) -> Result<Vec<Plan<'a>>, CommandError> {
    let mut plans = Vec::new();
    for source in sources {
        for memory in modes(source, &options.mode) {
            for kernel in kernels {
                let subject = Subject {
                    scenario: source.scenario.name.clone(),
                    title: source.scenario.title.clone(),
                    script: Script::of(&source.scenario),
                    kernel: kernel.name.clone(),
                    memory,
                    expected: source.expected_on(&kernel.release),
                    attempts: options.repeat,
                };
                plans.push(Plan::new(&kernel.testbed(&options.guest), source, subject)?);
            }
        }
    }
    Ok(plans)
}

/// The memory types that are wanted; all if none is named.
fn wanted_modes(named: &[Mode]) -> Vec<Mode> {
    [Mode::Private, Mode::Coherent].into_iter().filter(|mode| named.is_empty() || named.contains(mode)).collect()
}

/// Prints the scenarios of cells.
fn print_cells(options: &TryOptions) -> Result<u8, CommandError> {
    let modes = wanted_modes(&options.mode);
    for slice in &options.cell {
        for source in modes.first().map(|&mode| matrix::sources(slice, mode)).transpose()?.unwrap_or_default() {
            print(&[source.text.trim_end().to_owned()])?;
        }
    }
    Ok(0)
}

/// Tries the matrix; returns the exit status.
fn try_matrix(options: &TryOptions, slice: &Slice) -> Result<u8, CommandError> {
    let started = Instant::now();
    let workers = options.jobs.map_or_else(usual_jobs, usize::from);
    let mut all = Vec::new();
    for kernel in &kernels(options)? {
        for mode in wanted_modes(&options.mode) {
            let mut progress = |done: usize, count: usize| {
                if done % 100 == 0 {
                    say(&format!("{done} of {count} cells ({}, {})", kernel.name, mode.name()));
                }
            };
            let testbed = kernel.testbed(&options.guest);
            let names = (kernel.name.as_str(), kernel.release.as_str());
            let Some(results) = matrix::run(&testbed, slice, names, mode, workers, &mut progress)? else {
                return Ok(STATUS_INTERRUPTED);
            };
            if options.format == Format::Human {
                print(&matrix::lines(slice, &results))?;
                print(&matrix::explained(&results))?;
            }
            all.push(results);
        }
    }
    let summary = matrix::summary(slice, &all, started.elapsed());
    if let Some(path) = &options.html {
        fs::write(path, matrix::page(slice, &all, &summary))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    let trials: Vec<Trial> = all.into_iter().flat_map(|results| results.judged).map(|judged| judged.trial).collect();
    report(&trials, options.format, &[summary])
}

/// Tries all orders of the scenarios; returns the exit status.
fn explore_all(options: &TryOptions, sources: &[Source]) -> Result<u8, CommandError> {
    let workers = options.jobs.map_or_else(usual_jobs, usize::from);
    let (mut trials, mut lines) = (Vec::new(), Vec::new());
    for kernel in &kernels(options)? {
        for source in sources {
            for memory in modes(source, &options.mode) {
                let testbed = kernel.testbed(&options.guest);
                let bound = usize::try_from(options.bound)?;
                let exploration = Exploration { testbed, kernel: &kernel.name, memory, bound, workers };
                let Some(explored) = explore::run(&exploration, source)? else { return Ok(STATUS_INTERRUPTED) };
                lines.push(format!("{} ({}, {})", source.scenario.name, kernel.name, memory.name()));
                lines.extend(explore::lines(&explored));
                trials.extend(explored.trials.into_iter().filter(explore::came_about));
            }
        }
    }
    report(&trials, options.format, &lines)
}

/// Prints trials for programs, or the lines for people; returns the exit status.
fn report(trials: &[Trial], format: Format, lines: &[String]) -> Result<u8, CommandError> {
    let status = verdict::status(trials.iter().map(|trial| &trial.verdict));
    match format {
        Format::Human => print(lines)?,
        Format::Json => print(&[format!("{:#}", json::document(trials, status))])?,
        Format::Junit => print(&[junit::document(trials).trim_end().to_owned()])?,
    }
    Ok(status)
}

/// The memory types to try a scenario with. None if the scenario is not for any that is wanted.
fn modes(source: &Source, wanted: &[Mode]) -> Vec<Mode> {
    let named = &source.scenario.guest.memory;
    [(Mode::Private, MemoryType::Private), (Mode::Coherent, MemoryType::Coherent)]
        .into_iter()
        .filter(|(mode, memory)| {
            (named.is_empty() || named.contains(memory)) && (wanted.is_empty() || wanted.contains(mode))
        })
        .map(|(mode, _)| mode)
        .collect()
}

#[cfg(test)]
mod tests {
    use ersatz_scenario::{Guest, Scenario};

    use super::*;

    #[test]
    fn memory_types_are_those_of_the_scenario_that_are_wanted() {
        let source = |memory: &[MemoryType]| {
            let guest = Guest { memory: memory.to_vec(), ..Guest::default() };
            let scenario = Scenario { guest, ..Scenario::default() };
            Source { text: String::new(), scenario }
        };
        assert_eq!(modes(&source(&[]), &[]), [Mode::Private, Mode::Coherent]);
        assert_eq!(modes(&source(&[MemoryType::Private]), &[]), [Mode::Private]);
        assert_eq!(modes(&source(&[]), &[Mode::Coherent]), [Mode::Coherent]);
        assert_eq!(modes(&source(&[MemoryType::Private]), &[Mode::Coherent]), []);
    }

    #[test]
    fn a_release_has_a_series() {
        assert_eq!(series("7.2.12+deb13-amd64"), "7.2");
        assert_eq!(series("7.3-rc1"), "7.3");
        assert_eq!(series(""), "");
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest-side tests: what the driver promises to processes, checked by the CPU, by the device and by the device's own
//! counters.
//!
//! [`suite`] says what a test is and [`cases`] holds them, a file a topic; [`rounds`] takes them in their order, [`runner`] runs each in a
//! process of its own and [`ktap`] reports. The rest is what tests are made of: [`device`] (the ioctls and the counters), [`region`] (memory),
//! [`pattern`] (its content), [`process`] (forks and events), [`proc_fs`] and [`bus`] (the kernel's view), and for those tests that
//! take the driver off the device and program it themselves, [`direct`]; [`hold`] stops tasks inside the kernel, [`points`] says where that is
//! useful, and [`control_window`] has the device itself hold and fail; [`ram_device`] is another device. [`mod@bench`] measures instead of testing, [`mod@scenario`] tries scenarios, and
//! [`mod@hmm_tests`] runs the kernel's own tests.

mod bench;
mod bus;
mod cases;
mod compute;
mod config_space;
mod control_window;
mod device;
mod device_rules;
mod direct;
mod hmm_tests;
mod hold;
mod khugepaged;
mod ktap;
mod numa;
mod pattern;
mod points;
mod proc_fs;
mod process;
mod ram_device;
mod region;
mod registers;
mod rounds;
mod runner;
mod scenario;
mod statistics;
mod stuck;
mod suite;
mod swap_disk;
mod vram_bar;
mod watched;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::device::Device;
use crate::hmm_tests::Peer;
use crate::rounds::{Plan, Rounds};
use crate::runner::{Options, Runner};
use crate::suite::Test;

/// Exit status when the tests could not be run or reported on.
const STATUS_FAILED: u8 = 125;

/// Runs the tests on /dev/ersatz0, and on the device behind it, and reports as KTAP. Exit status: 0 pass, 1 fail, 4
/// nothing was run.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Run the tests whose names contain one of these; all, if there are none
    filters: Vec<String>,
    /// Take filters as whole names, and run the tests in the order in which they are given
    #[arg(long)]
    exact: bool,
    /// Run no test after one that fails; those that remain are skipped
    #[arg(long)]
    fail_fast: bool,
    /// Run the tests in an order that follows from this number, in each round another one
    #[arg(long, value_name = "SEED")]
    shuffle: Option<u64>,
    /// List the names of the tests instead of running them
    #[arg(long)]
    list: bool,
    /// Measure how fast memory migrates instead of running tests
    #[arg(long, conflicts_with_all = ["list", "filters"])]
    bench: bool,
    /// Measure migrations beside the same ones by the kernel's test driver, in regions of so many MiB
    #[arg(long, value_name = "MIB[,MIB...]", value_delimiter = ',', conflicts_with_all = ["list", "filters", "bench"],
        value_parser = clap::value_parser!(u32).range(2..=1024))]
    compare: Vec<u32>,
    /// Try the scenario in this file instead of running tests, and print a report of JSON lines; may be given more than once
    #[arg(long, value_name = "FILE", group = "tried", conflicts_with_all = ["list", "filters", "bench", "compare"])]
    scenario: Vec<PathBuf>,
    /// Try the scenarios in this folder, in the order of their names, up to one that hangs or makes the kernel complain
    #[arg(long, value_name = "FOLDER", group = "tried", conflicts_with_all = ["list", "filters", "bench", "compare"])]
    batch: Option<PathBuf>,
    /// Run the kernel's own tests of device memory, of which the filters are the names, on the devices of this driver
    #[arg(long, value_name = "DRIVER", value_enum, requires = "filters", conflicts_with_all = ["list", "bench", "compare", "tried"])]
    hmm_tests: Option<Peer>,
    /// Do the steps of scenarios on plain memory only, which needs no device
    #[arg(long, requires = "tried")]
    plain: bool,
    /// End at once: what a process becomes that executes another program
    #[arg(long, hide = true, exclusive = true)]
    executed: bool,
    /// How many rounds of --compare count
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Run the whole list, or try each scenario, so many times
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Seconds a test may usually take; some may take a multiple
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..))]
    timeout: u32,
    /// Seed of random contents and decisions, as an earlier report named it
    #[arg(long, value_parser = parse_seed)]
    seed: Option<u64>,
}

impl Arguments {
    fn plan(&self) -> Plan {
        Plan { repeat: self.repeat, shuffle: self.shuffle, fail_fast: self.fail_fast }
    }
}

fn parse_seed(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16)
        .map_err(|error| format!("{error}; a seed is a hexadecimal number of up to 16 digits"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.executed {
        return ExitCode::SUCCESS;
    }
    // What needs no device may run on any machine, which is left as it is.
    if !arguments.list && !arguments.plain {
        if let Err(error) = khugepaged::keep_asleep() {
            eprintln!("ersatz-guest-tests: khugepaged is awake, and may move pages: {error}");
        }
    }
    if arguments.bench {
        return measure();
    }
    if !arguments.compare.is_empty() {
        println!("{}", bench::comparison::run(&arguments.compare, arguments.rounds));
        return ExitCode::SUCCESS;
    }
    if let Some(folder) = &arguments.batch {
        return ExitCode::from(scenario::run_batch(folder, arguments.plain));
    }
    if !arguments.scenario.is_empty() {
        let options = scenario::Options { attempts: arguments.repeat, only_plain: arguments.plain };
        return ExitCode::from(scenario::run(&arguments.scenario, options));
    }
    if let Some(peer) = arguments.hmm_tests {
        let limit = Duration::from_secs(u64::from(arguments.timeout));
        let status = hmm_tests::run(&arguments.filters, peer, arguments.plan(), limit);
        return exit_code(status.map(|status| status.unwrap_or(STATUS_FAILED)));
    }
    let selected = match select(&arguments.filters, arguments.exact) {
        Ok(selected) => selected,
        Err(name) => {
            eprintln!("ersatz-guest-tests: no test is called {name}");
            return ExitCode::from(2);
        }
    };
    if arguments.list {
        selected.iter().for_each(|test| println!("{}", test.name));
        return ExitCode::SUCCESS;
    }
    if selected.is_empty() {
        eprintln!("ersatz-guest-tests: no test's name contains {}", arguments.filters.join(" or "));
        return ExitCode::from(2);
    }
    exit_code(run(&selected, &arguments))
}

/// Returns the exit status of a run of tests, after reporting why there is none.
fn exit_code(status: io::Result<u8>) -> ExitCode {
    ExitCode::from(status.unwrap_or_else(|error| {
        eprintln!("ersatz-guest-tests: cannot read the kernel log or write the report: {error}");
        STATUS_FAILED
    }))
}

fn measure() -> ExitCode {
    match Device::try_open() {
        Ok(device) => {
            bench::run(&device, |figure| println!("{figure}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ersatz-guest-tests: {}", runner::RunError::NoDevice(error));
            ExitCode::FAILURE
        }
    }
}

/// Returns the tests to run, in order; or the whole name that no test has.
fn select(filters: &[String], exact: bool) -> Result<Vec<&'static Test>, &String> {
    if exact && !filters.is_empty() {
        return filters.iter().map(|name| cases::all().find(|test| test.name == name).ok_or(name)).collect();
    }
    Ok(cases::all().filter(|test| is_selected(test, filters)).collect())
}

fn is_selected(test: &Test, filters: &[String]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| test.name.contains(filter.as_str()))
}

fn run(selected: &[&Test], arguments: &Arguments) -> io::Result<u8> {
    let first_seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let time_limit = Duration::from_secs(u64::from(arguments.timeout));
    let (mut runner, earlier) = Runner::new(Options { time_limit, seed: first_seed })?;
    let mut rounds = Rounds::begin(io::stdout(), arguments.plan(), selected.len(), &earlier)?;
    while let Some(round) = rounds.next_round() {
        let seed = first_seed.wrapping_add(round);
        rounds.report().diagnose(&format!("seed {seed:#x}"))?;
        runner.set_seed(seed);
        rounds.run(selected, |test| test.name, |test| runner.run(test))?;
    }
    rounds.end()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn filters_are_parts_of_names() {
        let test = Test::new("fork.child_first", || ());
        assert!(is_selected(&test, &[]));
        assert!(is_selected(&test, &["nothing".into(), "child".into()]));
        assert!(!is_selected(&test, &["nothing".into()]));
    }

    #[test]
    fn whole_names_give_the_order() {
        let all: Vec<&str> = cases::all().map(|test| test.name).collect();
        let wanted = [all[1].to_owned(), all[0].to_owned()];
        let selected = select(&wanted, true).unwrap();
        assert_eq!(selected.iter().map(|test| test.name).collect::<Vec<_>>(), [all[1], all[0]]);
        assert_eq!(select(&["fork.".into()], true).unwrap_err(), "fork.");
    }

    #[test]
    fn a_seed_is_read_as_it_is_printed() {
        assert_eq!(parse_seed(&format!("{:#x}", u64::MAX)), Ok(u64::MAX));
        assert!(parse_seed("seed").is_err());
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line: `ersatz run`, `test`, `try`, `device`, `ctl`, `trace`, `bench`, `new-driver`,
//! `clean`, `doctor`, `completions`, `man`.
//!
//! Each command has a module with its options and what it does. Options that several share are in [`guest`]; how values are
//! read is in [`size`], [`limit`] and [`artifacts`]; [`usage`] reports bad ones in one line.

pub mod artifacts;
pub mod await_run;
pub mod bench;
pub mod boot_spec;
pub mod clean;
pub mod completions;
pub mod ctl;
pub mod device;
pub mod doctor;
pub mod guest;
pub mod limit;
pub mod new_driver;
pub mod report;
pub mod run;
pub mod socket_reaper;
pub mod test;
pub mod trace;
pub mod try_scenario;
pub mod usage;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::thread;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
pub use ersatz_device_model::size;
use ersatz_guest_image::error_chain::chain;

use crate::outcome::{STATUS_FAILED, STATUS_USAGE};

/// What any command may fail with. It is printed, with its causes, on one line.
pub type CommandError = Box<dyn std::error::Error>;

/// A GPU that isn't there, and the machines to try it in.
///
/// Ersatz boots a stock Linux kernel with a GPU that exists only as a device model, and shows what the device saw: to
/// write, break and prove code that migrates memory to and from devices, with no hardware.
#[derive(Debug, Parser)]
#[command(name = "ersatz", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The end of `ersatz --help`.
const EXAMPLES: &str = "\
Examples:
  ersatz run                                a shell in a guest with one GPU (Ctrl-A x ends it)
  ersatz run --vram 16G -- cat /proc/iomem  one command; its exit status is ersatz's own
  ersatz test --mode private migrate        the guest-side tests with `migrate` in their name
  ersatz try suspicion.scenario                  whether a suspected race shows, and in which order things happened
  ersatz device --socket gpu.sock           the GPU alone, for a QEMU of your own
  ersatz ctl gpu.ctl break before-fence     hold a device of --control gpu.ctl before its next fence
  ersatz trace summary gpu0.trace           what a device saw and did

Exit status: the guest command's own, or
    2  bad arguments                        120  all went well but for --collect
  121  the guest kernel panicked            122  a WARN, BUG or Oops in the guest
  123  the guest ended without saying how   124  the time limit was reached
  125  ersatz itself or QEMU failed         130  interrupted";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunOptions),
    Test(Box<test::TestOptions>),
    Try(try_scenario::TryOptions),
    Device(device::DeviceOptions),
    Ctl(ctl::CtlOptions),
    #[command(name = crate::accel::nested::inside::COMMAND, hide = true)]
    BootSpec(boot_spec::BootSpecOptions),
    #[command(name = crate::accel::nested::await_run::COMMAND, hide = true)]
    AwaitRun(await_run::AwaitRunOptions),
    #[command(name = socket_reaper::COMMAND, hide = true)]
    SocketReaper(socket_reaper::SocketReaperOptions),
    Trace(trace::TraceArgs),
    Bench(bench::BenchOptions),
    NewDriver(new_driver::NewDriverOptions),
    Clean(clean::CleanOptions),
    Doctor(doctor::DoctorOptions),
    Completions(completions::CompletionsOptions),
    Man(completions::ManOptions),
}

/// Runs the command that the arguments name and returns the process's exit status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("ERSATZ_LOG", "warn"))
        .format(|out, record| {
            // Threads are named after their work and their GPU: a line of several devices says which it is about.
            let thread = thread::current();
            writeln!(out, "[{} {}] {}", record.level(), thread.name().unwrap_or("-"), record.args())
        })
        .init();
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // A closed pipe (`ersatz --help | head`) is not a failure.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("ersatz: {}", usage::one_line(&error));
            return ExitCode::from(STATUS_USAGE);
        }
    };
    let result = match cli.command {
        Command::Run(options) => run::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Try(options) => try_scenario::run(&options),
        Command::Device(options) => device::run(&options),
        Command::Ctl(options) => ctl::run(&options),
        Command::BootSpec(options) => boot_spec::run(&options),
        Command::AwaitRun(options) => await_run::run(&options),
        Command::SocketReaper(options) => socket_reaper::run(&options),
        Command::Trace(options) => trace::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::NewDriver(options) => new_driver::run(&options),
        Command::Clean(options) => clean::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Completions(options) => completions::completions(&options, &command()),
        Command::Man(options) => completions::man(&options, command()),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("ersatz: {}", chain(error.as_ref()));
            ExitCode::from(STATUS_FAILED)
        }
    }
}

/// Reads the command line.
fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    if let (Command::Test(options), Some((name, matches))) = (&mut cli.command, matches.subcommand()) {
        if let Some(command) = command.find_subcommand(name) {
            options.keep_command_line(command, matches);
        }
    }
    Ok(cli)
}

/// The command line that is accepted: the options as they are defined, with the defaults of each command.
fn command() -> clap::Command {
    Cli::command().mut_subcommand("test", test::with_defaults).mut_subcommand("try", try_scenario::with_defaults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn tests_have_less_vram_unless_told_otherwise() {
        let vram = |words: &[&str]| {
            let arguments = std::iter::once(&"ersatz").chain(words).map(OsString::from);
            match parse(arguments).unwrap().command {
                Command::Run(options) => options.guest.gpu.vram,
                Command::Test(options) => options.guest.gpu.vram,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(vram(&["run"]), 1 << 30);
        assert_eq!(vram(&["test"]), 256 << 20);
        assert_eq!(vram(&["test", "--vram", "2M"]), 2 << 20);
    }
}

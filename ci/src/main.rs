// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask`: set-up, builds and the pipeline.
//!
//! Everything is made by [`step`]s, which put their results into [`store`]s; [`kernel`] and [`guest`] define what is made,
//! [`toolchain`] and [`namespace`] where the commands for it run, [`commands`] what the user can ask for.

mod cargo;
mod commands;
mod fingerprint;
mod guest;
mod host;
mod kernel;
mod log;
mod namespace;
mod pipeline;
mod progress;
mod step;
mod store;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{KernelOption, build, clean, demo, doctor, ersatz, make, module, setup, test};

/// Set-up, builds and the pipeline of Ersatz
///
/// Each step is skipped when its inputs are unchanged and may be interrupted at any time. What all clones can share (the
/// toolchain root, kernels) is kept in $ERSATZ_CACHE, else $XDG_CACHE_HOME/ersatz, else ~/.cache/ersatz; the rest in target/.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what is needed and make the toolchain root, the stock kernel and its tree
    Setup(KernelOption),
    /// Set up; build driver, programs and initramfs archives for `ersatz run` to boot
    Build(KernelOption),
    /// Set up and build; run `ersatz` with these arguments: after an edit, `ersatz test NAME --accel tcg`
    Ersatz(ersatz::ErsatzOptions),
    /// Run make in a kernel tree of your own, by the compilers that the driver is built by
    Make(make::MakeOptions),
    /// Build a kernel module of your own against the kernel that guests boot
    Module(module::ModuleOptions),
    /// Set up and build; boot a guest, migrate pages in it, show what the device saw
    Demo(demo::DemoOptions),
    /// Set up and build; run every check and test of the pipeline
    Test(test::TestOptions),
    /// Remove what was built in this clone
    Clean(clean::CleanOptions),
    /// Check this machine and report what is missing, changing nothing
    Doctor,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(kernel) => setup::run(&kernel),
        Command::Build(kernel) => build::run(&kernel),
        Command::Ersatz(options) => ersatz::run(&options),
        Command::Make(options) => make::run(&options),
        Command::Module(options) => module::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Clean(options) => clean::run(&options),
        Command::Doctor => doctor::run(),
    };
    match result {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Command;

    #[test]
    fn what_the_tool_is_given_is_left_alone() {
        let words = ["xtask", "ersatz", "test", "--accel", "tcg", "--list", "--", "-x"];
        let Command::Ersatz(options) = super::Cli::parse_from(words).command else { panic!("another command") };
        assert_eq!(options.arguments, words[2..]);
    }

    #[test]
    fn the_options_are_consistent() {
        super::Cli::command().debug_assert();
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask test`: every check of the pipeline, on each pinned kernel or on the one asked for; with the debug kernel, what
//! its checkers see of the guest-side tests. The last line has the sum.

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use ersatz_guest_image::pins::Pins;

use super::build::{Builder, Built};
use super::setup::{self, Prerequisites};
use super::{KernelOption, build};
use crate::guest::driver::Flavour;
use crate::guest::programs::Programs;
use crate::pipeline::guests::{Depth, Target};
use crate::pipeline::{Tally, guests, new_drivers, sources};
use crate::progress::Progress;

/// What to test.
#[derive(Debug, Args)]
pub struct TestOptions {
    #[command(flatten)]
    kernel: KernelOption,
    /// Run all guest-side tests under every accelerator, also those that the bus does not matter to (half an hour more)
    #[arg(long)]
    everything: bool,
}

/// Runs the command.
pub fn run(options: &TestOptions) -> Result<ExitCode> {
    let progress = Progress::new();
    let depth = if options.everything { Depth::Everything } else { Depth::Pipeline };
    let kernel = &options.kernel;
    let sum = if kernel.is_debug() { run_debug(&progress, kernel)? } else { run_all(&progress, kernel, depth)? };
    println!("{sum}");
    Ok(if sum.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the guest-side tests on a debug kernel.
fn run_debug(progress: &Progress, option: &KernelOption) -> Result<Tally> {
    let built = build::build(progress, option)?;
    guests::check_debug(&built.programs.vmm(), &built.store, progress)
}

/// Runs all checks of this machine's side, and of the driver in guests with a stock kernel.
fn run_all(progress: &Progress, option: &KernelOption, depth: Depth) -> Result<Tally> {
    let cache = setup::prepare_host(progress)?;
    let builder = Builder::new(progress)?;
    let kernels = kernels(option)?;
    let (hand_over, programs) = mpsc::channel();
    // Cargo checks this machine's side while packages come in and guests run.
    let (sources, guests) = thread::scope(|scope| {
        let builder = &builder;
        let host = scope.spawn(move || {
            let built = Programs::build(builder.clone_folder(), progress, &builder.log("programs"));
            // The other side has gone if the set-up failed.
            let _ = hand_over.send(built);
            sources::check(builder.clone_folder(), progress, |name| builder.log(name))
        });
        let prerequisites =
            kernels.iter().map(|kernel| setup::prepare(&cache, progress, kernel)).collect::<Result<Vec<_>>>();
        let guests = prerequisites.and_then(|prerequisites| {
            let programs = programs.recv().context("the thread that runs cargo ended early")??;
            let assembled =
                prerequisites.into_iter().map(|prerequisites| builder.assemble(prerequisites, programs.clone()));
            let built = assembled.collect::<Result<Vec<_>>>()?;
            let mut sum = Tally::default();
            for built in &built {
                sum += check_driver(builder, built);
            }
            let default = Pins::load()?.kernel(None)?.series.clone();
            if let Some(built) = built.iter().find(|built| built.prerequisites.kernel.name == default) {
                let Prerequisites { toolchain, kernel, .. } = &built.prerequisites;
                sum += new_drivers::check(&programs.vmm(), (toolchain, kernel), &built.store, progress);
            }
            let targets: Vec<_> = built
                .iter()
                .map(|built| Target { series: &built.prerequisites.kernel.name, store: &built.store })
                .collect();
            sum += guests::check(&programs.vmm(), &targets, depth, progress)?;
            Ok(sum)
        });
        if let Err(error) = &guests {
            progress.say(&format!("FAILED: {error:#}"));
        }
        (host.join(), guests)
    });
    let mut sum = sources.map_err(|_| anyhow!("the thread that runs cargo panicked"))??;
    // Without guests, the checks that were counted are reported all the same.
    sum += guests.unwrap_or_else(|_| Tally::check(false));
    Ok(sum)
}

/// The kernels to test on, the one that is tested most first.
fn kernels(option: &KernelOption) -> Result<Vec<KernelOption>> {
    if option.kernel.is_some() {
        return Ok(vec![option.clone()]);
    }
    Ok(Pins::load()?.series().map(|series| KernelOption { kernel: Some(series.to_owned()) }).collect())
}

/// Builds the driver under clippy and rustfmt, whose complaints are errors.
fn check_driver(builder: &Builder<'_>, built: &Built) -> Tally {
    let clean = builder.modules(&built.store, &built.prerequisites, Flavour::Checked);
    if let Err(error) = &clean {
        builder.progress().say(&format!("FAILED: {error:#}"));
    }
    Tally::check(clean.is_ok())
}

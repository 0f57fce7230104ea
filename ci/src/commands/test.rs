// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask test`: everything that can be checked. The last line has the sum.

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, anyhow};

use super::build::{Builder, Built};
use super::{KernelOption, setup};
use crate::guest::driver::Flavour;
use crate::guest::programs::Programs;
use crate::pipeline::{Tally, guests, sources};
use crate::progress::Progress;

/// Runs the command.
pub fn run(option: &KernelOption) -> Result<ExitCode> {
    let progress = Progress::new();
    let cache = setup::prepare_host(&progress)?;
    let builder = Builder::new(&progress)?;
    let (hand_over, programs) = mpsc::channel();
    // Cargo checks this machine's side while packages come in and guests run.
    let (sources, guests) = thread::scope(|scope| {
        let (builder, progress) = (&builder, &progress);
        let host = scope.spawn(move || {
            let built = Programs::build(builder.clone_folder(), progress, &builder.log("programs"));
            // The other side has gone if the set-up failed.
            let _ = hand_over.send(built);
            sources::check(builder.clone_folder(), progress, |name| builder.log(name))
        });
        let guests = setup::prepare(&cache, progress, option).and_then(|ground| {
            let programs = programs.recv().context("the thread that runs cargo ended early")??;
            check_driver(builder, builder.assemble(ground, programs)?)
        });
        if let Err(error) = &guests {
            progress.say(&format!("FAILED: {error:#}"));
        }
        (host.join(), guests)
    });
    let mut sum = sources.map_err(|_| anyhow!("the thread that runs cargo panicked"))??;
    // With no guests to count the tests of, what was counted is said all the same.
    sum += guests.unwrap_or_else(|_| Tally::check(false));
    println!("{sum}");
    Ok(if sum.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the driver under clippy and rustfmt, whose complaints are errors, and tests it in guests.
fn check_driver(builder: &Builder<'_>, built: Built) -> Result<Tally> {
    let clean = builder.driver(&built.store, &built.ground, Flavour::Checked);
    if let Err(error) = &clean {
        builder.progress().say(&format!("FAILED: {error:#}"));
    }
    let mut sum = Tally::check(clean.is_ok());
    let series = &built.ground.packages.kernel.series;
    sum += guests::check(&built.programs.vmm(), series, &built.store, builder.progress())?;
    Ok(sum)
}

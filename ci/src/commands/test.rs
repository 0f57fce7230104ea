// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask test`: everything that can be checked. The last line has the sum.

use std::process::ExitCode;
use std::thread;

use anyhow::{Result, anyhow};

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
    // Cargo has a core to itself while the other waits for packages. One after the other, as both use all cores.
    let (mut sum, ground, programs) = thread::scope(|scope| {
        let host = scope.spawn(|| {
            let programs = Programs::build(builder.clone_folder(), &progress, &builder.log("programs"));
            let checked = sources::check(builder.clone_folder(), &progress, |name| builder.log(name));
            (checked, programs)
        });
        let ground = setup::prepare(&cache, &progress, option);
        let (checked, programs) = host.join().map_err(|_| anyhow!("the thread that runs cargo panicked"))?;
        Ok::<_, anyhow::Error>((checked?, ground, programs))
    })?;
    match ground.and_then(|ground| Ok((ground, programs?))).and_then(|(ground, programs)| {
        let built = builder.assemble(ground, programs)?;
        sum += driver_clippy(&builder, &built);
        guests::check(&built.programs.vmm(), &built.ground.packages.kernel.series, &built.store, &progress)
    }) {
        Ok(tally) => sum += tally,
        Err(error) => {
            // There are no guests to count the tests of, but what was counted is said all the same.
            progress.say(&format!("error: {error:#}"));
            sum += Tally::check(false);
        }
    }
    println!("{sum}");
    Ok(if sum.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the driver under clippy; what it complains about are errors.
fn driver_clippy(builder: &Builder<'_>, built: &Built) -> Tally {
    let clean = builder.driver(&built.store, &built.ground, Flavour::Clippy);
    if let Err(error) = &clean {
        builder.progress().say(&format!("FAILED: {error:#}"));
    }
    Tally::check(clean.is_ok())
}

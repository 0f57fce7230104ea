// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask demo`: from nothing to a guest whose migrations the device has logged.

use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result};
use clap::Args;

use super::{KernelOption, build};
use crate::progress::Progress;

/// The tests to show: pages to the device and back, checked by the CPU and by the device. Those that move thousands of pages
/// would be most of the wait.
const TESTS: &[&str] =
    &["roundtrip.one_", "roundtrip.many_pages", "roundtrip.device_reads", "roundtrip.cpu_", "roundtrip.every_"];

/// How to show it.
#[derive(Debug, Args)]
pub struct DemoOptions {
    #[command(flatten)]
    kernel: KernelOption,
    /// What carries the guest: auto, kvm, nested or tcg
    #[arg(long, value_name = "ACCEL", default_value = "auto")]
    accel: String,
}

/// Runs the command: its status is the tests'.
pub fn run(options: &DemoOptions) -> Result<ExitCode> {
    let progress = Progress::new();
    let built = build::build(&progress, &options.kernel)?;
    let (ersatz, store) = (built.programs.vmm(), &built.store);
    let trace = store.root().join("demo.trace");
    let kernel = &built.prerequisites.kernel.name;

    progress.say("booting a guest; migrating pages in it");
    let start = |command: &mut Command| -> Result<ExitStatus> {
        command.env("ERSATZ_GUEST", store.root()).status().with_context(|| format!("cannot start {}", ersatz.display()))
    };
    let tested = start(
        Command::new(&ersatz)
            .args(["test", "--kernel", kernel, "--accel", &options.accel, "--mode", "private", "--trace"])
            .arg(&trace)
            .args(TESTS),
    )?;
    progress.say("what the device saw:");
    let summed_up = start(Command::new(&ersatz).args(["trace", "summary"]).arg(&trace))?;
    println!("the whole log: {} (`ersatz trace cat` prints it)", trace.display());
    let status = if tested.success() { summed_up } else { tested };
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

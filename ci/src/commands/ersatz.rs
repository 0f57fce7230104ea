// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask ersatz ...`: the tool, with everything it boots as the sources of this clone have it now.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Result, anyhow};
use clap::Args;

use super::{KernelOption, build};
use crate::progress::Progress;

/// What to run.
#[derive(Debug, Args)]
pub struct ErsatzOptions {
    /// What `ersatz` is given, for example: test roundtrip --accel tcg
    #[arg(value_name = "ARGUMENT", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// Builds what has changed and becomes the tool; returns only if that fails.
pub fn run(options: &ErsatzOptions) -> Result<ExitCode> {
    let built = build::build(&Progress::new(), &KernelOption::default())?;
    let ersatz = built.programs.vmm();
    let error = Command::new(&ersatz).args(&options.arguments).env("ERSATZ_GUEST", built.store.root()).exec();
    Err(anyhow!(error).context(format!("cannot start {}", ersatz.display())))
}

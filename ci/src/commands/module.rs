// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask module FOLDER`: builds a kernel module of the user's own against the kernel that guests boot.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::{KernelOption, setup};
use crate::guest::own_module;
use crate::progress::Progress;

/// What to build.
#[derive(Debug, Args)]
pub struct ModuleOptions {
    #[command(flatten)]
    kernel: KernelOption,
    /// The folder with the module's Kbuild
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Runs the command.
pub fn run(options: &ModuleOptions) -> Result<ExitCode> {
    let progress = Progress::new();
    let cache = setup::prepare_host(&progress)?;
    let prerequisites = setup::prepare(&cache, &progress, &options.kernel)?;
    let kernel = &prerequisites.kernel;
    for module in own_module::build(&prerequisites.toolchain, kernel, &options.folder)? {
        progress.say(&format!("built for kernel {}: {}", kernel.release, module.display()));
    }
    Ok(ExitCode::SUCCESS)
}

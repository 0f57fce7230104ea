// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask make TREE ...`: make in a kernel tree of the user's own, by the compilers that the driver is built by.

use std::fs;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use ersatz_guest_image::build_tree::config::Config;
use ersatz_guest_image::pins::Pins;

use super::setup;
use crate::kernel::build_tree::compiler;
use crate::progress::Progress;
use crate::toolchain::{Mount, Toolchain};

/// The arguments are those of make.
const MAKE: &str = r#"exec make -C /mnt/linux "$@""#;

/// What to make.
#[derive(Debug, Args)]
pub struct MakeOptions {
    /// Build with clang and LLVM's tools instead of gcc; a tree that is configured so needs no word of it
    #[arg(long)]
    llvm: bool,
    /// The top of the kernel's source
    #[arg(value_name = "TREE")]
    tree: PathBuf,
    /// What make is given, for example: -j4 bzImage modules
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs make, whose exit status it returns.
pub fn run(options: &MakeOptions) -> Result<ExitCode> {
    let tree = options.tree.canonicalize().with_context(|| format!("cannot find {}", options.tree.display()))?;
    if !tree.join("Kconfig").is_file() {
        bail!("{} is not the top of a kernel's source: it has no Kconfig", tree.display());
    }
    let progress = Progress::new();
    let cache = setup::prepare_host(&progress)?;
    let toolchain = Toolchain::prepare(&cache, &progress, &Pins::load()?.distribution)?;
    let config = Config::parse(&fs::read_to_string(tree.join(".config")).unwrap_or_default());
    let compiler = compiler(&cache, &progress, &toolchain, options.llvm || config.is_built_in("CC_IS_CLANG"))?;
    let mut mounts = vec![Mount::write("linux", &tree)];
    mounts.extend(compiler.mount());
    let script = format!("{}{MAKE}", compiler.environment());
    let words: Vec<&str> =
        compiler.make_variables().iter().copied().chain(options.arguments.iter().map(String::as_str)).collect();
    let status = toolchain.shell(&mounts, &script, &words).stdin(Stdio::inherit()).status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

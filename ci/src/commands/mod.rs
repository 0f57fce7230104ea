// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the user can ask for: one module a command.

pub mod build;
pub mod clean;
pub mod demo;
pub mod doctor;
pub mod ersatz;
pub mod make;
pub mod module;
pub mod setup;
pub mod test;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use ersatz_guest_image::build_tree::BuildTree;
use ersatz_guest_image::manifest::DEBUG_KERNEL;
use ersatz_guest_image::pins::Pins;

/// Which kernel to prepare for.
#[derive(Clone, Debug, Default, Args)]
pub struct KernelOption {
    /// The series of stock kernels, `debug` for one with the kernel's checkers compiled in (half an hour of building), or the folder
    /// of a kernel tree that is built; the default is the first series in guest-image/kernels.toml
    #[arg(long, value_name = "SERIES|debug|TREE")]
    pub kernel: Option<String>,
}

impl KernelOption {
    /// Whether it is the debug kernel.
    pub fn is_debug(&self) -> bool {
        self.kernel.as_deref() == Some(DEBUG_KERNEL)
    }

    /// Returns the build tree that is named, or `None` if it is another kernel.
    pub fn tree(&self) -> Result<Option<BuildTree>> {
        let pins = Pins::load()?;
        let Some(name) = self.kernel.as_deref().filter(|name| is_folder(name, &pins)) else { return Ok(None) };
        let tree = BuildTree::open(Path::new(name)).with_context(|| format!("--kernel {name}"))?;
        Ok(Some(tree))
    }
}

/// Whether a kernel's name is that of a folder and not of a series.
fn is_folder(name: &str, pins: &Pins) -> bool {
    name != DEBUG_KERNEL && !pins.series().any(|series| series == name) && Path::new(name).is_dir()
}

/// The top of the clone.
pub fn clone_folder() -> Result<PathBuf> {
    let ci = Path::new(env!("CARGO_MANIFEST_DIR"));
    let top = ci.parent().context("the crate xtask has no folder above it")?;
    top.canonicalize().with_context(|| format!("this xtask was built for the clone {}, which is gone", top.display()))
}

/// Where the clone keeps what is built for guests: one folder a kernel.
pub fn guest_folder(clone: &Path) -> PathBuf {
    clone.join("target/guest")
}

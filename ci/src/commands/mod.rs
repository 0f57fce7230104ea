// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the user can ask for: one module a command.

pub mod build;
pub mod clean;
pub mod demo;
pub mod doctor;
pub mod ersatz;
pub mod setup;
pub mod test;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use ersatz_guest_image::manifest::DEBUG_KERNEL;

/// Which kernel to prepare for.
#[derive(Clone, Debug, Default, Args)]
pub struct KernelOption {
    /// The series of stock kernels, or `debug` for one with the kernel's checkers compiled in (half an hour of building); the
    /// default is the first series in guest-image/kernels.toml
    #[arg(long, value_name = "SERIES|debug")]
    pub kernel: Option<String>,
}

impl KernelOption {
    /// Whether it is the debug kernel.
    pub fn is_debug(&self) -> bool {
        self.kernel.as_deref() == Some(DEBUG_KERNEL)
    }
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

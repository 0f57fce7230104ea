// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask clean`: gives the space back.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::{clone_folder, guest_folder};
use crate::namespace;
use crate::store::{Store, cache_folder};

/// What to remove.
#[derive(Debug, Args)]
pub struct CleanOptions {
    /// Remove the cache too, which all clones of this user share
    #[arg(long)]
    cache: bool,
}

/// Runs the command.
pub fn run(options: &CleanOptions) -> Result<ExitCode> {
    let clone = clone_folder()?;
    Store::open(&guest_folder(&clone))?.clear()?;
    namespace::remove_tree(&clone.join("target/static"))?;
    if options.cache {
        Store::open(&cache_folder()?)?.clear()?;
    }
    Ok(ExitCode::SUCCESS)
}

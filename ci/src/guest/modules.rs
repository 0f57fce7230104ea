// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Modules of a stock kernel's packages, for the archives that bring them into a guest or an outer machine.

use std::path::Path;

use anyhow::{Context, Result};
use ersatz_guest_image::kernel_module::load_order;
use ersatz_guest_image::module_folder::ModuleFolder;

/// The modules that are named and all they depend on, by name with their content, in the order in which they load.
///
/// # Errors
///
/// Fails if one is not below `folder`, or cannot be read.
pub fn collect(folder: &Path, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let modules = ModuleFolder::open(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    load_order(names, |name| modules.read(name)).context("collecting kernel modules")
}

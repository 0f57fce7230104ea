// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernel modules of the user's own, built in the folder that they are in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail};

use crate::kernel::GuestKernel;
use crate::toolchain::{Mount, Toolchain};

/// `$1` is the release, `$2` the number of jobs; further arguments are variables for make. What a guest loads has no debug information:
/// it would have to read all of it.
const MAKE: &str = r#"
release=$1 jobs=$2; shift 2
make -C /mnt/linux M=/mnt/module "KERNELRELEASE=$release" "-j$jobs" "$@" modules
for module in /mnt/module/*.ko; do x86_64-linux-gnu-strip --strip-debug "$module"; done
"#;

/// Builds what is in a folder, with the output of make where that of this program goes. Returns the files of the modules.
pub fn build(toolchain: &Toolchain, kernel: &GuestKernel, folder: &Path) -> Result<Vec<PathBuf>> {
    let folder = folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))?;
    if !["Kbuild", "Makefile"].iter().any(|name| folder.join(name).is_file()) {
        bail!("{} has no Kbuild; `ersatz new-driver NAME` makes a folder that has", folder.display());
    }
    let compiler = &kernel.tree.compiler;
    let mut mounts = vec![Mount::read("linux", &kernel.tree.folder), Mount::write("module", &folder)];
    mounts.extend(compiler.mount());
    let jobs = available_parallelism().map_or(1, usize::from).to_string();
    let arguments = [&[kernel.release.as_str(), &jobs], compiler.make_variables()].concat();
    let script = format!("{}{MAKE}", compiler.environment());
    let status = toolchain.shell(&mounts, &script, &arguments).stdin(Stdio::null()).status()?;
    if !status.success() {
        bail!("the module in {} does not build, as said above", folder.display());
    }
    let mut modules = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "ko") {
            modules.push(path);
        }
    }
    modules.sort();
    Ok(modules)
}

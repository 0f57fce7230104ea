// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask setup`: all that does not depend on the sources of the clone.

use std::process::ExitCode;

use anyhow::Result;
use ersatz_guest_image::pins::Pins;

use super::KernelOption;
use crate::host;
use crate::kernel::debug::DebugKernel;
use crate::kernel::hmm_tests::HmmTests;
use crate::kernel::packages::KernelPackages;
use crate::kernel::tree::KernelTree;
use crate::kernel::{GuestKernel, build_tree};
use crate::namespace;
use crate::progress::Progress;
use crate::store::{Store, cache_folder};
use crate::toolchain::Toolchain;

/// What builds need: made once, and kept in the cache.
pub struct Prerequisites {
    /// The compilers, QEMU, busybox.
    pub toolchain: Toolchain,
    /// The stock kernel, which outer machines boot.
    pub packages: KernelPackages,
    /// What guests boot.
    pub kernel: GuestKernel,
    /// The kernel's own tests of device memory.
    pub hmm_tests: HmmTests,
}

/// Runs the command.
pub fn run(option: &KernelOption) -> Result<ExitCode> {
    let progress = Progress::new();
    let cache = prepare_host(&progress)?;
    let prerequisites = prepare(&cache, &progress, option)?;
    progress.say(&format!("ready: kernel {} in {}", prerequisites.kernel.release, cache.root().display()));
    Ok(ExitCode::SUCCESS)
}

/// Opens the cache and gets this machine ready. Quick when it is.
pub fn prepare_host(progress: &Progress) -> Result<Store> {
    let cache = Store::open(&cache_folder()?)?;
    host::install_packages(progress, &cache.log("debian-packages"))?;
    namespace::check()?;
    cache.sweep(progress)?;
    Ok(cache)
}

/// Makes toolchain root, stock kernel and kernel tree, or in place of that the debug kernel; a tree of the user's own is there.
pub fn prepare(cache: &Store, progress: &Progress, option: &KernelOption) -> Result<Prerequisites> {
    let pins = Pins::load()?;
    let tree = option.tree()?;
    // The debug kernel is of the default series. Beside a tree of the user's own, the stock kernel is for the outer machine.
    let pin = pins.kernel(option.kernel.as_deref().filter(|_| !option.is_debug() && tree.is_none()))?;
    let toolchain = Toolchain::prepare(cache, progress, &pins.distribution)?;
    let packages = KernelPackages::prepare(cache, progress, &toolchain, pin)?;
    let kernel = if let Some(tree) = &tree {
        build_tree::kernel(cache, progress, &toolchain, tree)?
    } else if option.is_debug() {
        DebugKernel::prepare(cache, progress, &toolchain, &packages)?.into()
    } else {
        GuestKernel::stock(&packages, KernelTree::prepare(cache, progress, &toolchain, &packages)?)
    };
    let hmm_tests = HmmTests::prepare(cache, progress, &toolchain, &packages)?;
    Ok(Prerequisites { toolchain, packages, kernel, hmm_tests })
}

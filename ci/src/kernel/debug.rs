// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The debug kernel: the stock kernel's source with the kernel's own checkers compiled in, and with what guests need.
//!
//! Rust and KASAN together need a kernel built by clang; with gcc, Kconfig turns Rust off without a word.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail};

use super::compiler::{Compiler, Llvm};
use super::packages::KernelPackages;
use super::tree::KernelTree;
use crate::fingerprint::Inputs;
use crate::progress::Progress;
use crate::step::{Step, Work};
use crate::store::Store;
use crate::toolchain::{Mount, Toolchain};

/// What is set on top of the architecture's `defconfig`: `NAME=VALUE` lines.
const FRAGMENT: &str = include_str!("debug.config");

/// The name of the fragment in the tree.
const FRAGMENT_FILE: &str = "debug.config";

/// `$1` is the series.
const UNPACK: &str = r#"
xz -dc -T0 "/mnt/packages/usr/src/linux-source-$1.tar.xz" | tar -x --strip-components=1 -C /mnt/linux
"#;

/// The arguments are variables for make.
const CONFIGURE: &str = r#"
cd /mnt/linux
make "$@" defconfig
cat debug.config >> .config
make "$@" olddefconfig
"#;

/// `$1` is the number of jobs; further arguments are variables for make. Modules are built out of tree afterwards, so what only
/// the kernel itself is made of goes: its objects, and most of its source.
const BUILD: &str = r#"
cd /mnt/linux
jobs=$1; shift
make "$@" "-j$jobs" bzImage modules
find . -path ./scripts -prune -o -path ./tools -prune -o \( -name '*.o' -o -name '*.a' -o -name '.*.cmd' \) -type f -exec rm {} +
rm -rf vmlinux.unstripped .tmp_vmlinux* vmlinux.map arch/x86/boot/compressed Documentation tools/testing
find drivers fs net samples sound -name '*.c' -exec rm {} +
"#;

/// A debug kernel that is whole.
#[derive(Clone, Debug)]
pub struct DebugKernel {
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// Its tree, for modules.
    pub tree: KernelTree,
}

impl DebugKernel {
    /// Builds the kernel in the cache, from the source package of a stock kernel.
    pub fn prepare(
        cache: &Store,
        progress: &Progress,
        toolchain: &Toolchain,
        packages: &KernelPackages,
    ) -> Result<Self> {
        let llvm = Llvm::prepare(cache, progress, toolchain)?;
        let inputs = Inputs::of("debug kernel", &[UNPACK, CONFIGURE, BUILD].concat()).text(FRAGMENT);
        let fingerprint = inputs.step(&toolchain.fingerprint).step(&llvm.fingerprint).step(&packages.fingerprint);
        let fingerprint = fingerprint.fingerprint();
        let compiler = Compiler::Llvm(llvm);
        let step = Step {
            store: cache,
            name: format!("debug-{}-{}", packages.kernel.series, fingerprint.short()),
            title: "debug kernel (half an hour of processor time)",
            inputs: fingerprint.clone(),
            advice: "check that the cache has 6 GB of free space, then run the same command again",
        };
        let folder = step.run(progress, |work| build(work, toolchain, packages, &compiler))?;
        let release = fs::read_to_string(folder.join("include/config/kernel.release"));
        let release = release.context("the debug kernel in the cache is damaged")?.trim().to_owned();
        Ok(Self { release, tree: KernelTree { folder, fingerprint, compiler } })
    }

    /// The kernel as an ELF file.
    pub fn vmlinux(&self) -> PathBuf {
        self.tree.folder.join("vmlinux")
    }

    /// The same kernel, compressed.
    pub fn bz_image(&self) -> PathBuf {
        self.tree.folder.join("arch/x86/boot/bzImage")
    }
}

fn build(work: &Work<'_>, toolchain: &Toolchain, packages: &KernelPackages, compiler: &Compiler) -> Result<()> {
    let unpacked = packages.unpacked();
    let mut mounts = vec![Mount::write("linux", &work.folder), Mount::read("packages", &unpacked)];
    mounts.extend(compiler.mount());
    work.stage.at("unpacking the source");
    work.log.run("unpacking", &mut toolchain.shell(&mounts, UNPACK, &[&packages.kernel.series]))?;
    fs::write(work.folder.join(FRAGMENT_FILE), FRAGMENT)?;

    work.stage.at("configuring");
    let script = |text| format!("{}{text}", compiler.environment());
    let variables = compiler.make_variables();
    work.log.run("make defconfig", &mut toolchain.shell(&mounts, &script(CONFIGURE), variables))?;
    check_config(&work.folder)?;

    work.stage.at("compiling");
    let jobs = available_parallelism().map_or(1, usize::from).to_string();
    let arguments = [&[jobs.as_str()], variables].concat();
    work.log.run("make", &mut toolchain.shell(&mounts, &script(BUILD), &arguments))
}

/// Checks that Kconfig kept every option of the fragment: it drops one whose dependencies are not met.
fn check_config(tree: &Path) -> Result<()> {
    let config = fs::read_to_string(tree.join(".config")).context("make left no configuration")?;
    let dropped = dropped_options(FRAGMENT, &config);
    if !dropped.is_empty() {
        bail!("Kconfig dropped {}: set in debug.config what they depend on", dropped.join(", "));
    }
    Ok(())
}

/// The lines of the fragment that a configuration does not hold. An option that is not set is the same as one that is not there.
fn dropped_options<'a>(fragment: &'a str, config: &str) -> Vec<&'a str> {
    let holds = |line: &str| match line.strip_suffix("=n") {
        Some(name) => !config.lines().any(|set| set.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))),
        None => config.lines().any(|set| set == line),
    };
    fragment.lines().filter(|line| line.starts_with("CONFIG_") && !holds(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_kconfig_dropped_are_named() {
        let fragment = "# a comment\nCONFIG_RUST=y\nCONFIG_KASAN=y\n\nCONFIG_DRM=n\nCONFIG_FB=n\nCONFIG_NAME=\"x\"\n";
        let config = "CONFIG_KASAN=y\n# CONFIG_DRM is not set\nCONFIG_FB=y\nCONFIG_FB_CORE=y\nCONFIG_NAME=\"x\"\n";
        assert_eq!(dropped_options(fragment, config), ["CONFIG_RUST=y", "CONFIG_FB=n"]);
        assert!(dropped_options(fragment, "CONFIG_RUST=y\nCONFIG_KASAN=y\nCONFIG_NAME=\"x\"\n").is_empty());
    }

    #[test]
    fn every_option_is_set_once() {
        let mut names: Vec<_> =
            FRAGMENT.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }
}

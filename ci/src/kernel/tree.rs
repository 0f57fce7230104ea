// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A kernel tree that Rust modules for the stock kernel can be built with.
//!
//! The distribution's headers have no Rust metadata. The same source, configuration and compilers give the same, and with
//! it the same mangled names as in the stock kernel's `Module.symvers`; so the kernel itself need not be built.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::Result;

use super::compiler::Compiler;
use super::likeness;
use super::packages::KernelPackages;
use crate::fingerprint::{Fingerprint, Inputs};
use crate::progress::Progress;
use crate::step::{Step, Work};
use crate::store::Store;
use crate::toolchain::{Mount, Toolchain};

/// `$1` is the series, `$2` the release. What is compiled into the kernel alone is left out: two thirds of the source.
const UNPACK: &str = r#"
set -f
for part in drivers fs net samples sound; do set -- "$@" --exclude="linux-source-$1/$part/*.c"; done
for part in Documentation/*/ tools/perf/ tools/testing/; do set -- "$@" --exclude="linux-source-$1/$part*"; done
for kind in c h S dts dtsi; do set -- "$@" --exclude="linux-source-$1/arch/[!x]*.$kind"; done
source=/mnt/packages/usr/src/linux-source-$1.tar.xz config=/mnt/packages/usr/lib/modules/$2/config; shift 2
xz -dc -T0 "$source" | tar -x --strip-components=1 -C /mnt/linux "$@"
cp "$config" /mnt/linux/.config
"#;

/// `$1` is the release, `$2` the number of jobs.
const PREPARE: &str = r#"
cd /mnt/linux
make CC=x86_64-linux-gnu-gcc-14 HOSTCC=gcc-14 "KERNELRELEASE=$1" olddefconfig
make CC=x86_64-linux-gnu-gcc-14 HOSTCC=gcc-14 "KERNELRELEASE=$1" "-j$2" prepare modules_prepare
cp "/mnt/packages/usr/src/linux-headers-$1/Module.symvers" .
"#;

/// A prepared tree.
#[derive(Clone, Debug)]
pub struct KernelTree {
    /// Its folder. In the toolchain root it must be seen as `/mnt/linux`, where it was prepared.
    pub folder: PathBuf,
    /// What it was made from.
    pub fingerprint: Fingerprint,
    /// What it was made with, and modules must be.
    pub compiler: Compiler,
}

impl KernelTree {
    /// Prepares the tree for a kernel.
    pub fn prepare(
        cache: &Store,
        progress: &Progress,
        toolchain: &Toolchain,
        packages: &KernelPackages,
    ) -> Result<Self> {
        let inputs = Inputs::of("kernel tree", &[UNPACK, PREPARE].concat());
        let fingerprint = inputs.step(&toolchain.fingerprint).step(&packages.fingerprint).fingerprint();
        let step = Step {
            store: cache,
            name: format!("tree-{}-{}", packages.kernel.series, fingerprint.short()),
            title: "kernel tree for modules",
            inputs: fingerprint.clone(),
            advice: "check that the cache has 3 GB of free space, then run the same command again",
        };
        let folder = step.run(progress, |work| prepare(work, toolchain, packages))?;
        Ok(Self { folder, fingerprint, compiler: Compiler::Gcc })
    }

    /// Whether the tree has been built with this module as a file.
    pub fn has_module(&self, name: &str) -> bool {
        let order = fs::read_to_string(self.folder.join("modules.order")).unwrap_or_default();
        order.lines().any(|path| Path::new(path).file_stem().is_some_and(|stem| stem == name))
    }
}

fn prepare(work: &Work<'_>, toolchain: &Toolchain, packages: &KernelPackages) -> Result<()> {
    let unpacked = packages.unpacked();
    let mounts = [Mount::write("linux", &work.folder), Mount::read("packages", &unpacked)];
    let kernel = &packages.kernel;
    work.stage.at("unpacking the source");
    work.log.run("unpacking", &mut toolchain.shell(&mounts, UNPACK, &[&kernel.series, &kernel.release]))?;
    work.stage.at("rebuilding the Rust metadata");
    let jobs = available_parallelism().map_or(1, usize::from).to_string();
    work.log.run("make", &mut toolchain.shell(&mounts, PREPARE, &[&kernel.release, &jobs]))?;

    work.stage.at("comparing with the stock kernel");
    likeness::check(&work.folder, &packages.modules().join("config"))?;
    Ok(())
}

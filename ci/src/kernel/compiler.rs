// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The C compiler that a kernel is built with. Modules for it are built with the same one.

use std::path::PathBuf;

use anyhow::Result;

use super::packages::UPDATE;
use crate::fingerprint::{Fingerprint, Inputs};
use crate::progress::Progress;
use crate::step::Step;
use crate::store::Store;
use crate::toolchain::{Mount, Toolchain};

/// The packages of LLVM, of the version that the toolchain root's rustc has.
const PACKAGES: &[&str] = &["clang-19", "lld-19", "llvm-19"];

/// Fetches the packages given with all they need that the toolchain root lacks, and unpacks them. Nothing is installed, so
/// nobody else's packages matter: the lock that apt would take is one in the root, which is read-only.
const FETCH: &str = r#"
export APT_CONFIG=/mnt/work/apt/conf
apt-get -q --yes --no-install-recommends --download-only -o Debug::NoLocking=true install "$@"
for package in /mnt/work/apt/archives/*.deb; do dpkg-deb -x "$package" /mnt/work; done
rm -r /mnt/work/apt
"#;

/// The name of the folder with LLVM below `/mnt` in the toolchain root.
const MOUNT: &str = "llvm";

/// A C compiler.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// The toolchain root's gcc, which stock kernels are built with.
    Gcc,
    /// LLVM from a folder beside the toolchain root.
    Llvm(Llvm),
}

/// Unpacked packages of LLVM.
#[derive(Clone, Debug)]
pub struct Llvm {
    folder: PathBuf,
    /// What it was made from.
    pub fingerprint: Fingerprint,
}

impl Llvm {
    /// Fetches the packages into the cache.
    pub fn prepare(cache: &Store, progress: &Progress, toolchain: &Toolchain) -> Result<Self> {
        let packages = PACKAGES.join(" ");
        let inputs = Inputs::of("llvm", &[UPDATE, FETCH].concat()).text(&packages).step(&toolchain.fingerprint);
        let fingerprint = inputs.fingerprint();
        let step = Step {
            store: cache,
            name: format!("llvm-{}", fingerprint.short()),
            title: "LLVM",
            inputs: fingerprint.clone(),
            advice: "check that the Debian mirror is reachable and that the cache has 1 GB of free space, then run the \
                     same command again",
        };
        let folder = step.run(progress, |work| {
            let mounts = [Mount::write("work", &work.folder)];
            work.stage.at("reading the package index");
            work.log.run("apt-get update", &mut toolchain.shell(&mounts, UPDATE, &[]))?;
            work.stage.at("fetching");
            work.log.run("fetching packages", &mut toolchain.shell(&mounts, FETCH, PACKAGES))
        })?;
        Ok(Self { folder, fingerprint })
    }
}

impl Compiler {
    /// What must be mounted in the toolchain root for it.
    pub fn mount(&self) -> Option<Mount<'_>> {
        match self {
            Self::Gcc => None,
            Self::Llvm(llvm) => Some(Mount::read(MOUNT, &llvm.folder)),
        }
    }

    /// The C compiler's program.
    pub fn cc(&self) -> &'static str {
        match self {
            Self::Gcc => "x86_64-linux-gnu-gcc-14",
            Self::Llvm(_) => "/mnt/llvm/usr/lib/llvm-19/bin/clang",
        }
    }

    /// The beginning of a script that calls make with [`Self::make_variables`].
    pub fn environment(&self) -> &'static str {
        match self {
            Self::Gcc => "",
            Self::Llvm(_) => "export LD_LIBRARY_PATH=/mnt/llvm/usr/lib/x86_64-linux-gnu\n",
        }
    }

    /// The variables by which Kbuild takes this compiler. As a path they are part of what Kbuild compares between two builds.
    pub fn make_variables(&self) -> &'static [&'static str] {
        match self {
            Self::Gcc => &["CC=x86_64-linux-gnu-gcc-14", "HOSTCC=gcc-14"],
            Self::Llvm(_) => &["LLVM=/mnt/llvm/usr/lib/llvm-19/bin/"],
        }
    }
}

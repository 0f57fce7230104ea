// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask build`: everything that `ersatz run` boots, and the manifest that lists it.

use std::process::ExitCode;
use std::thread;

use anyhow::{Result, anyhow};
use ersatz_guest_image::manifest::Manifest;

use super::setup::{self, Ground};
use super::{KernelOption, clone_folder, guest_folder};
use crate::guest::driver::{self, Flavour};
use crate::guest::programs::Programs;
use crate::guest::{initramfs, outer};
use crate::progress::Progress;
use crate::store::Store;

/// What was built.
pub struct Built {
    /// What it stands on.
    pub ground: Ground,
    /// The clone's store for this series.
    pub store: Store,
    /// The programs for the guest.
    pub programs: Programs,
}

/// Runs the command.
pub fn run(option: &KernelOption) -> Result<ExitCode> {
    let progress = Progress::new();
    let built = build(&progress, option)?;
    progress.say(&format!(
        "built for kernel {}: try `cargo run --release -p ersatz -- run` (manifest in {})",
        built.ground.packages.kernel.release,
        built.store.root().display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Sets up and builds. Cargo compiles while packages come in.
pub fn build(progress: &Progress, option: &KernelOption) -> Result<Built> {
    let clone = clone_folder()?;
    let cache = setup::prepare_host(progress)?;
    let logs = Store::open(&guest_folder(&clone))?;
    let (ground, programs) = thread::scope(|scope| {
        let programs = scope.spawn(|| Programs::build(&clone, progress, &logs.log("programs")));
        let ground = setup::prepare(&cache, progress, option);
        let programs = programs.join().map_err(|_| anyhow!("the thread that runs cargo panicked"));
        Ok::<_, anyhow::Error>((ground?, programs??))
    })?;

    let kernel = &ground.packages.kernel;
    let store = Store::open(&guest_folder(&clone).join(&kernel.series))?;
    let module =
        driver::build(&store, progress, (&clone, &ground.toolchain), (&kernel.release, &ground.tree), Flavour::Module)?;
    let manifest = Manifest {
        release: kernel.release.clone(),
        bz_image: ground.packages.bz_image(),
        vmlinux: ground.packages.vmlinux(),
        initramfs: initramfs::build(&store, progress, &ground.toolchain, &programs, &module)?,
        outer_initramfs: outer::build(&store, progress, &ground.packages, &programs)?,
        static_ersatz: programs.vmm(),
        toolchain_root: ground.toolchain.root.clone(),
    };
    manifest.save(store.root())?;
    Ok(Built { ground, store, programs })
}

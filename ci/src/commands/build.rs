// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask build`: everything that `ersatz run` boots, and the manifest that lists it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::{Result, anyhow};
use ersatz_guest_image::manifest::Manifest;

use super::setup::{self, Prerequisites};
use super::{KernelOption, clone_folder, guest_folder};
use crate::guest::driver::{self, Flavour, Modules};
use crate::guest::programs::Programs;
use crate::guest::{initramfs, outer, test_driver};
use crate::progress::Progress;
use crate::store::Store;

/// What was built.
pub struct Built {
    /// What it stands on.
    pub prerequisites: Prerequisites,
    /// The clone's store for this kernel.
    pub store: Store,
    /// The programs for the guest.
    pub programs: Programs,
}

/// Builds from the sources of this clone.
pub struct Builder<'a> {
    clone: PathBuf,
    progress: &'a Progress,
    /// For what is the same for all kernels.
    common: Store,
}

/// Runs the command.
pub fn run(option: &KernelOption) -> Result<ExitCode> {
    let progress = Progress::new();
    let built = build(&progress, option)?;
    progress.say(&format!(
        "built for kernel {}: try `{} run`",
        built.prerequisites.kernel.release,
        built.programs.vmm().display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Sets up and builds. Cargo compiles while packages come in.
pub fn build(progress: &Progress, option: &KernelOption) -> Result<Built> {
    let cache = setup::prepare_host(progress)?;
    let builder = Builder::new(progress)?;
    let (prerequisites, programs) = thread::scope(|scope| {
        let programs = scope.spawn(|| Programs::build(&builder.clone, progress, &builder.log("programs")));
        let prerequisites = setup::prepare(&cache, progress, option);
        let programs = programs.join().map_err(|_| anyhow!("the thread that runs cargo panicked"));
        Ok::<_, anyhow::Error>((prerequisites?, programs??))
    })?;
    builder.assemble(prerequisites, programs)
}

impl<'a> Builder<'a> {
    /// A builder for the clone this program was built in.
    pub fn new(progress: &'a Progress) -> Result<Self> {
        let clone = clone_folder()?;
        let common = Store::open(&guest_folder(&clone))?;
        Ok(Self { clone, progress, common })
    }

    /// The top of the clone.
    pub fn clone_folder(&self) -> &Path {
        &self.clone
    }

    /// What the user sees.
    pub fn progress(&self) -> &Progress {
        self.progress
    }

    /// Where the log of something that is the same for all kernels goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.common.log(name)
    }

    /// Builds the driver and the module that holds tasks.
    pub fn modules(&self, store: &Store, prerequisites: &Prerequisites, flavour: Flavour) -> Result<Modules> {
        let kernel = &prerequisites.kernel;
        driver::build(
            store,
            self.progress,
            (&self.clone, &prerequisites.toolchain),
            (&kernel.release, &kernel.tree),
            flavour,
        )
    }

    /// Builds the modules and packs all that is to be booted.
    pub fn assemble(&self, prerequisites: Prerequisites, programs: Programs) -> Result<Built> {
        let (packages, kernel) = (&prerequisites.packages, &prerequisites.kernel);
        let store = Store::open(&guest_folder(&self.clone).join(&kernel.name))?;
        let built = self.modules(&store, &prerequisites, Flavour::Module)?;
        let brought = initramfs::build_programs(&store, self.progress, &programs, &built, kernel)?;
        let manifest = Manifest {
            release: kernel.release.clone(),
            bz_image: kernel.bz_image.clone(),
            vmlinux: kernel.vmlinux.clone(),
            initramfs: initramfs::build(&store, self.progress, &prerequisites.toolchain, &programs)?,
            programs: brought.archive,
            test_names: brought.test_names,
            test_driver: test_driver::build(&store, self.progress, &prerequisites.toolchain, kernel)?,
            hmm_tests: prerequisites.hmm_tests.program.clone(),
            hmm_test_names: prerequisites.hmm_tests.names.clone(),
            modules: kernel.modules.clone(),
            outer_vmlinux: packages.vmlinux(),
            outer_initramfs: outer::build(&store, self.progress, packages, &programs)?,
            static_ersatz: programs.vmm(),
            toolchain_root: prerequisites.toolchain.root.clone(),
            tree: kernel.record.clone(),
        };
        manifest.save(store.root())?;
        Ok(Built { prerequisites, store, programs })
    }
}

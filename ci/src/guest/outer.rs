// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The initramfs of the outer machine of `--accel nested`: PID 1 and the modules that make KVM and shared folders work.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use ersatz_guest_image::initramfs::Archive;
use ersatz_guest_image::outer::{MODULES, MODULES_FOLDER};

use super::initramfs::{ARCHIVE, add_base};
use super::modules;
use super::programs::Programs;
use crate::fingerprint::Inputs;
use crate::kernel::packages::KernelPackages;
use crate::progress::Progress;
use crate::step::Step;
use crate::store::Store;

/// Packs the archive and returns its path.
pub fn build(store: &Store, progress: &Progress, packages: &KernelPackages, programs: &Programs) -> Result<PathBuf> {
    let inputs =
        Inputs::of("outer initramfs", &MODULES.join(" ")).step(&packages.fingerprint).file(&programs.init())?;
    let step = Step {
        store,
        name: "outer-initramfs".to_owned(),
        title: "outer initramfs",
        inputs: inputs.fingerprint(),
        advice: "run `cargo xtask clean` and the same command again",
    };
    let folder = step.run(progress, |work| {
        let modules = modules::collect(&packages.modules(), MODULES)?;
        let mut archive = Archive::new();
        add_base(&mut archive)?;
        archive.file_from("/init", 0o755, &programs.init())?;
        for (name, content) in modules {
            archive.file(&format!("{MODULES_FOLDER}/{name}.ko"), 0o644, content)?;
        }
        fs::write(work.folder.join(ARCHIVE), archive.to_bytes()?)?;
        Ok(())
    })?;
    Ok(folder.join(ARCHIVE))
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What guests boot with, and what each run brings: the initramfs with PID 1 and busybox, and the archive with the driver and the
//! tests. They are apart so that a change of the second leaves snapshots of booted guests good. Neither is compressed: a guest
//! under emulation unpacks no slower than it is copied into memory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use ersatz_guest_image::initramfs::Archive;
use ersatz_guest_image::run::{
    DRIVER_PATH, HOLD_MODULE_PATH, RAM_MODULE_PATH, SWAP_MODULES, SWAP_MODULES_FOLDER, TESTS_PATH,
};

use super::driver::Modules;
use super::modules;
use super::programs::Programs;
use crate::fingerprint::Inputs;
use crate::kernel::GuestKernel;
use crate::progress::Progress;
use crate::step::Step;
use crate::store::Store;
use crate::toolchain::Toolchain;

/// The name of an archive in its folder.
pub const ARCHIVE: &str = "initramfs.cpio";

/// The name of the list of tests beside the archive that has the tests.
const TEST_NAMES: &str = "test-names";

/// What to do when a step fails.
const ADVICE: &str = "run `cargo xtask clean` and the same command again";

/// A file of an archive: its path in the guest, its permission bits, where it comes from.
type Entry<'a> = (&'a str, u32, &'a Path);

/// Packs the initramfs and returns its path.
pub fn build(store: &Store, progress: &Progress, toolchain: &Toolchain, programs: &Programs) -> Result<PathBuf> {
    let (busybox, init) = (toolchain.root.join("usr/bin/busybox"), programs.init());
    let files: [Entry<'_>; 2] = [("/init", 0o755, &init), ("/bin/busybox", 0o755, &busybox)];
    let step = Step {
        store,
        name: "initramfs".to_owned(),
        title: "initramfs",
        inputs: inputs("initramfs", &files)?.fingerprint(),
        advice: ADVICE,
    };
    let folder = step.run(progress, |work| {
        let mut archive = Archive::new();
        add_base(&mut archive)?;
        add_files(&mut archive, &files)?;
        let applets = work.log.output("busybox", Command::new(&busybox).arg("--list"))?;
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            archive.symlink(&format!("/bin/{applet}"), "busybox")?;
        }
        Ok(std::fs::write(work.folder.join(ARCHIVE), archive.to_bytes()?)?)
    })?;
    Ok(folder.join(ARCHIVE))
}

/// What each run brings.
#[derive(Debug)]
pub struct ProgramsArchive {
    /// The archive.
    pub archive: PathBuf,
    /// The names of the tests in it, one per line.
    pub test_names: PathBuf,
}

/// Packs the modules, the tests and what these need of the kernel's own modules, if there are any. Lists the tests, which are
/// a program that this machine can run.
pub fn build_programs(
    store: &Store,
    progress: &Progress,
    programs: &Programs,
    built: &Modules,
    kernel: &GuestKernel,
) -> Result<ProgramsArchive> {
    let tests = programs.tests();
    let files: [Entry<'_>; 4] = [
        (TESTS_PATH, 0o755, &tests),
        (DRIVER_PATH, 0o644, &built.driver),
        (HOLD_MODULE_PATH, 0o644, &built.hold),
        (RAM_MODULE_PATH, 0o644, &built.ram),
    ];
    let step = Step {
        store,
        name: "programs".to_owned(),
        title: "archive of modules and tests",
        inputs: inputs("programs", &files)?
            .text(&SWAP_MODULES.join(" "))
            .text(TEST_NAMES)
            .step(&kernel.tree.fingerprint)
            .fingerprint(),
        advice: ADVICE,
    };
    let folder = step.run(progress, |work| {
        let mut archive = Archive::new();
        add_files(&mut archive, &files)?;
        if let Some(folder) = &kernel.modules {
            let collected = modules::collect(folder, &kernel.modular(SWAP_MODULES))?;
            for (index, (name, content)) in collected.into_iter().enumerate() {
                archive.file(&format!("{SWAP_MODULES_FOLDER}/{index}-{name}.ko"), 0o644, content)?;
            }
        }
        let names = work.log.output("ersatz-guest-tests", Command::new(&tests).arg("--list"))?;
        std::fs::write(work.folder.join(TEST_NAMES), names)?;
        Ok(std::fs::write(work.folder.join(ARCHIVE), archive.to_bytes()?)?)
    })?;
    Ok(ProgramsArchive { archive: folder.join(ARCHIVE), test_names: folder.join(TEST_NAMES) })
}

fn inputs(step: &str, files: &[Entry<'_>]) -> Result<Inputs> {
    files.iter().try_fold(Inputs::of(step, ""), |inputs, (name, _, source)| inputs.text(name).file(source))
}

fn add_files(archive: &mut Archive, files: &[Entry<'_>]) -> Result<()> {
    for (name, mode, source) in files {
        archive.file_from(name, *mode, source)?;
    }
    Ok(())
}

/// The folders PID 1 mounts to, and the console it has before it has mounted anything.
pub fn add_base(archive: &mut Archive) -> Result<()> {
    for folder in ["/proc", "/sys", "/dev", "/tmp", "/run", "/mnt", "/etc"] {
        archive.directory(folder)?;
    }
    archive.char_device("/dev/console", 0o600, 5, 1)?;
    archive.char_device("/dev/null", 0o666, 1, 3)?;
    Ok(())
}

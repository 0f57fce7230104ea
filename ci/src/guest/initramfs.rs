// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's initramfs: PID 1, the driver, the tests, busybox. Not compressed: a guest under emulation unpacks no slower
//! than it is copied into memory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use ersatz_guest_image::initramfs::Archive;

use super::programs::Programs;
use crate::fingerprint::Inputs;
use crate::progress::Progress;
use crate::step::Step;
use crate::store::Store;
use crate::toolchain::Toolchain;

/// The name of the archive in its folder.
pub const ARCHIVE: &str = "initramfs.cpio";

/// Packs the archive and returns its path.
pub fn build(
    store: &Store,
    progress: &Progress,
    toolchain: &Toolchain,
    programs: &Programs,
    driver: &Path,
) -> Result<PathBuf> {
    let busybox = toolchain.root.join("usr/bin/busybox");
    let (init, tests) = (programs.init(), programs.tests());
    let files = [
        ("/init", 0o755, init.as_path()),
        ("/bin/ersatz-guest-tests", 0o755, &tests),
        ("/bin/busybox", 0o755, &busybox),
        ("/lib/modules/ersatz.ko", 0o644, driver),
    ];
    let mut inputs = Inputs::of("initramfs", "");
    for (name, _, source) in files {
        inputs = inputs.text(name).file(source)?;
    }
    let step = Step {
        store,
        name: "initramfs".to_owned(),
        title: "initramfs",
        inputs: inputs.fingerprint(),
        advice: "run `cargo xtask clean` and the same command again",
    };
    let folder = step.run(progress, |work| {
        let mut archive = Archive::new();
        add_base(&mut archive)?;
        for (name, mode, source) in files {
            archive.file_from(name, mode, source)?;
        }
        let applets = work.log.output("busybox", Command::new(&busybox).arg("--list"))?;
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            archive.symlink(&format!("/bin/{applet}"), "busybox")?;
        }
        std::fs::write(work.folder.join(ARCHIVE), archive.to_bytes()?)?;
        Ok(())
    })?;
    Ok(folder.join(ARCHIVE))
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

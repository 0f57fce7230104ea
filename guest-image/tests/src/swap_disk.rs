// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Something to swap to.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Command;

use ersatz_guest_image::run::SWAP_MODULES_FOLDER;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

const ZRAM: &str = "/dev/zram0";

/// A compressed disk in memory that the guest swaps to, until this is dropped: tests that follow have nothing to swap to.
#[derive(Debug)]
pub struct SwapDisk(());

impl SwapDisk {
    /// Makes the disk, and swaps to it from here on.
    ///
    /// # Panics
    ///
    /// If the guest has no such disk or the kernel refuses it.
    pub fn on() -> Self {
        Self::try_on().unwrap_or_else(|error| panic!("no swap: {error}"))
    }

    /// The same.
    ///
    /// # Errors
    ///
    /// If the guest has no such disk or the kernel refuses it.
    pub fn try_on() -> io::Result<Self> {
        if !Path::new(ZRAM).exists() {
            load_modules()?;
        }
        std::fs::write("/sys/block/zram0/reset", "1")?;
        std::fs::write("/sys/block/zram0/disksize", "32M")?;
        run("mkswap")?;
        run("swapon")?;
        Ok(Self(()))
    }
}

impl Drop for SwapDisk {
    fn drop(&mut self) {
        // Of a test that fails, too: the tests that follow make the disk anew.
        let off = run("swapoff");
        if !std::thread::panicking() {
            off.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// Runs a program on the disk.
fn run(program: &str) -> io::Result<()> {
    let status = Command::new(program).arg(ZRAM).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{program} {ZRAM}: {status}"))) }
}

/// Loads the module of such disks.
pub fn load_modules() -> io::Result<()> {
    let mut modules = std::fs::read_dir(SWAP_MODULES_FOLDER)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    modules.sort();
    for module in modules {
        match finit_module(File::open(&module)?, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

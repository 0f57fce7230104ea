// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Something to swap to.

use std::fs::File;
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
        if !Path::new(ZRAM).exists() {
            load_modules();
        }
        std::fs::write("/sys/block/zram0/reset", "1").expect("a fresh zram0");
        std::fs::write("/sys/block/zram0/disksize", "32M").expect("the size of zram0");
        run("mkswap");
        run("swapon");
        Self(())
    }
}

impl Drop for SwapDisk {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            run("swapoff");
        }
    }
}

/// Runs a program on the disk.
fn run(program: &str) {
    let status = Command::new(program).arg(ZRAM).status().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {ZRAM}: {status}");
}

fn load_modules() {
    let mut modules: Vec<_> = std::fs::read_dir(SWAP_MODULES_FOLDER)
        .unwrap_or_else(|error| panic!("{SWAP_MODULES_FOLDER}: {error}"))
        .map(|entry| entry.expect("an entry of a folder").path())
        .collect();
    modules.sort();
    for module in modules {
        let file = File::open(&module).expect("a module");
        match finit_module(file, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => panic!("cannot load {}: {error}", module.display()),
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether the drivers that `ersatz new-driver` writes build, work, and keep to the rules of the device.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::Tally;
use crate::guest::own_module;
use crate::kernel::GuestKernel;
use crate::namespace;
use crate::progress::Progress;
use crate::store::Store;
use crate::toolchain::Toolchain;

/// What each says when its page has come back.
const SUCCESS: &str = "copied 4096 bytes to VRAM and back";

/// Writes, builds and runs one in each language.
pub fn check(
    ersatz: &Path,
    (toolchain, kernel): (&Toolchain, &GuestKernel),
    store: &Store,
    progress: &Progress,
) -> Tally {
    let mut sum = Tally::default();
    for (language, options) in [("Rust", &[][..]), ("C", &["--c"])] {
        let stage = progress.stage(&format!("a new driver in {language}"));
        let result = try_one(ersatz, (toolchain, kernel), store, options);
        if let Err(error) = &result {
            stage.say(&format!("FAILED: {error:#}"));
        }
        stage.done();
        sum += Tally::check(result.is_ok());
    }
    sum
}

fn try_one(
    ersatz: &Path,
    (toolchain, kernel): (&Toolchain, &GuestKernel),
    store: &Store,
    options: &[&str],
) -> Result<()> {
    let run = |arguments: &[&str]| -> Result<String> {
        let output = Command::new(ersatz)
            .args(arguments)
            .env("ERSATZ_GUEST", store.root())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", ersatz.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let messages = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?} ended with {}: {text}{messages}", output.status);
        Ok(text)
    };
    let top = store.root().join(".new-driver");
    namespace::remove_tree(&top)?;
    fs::create_dir_all(&top)?;
    let path = |name: &str| top.join(name).to_string_lossy().into_owned();
    let (folder, trace) = (path("my_gpu"), path("trace"));

    run(&[&["new-driver"], options, &[&folder]].concat())?;
    let modules = own_module::build(toolchain, kernel, Path::new(&folder))?;
    let module = path("my_gpu/my_gpu.ko");
    ensure!(modules.iter().any(|built| *built == Path::new(&module)), "the build left {modules:?}");
    let machine = ["run", "--accel", "tcg", "--vram", "16M", "--timeout", "300", "--kernel", &kernel.name];
    let driver = ["--no-driver", "--module", &module, "--trace", &trace];
    let text = run(&[&machine[..], &driver, &["--", "sh", "-c", "dmesg; rmmod my_gpu"]].concat())?;
    ensure!(text.contains(SUCCESS), "the driver's page did not come back: {text}");
    run(&["trace", "check", &trace])?;
    namespace::remove_tree(&top)
}

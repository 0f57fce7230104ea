// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask ersatz ...`: the tool, with everything it boots as the sources of this clone have it now.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Result, anyhow};
use clap::Args;
use ersatz_guest_image::manifest::DEBUG_KERNEL;
use ersatz_guest_image::pins::Pins;

use super::{KernelOption, build};
use crate::progress::Progress;

/// What to run.
#[derive(Debug, Args)]
pub struct ErsatzOptions {
    /// What `ersatz` is given, for example: test roundtrip --accel tcg
    #[arg(value_name = "ARGUMENT", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// Builds what has changed and becomes the tool; returns only if that fails.
pub fn run(options: &ErsatzOptions) -> Result<ExitCode> {
    let kernel = kernel_of(&options.arguments, &Pins::load()?);
    let built = build::build(&Progress::new(), &kernel)?;
    let ersatz = built.programs.vmm();
    let error = Command::new(&ersatz).args(&options.arguments).env("ERSATZ_GUEST", built.store.root()).exec();
    Err(anyhow!(error).context(format!("cannot start {}", ersatz.display())))
}

/// The kernel that the tool's option `--kernel` names; the default one if it names none, or a file.
fn kernel_of(arguments: &[OsString], pins: &Pins) -> KernelOption {
    // What is behind `--` is the guest's.
    let mut words = arguments.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    let named = loop {
        match words.next() {
            None => break None,
            Some("--kernel") => break words.next(),
            Some(word) => {
                if let Some(value) = word.strip_prefix("--kernel=") {
                    break Some(value);
                }
            }
        }
    };
    let built = named.filter(|named| *named == DEBUG_KERNEL || pins.series().any(|series| series == *named));
    KernelOption { kernel: built.map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_that_of_the_tool() {
        let pins = Pins::load().unwrap();
        let last = pins.series().last().unwrap();
        let with_equals = format!("--kernel={last}");
        let kernel = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            kernel_of(&words, &pins).kernel
        };
        assert_eq!(kernel(&["test", "--kernel", last, "fork"]).as_deref(), Some(last));
        assert_eq!(kernel(&["test", "--kernel", DEBUG_KERNEL]).as_deref(), Some(DEBUG_KERNEL));
        assert_eq!(kernel(&["run", &with_equals]).as_deref(), Some(last));
        assert_eq!(kernel(&["run", "--accel", "tcg"]), None);
        assert_eq!(kernel(&["run", "--kernel", "/boot/vmlinuz"]), None);
        assert_eq!(kernel(&["run", "--", "uname", "--kernel", last]), None);
    }
}

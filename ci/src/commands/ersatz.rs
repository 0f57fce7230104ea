// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask ersatz ...`: the tool, with everything it boots as the sources of this clone have it now.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Result, anyhow};
use clap::Args;
use ersatz_guest_image::manifest::DEBUG_KERNEL;
use ersatz_guest_image::pins::Pins;

use super::{KernelOption, build, is_folder};
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
    let kernels = kernels_of(&options.arguments, &Pins::load()?);
    let progress = Progress::new();
    let built = kernels.iter().map(|kernel| build::build(&progress, kernel)).collect::<Result<Vec<_>>>()?;
    let [first, others @ ..] = &built[..] else { return Err(anyhow!("no kernel to build for")) };
    let ersatz = first.programs.vmm();
    let mut command = Command::new(&ersatz);
    command.args(&options.arguments);
    // With several kernels the tool finds what was built for each in the clone that it is in.
    if others.is_empty() {
        command.env("ERSATZ_GUEST", first.store.root());
    }
    Err(anyhow!(command.exec()).context(format!("cannot start {}", ersatz.display())))
}

/// The kernels that the tool's option `--kernel` names; the default one if it names none, or files. A folder is a build tree.
fn kernels_of(arguments: &[OsString], pins: &Pins) -> Vec<KernelOption> {
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
    let is_built =
        |name: &&str| *name == DEBUG_KERNEL || pins.series().any(|series| series == *name) || is_folder(name, pins);
    let built = named.into_iter().flat_map(|names| names.split(',')).filter(is_built);
    let kernels: Vec<_> = built.map(|name| KernelOption { kernel: Some(name.to_owned()) }).collect();
    if kernels.is_empty() { vec![KernelOption { kernel: None }] } else { kernels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_are_those_of_the_tool() {
        let pins = Pins::load().unwrap();
        let last = pins.series().last().unwrap();
        let with_equals = format!("--kernel={last}");
        let kernel = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let kernels = kernels_of(&words, &pins).into_iter();
            kernels.map(|option| option.kernel.unwrap_or_default()).collect::<Vec<_>>()
        };
        let both = pins.series().collect::<Vec<_>>().join(",");
        assert_eq!(kernel(&["try", "--kernel", &both, "x.scenario"]), both.split(',').collect::<Vec<_>>());
        assert_eq!(kernel(&["test", "--kernel", last, "fork"]), [last]);
        assert_eq!(kernel(&["test", "--kernel", DEBUG_KERNEL]), [DEBUG_KERNEL]);
        assert_eq!(kernel(&["run", &with_equals]), [last]);
        assert_eq!(kernel(&["run", "--accel", "tcg"]), [""]);
        assert_eq!(kernel(&["run", "--kernel", "/no/such/vmlinuz"]), [""]);
        assert_eq!(kernel(&["run", "--kernel", "/"]), ["/"]);
        assert_eq!(kernel(&["run", "--", "uname", "--kernel", last]), [""]);
    }
}

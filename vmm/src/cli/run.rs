// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz run`: boots a guest with its GPUs and runs one command in it, or a shell.

use std::time::Duration;

use clap::Args;
use ersatz_guest_image::initramfs::command_archive;

use super::CommandError;
use super::guest::{GuestOptions, Mode};

/// The time limit of a command, unless `--timeout` says otherwise. A shell has none.
const COMMAND_LIMIT: Duration = Duration::from_secs(600);

/// Boot a guest with its GPUs; run a command in it, or a shell
///
/// Without CMD the guest's console is the terminal: Ctrl-A x ends the guest, Ctrl-A a types a Ctrl-A. With CMD the guest runs
/// that, for at most 10 minutes unless --timeout says otherwise, and ersatz ends with its exit status.
#[derive(Debug, Args)]
pub struct RunOptions {
    #[command(flatten)]
    guest: GuestOptions,
    /// How the driver registers VRAM: one for all GPUs, or one each
    #[arg(
        long,
        value_name = "MODE[,MODE...]",
        value_enum,
        value_delimiter = ',',
        default_value = "private",
        help_heading = "Device"
    )]
    mode: Vec<Mode>,
    /// What to run in the guest instead of a shell
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Runs the guest; returns the exit status.
///
/// # Errors
///
/// If the guest cannot be run at all. How it ended, however badly, is a status.
pub fn run(options: &RunOptions) -> Result<u8, CommandError> {
    let tail = if options.command.is_empty() { Vec::new() } else { command_archive(&options.command)? };
    let limit = (!options.command.is_empty()).then_some(COMMAND_LIMIT);
    let guest = options.guest.guest(&options.mode, tail, limit)?;
    Err(format!("cannot run {} by {:?} yet", guest.spec.kernel.display(), options.guest.accel).into())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz await-run`: what runs in the outer machine of `--accel nested` when that is saved. Not for people to type.

use std::path::PathBuf;

use clap::Args;

use super::CommandError;
use super::report::say;
use crate::accel::nested::await_run;
use crate::accel::nested::inside::{read_json, write_outcome};

/// Boot a guest by its description, on KVM, and give it a run when one comes
#[derive(Debug, Args)]
pub struct AwaitRunOptions {
    /// What the guest boots with, as JSON
    machine: PathBuf,
    /// Where to write how it ended, as JSON
    outcome: PathBuf,
}

/// Runs the guest; returns the exit status.
///
/// # Errors
///
/// Fails if the guest cannot be run at all, or the files cannot be used.
pub fn run(options: &AwaitRunOptions) -> Result<u8, CommandError> {
    let outcome = await_run::run(&read_json(&options.machine)?, &mut say)?;
    write_outcome(&options.outcome, &outcome)?;
    Ok(outcome.status())
}

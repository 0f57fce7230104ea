// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz boot-spec`: the end of `--accel nested` that runs in the outer machine. Not for people to type.

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::CommandError;
use super::report::say;
use crate::accel::accelerator::Accelerator;
use crate::accel::nested::inside::{read_json, write_outcome};
use crate::launch::{Connection, launch};
use crate::spec::GuestSpec;

/// Run a guest by its description, on KVM
#[derive(Debug, Args)]
pub struct BootSpecOptions {
    /// Pass standard input on to the guest
    #[arg(long)]
    input: bool,
    /// The guest's description, as JSON
    spec: PathBuf,
    /// Where to write how it ended, as JSON
    outcome: PathBuf,
}

/// Runs the guest; returns the exit status.
///
/// # Errors
///
/// Fails if the guest cannot be run at all, or the files cannot be used.
pub fn run(options: &BootSpecOptions) -> Result<u8, CommandError> {
    let spec: GuestSpec = read_json(&options.spec)?;
    let connection = Connection {
        sink: Some(Box::new(io::stdout())),
        interactive: options.input,
        // The host's end handles the escape keys.
        keys: false,
        verbatim: true,
        cold: true,
        control: None,
        collect: None,
        shares: Vec::new(),
        progress: Box::new(say),
    };
    let (outcome, _) = launch(&spec, &Accelerator::Kvm, connection)?;
    write_outcome(&options.outcome, &outcome)?;
    Ok(outcome.status())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz trace`: what a device's trace log says.
//!
//! Each subcommand has a module; the analysis itself is the device model's (`ersatz_device_model::trace`), so that tests
//! and tool agree: so are the events themselves, with the fields that they show, and the filters that select them. [`describe`]
//! writes these fields, [`filter`] has the options for filters, [`merge`] puts the events of several logs in one order, [`units`]
//! writes figures, [`perfetto`] draws a timeline.

mod cat;
mod check;
pub mod describe;
mod export;
pub(super) mod filter;
mod merge;
mod perfetto;
mod summary;
pub mod units;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ersatz_device_model::trace::{ReadError, TraceFile};
use ersatz_guest_image::error_chain::chain;

use super::CommandError;
use crate::outcome::STATUS_USAGE;

/// Show, filter, check and export the trace logs that devices write
#[derive(Debug, Args)]
pub struct TraceArgs {
    #[command(subcommand)]
    command: TraceCommand,
}

#[derive(Debug, Subcommand)]
enum TraceCommand {
    Summary(summary::SummaryArgs),
    Cat(cat::CatArgs),
    Check(check::CheckArgs),
    Export(export::ExportArgs),
}

/// Why a subcommand ended early.
#[derive(Debug, thiserror::Error)]
enum TraceError {
    /// A log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What was found could not be printed.
    #[error("cannot write to standard output")]
    Print(#[from] io::Error),
}

/// Carries out a subcommand; returns the exit status.
///
/// # Errors
///
/// Fails if the result cannot be printed (a closed pipe is not an error), or a log cannot be read to its end.
pub fn run(args: &TraceArgs) -> Result<u8, CommandError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = match &args.command {
        TraceCommand::Summary(args) => summary::run(args, &mut out),
        TraceCommand::Cat(args) => cat::run(args, &mut out),
        TraceCommand::Check(args) => check::run(args, &mut out),
        TraceCommand::Export(args) => export::run(args, &mut out),
    };
    match result.and_then(|status| out.flush().map(|()| status).map_err(TraceError::from)) {
        Ok(status) => Ok(status),
        Err(TraceError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        // A file that is not a log is a bad argument.
        Err(TraceError::Read(error)) => {
            let hint = if is_missing(&error) {
                "; `ersatz run --trace FILE` and `ersatz device --trace FILE` write one"
            } else {
                ""
            };
            eprintln!("ersatz: {}{hint}", chain(&error));
            Ok(STATUS_USAGE)
        }
        Err(error) => Err(error.into()),
    }
}

fn is_missing(error: &ReadError) -> bool {
    matches!(error, ReadError::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// Opens all logs before anything is printed. A folder stands for the logs in it, in the order of their names.
fn open_all(paths: &[PathBuf]) -> Result<Vec<TraceFile>, ReadError> {
    let mut files = Vec::new();
    for path in paths {
        let logs = logs_in(path).filter(|logs| !logs.is_empty()).unwrap_or_else(|| vec![path.clone()]);
        for log in logs {
            files.push(TraceFile::open(&log)?);
        }
    }
    Ok(files)
}

/// Returns the files of a folder that end in `.trace`; `None` if it is not a folder, or cannot be read.
fn logs_in(path: &Path) -> Option<Vec<PathBuf>> {
    let entries = path.is_dir().then(|| fs::read_dir(path).ok()).flatten()?;
    let mut logs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    logs.retain(|log| log.extension().is_some_and(|extension| extension == "trace"));
    logs.sort();
    Some(logs)
}

/// A path as it is shown: absolute, so that it can be used from anywhere.
fn shown(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz trace export`: the log in formats that other tools read.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::merge::Merge;
use super::perfetto::Perfetto;
use super::{TraceError, describe, open_all};

/// Write logs in a format other tools read
///
/// Logs of several devices are merged by time. The result goes to standard output.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  ersatz trace export --perfetto gpu0.trace > gpu0.json   then open gpu0.json in ui.perfetto.dev")]
pub struct ExportArgs {
    /// Trace logs, one per device
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = false)]
struct Format {
    /// Trace Event JSON, for Perfetto and chrome://tracing: a process a device, a thread a channel
    #[arg(long)]
    perfetto: bool,
    /// JSON lines, one per event
    #[arg(long)]
    jsonl: bool,
}

/// Writes all events.
pub fn run(args: &ExportArgs, out: &mut impl Write) -> Result<u8, TraceError> {
    let files = open_all(&args.files)?;
    let mut merge = Merge::new(&files);
    let start = merge.start().unwrap_or(0);
    if args.format.jsonl {
        for item in merge {
            let (time, record) = item?;
            writeln!(out, "{}", describe::object(&record, time.saturating_sub(start)))?;
        }
        return Ok(0);
    }
    let mut perfetto = Perfetto::new(out)?;
    for file in &files {
        perfetto.device(&file.header().identity)?;
    }
    for item in merge {
        let (time, record) = item?;
        perfetto.record(&record, time.saturating_sub(start))?;
    }
    perfetto.finish()?;
    Ok(0)
}

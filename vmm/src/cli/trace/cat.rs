// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz trace cat`: the events themselves.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use ersatz_device_model::trace::{Kind, Record};

use super::filter::FilterArgs;
use super::merge::Merge;
use super::{TraceError, describe, open_all, units};

/// Print events, one per line
///
/// Logs of several devices are merged by time. Times are in seconds from the first event of all.
#[derive(Debug, Args)]
#[command(after_help = after_help())]
pub struct CatArgs {
    /// Trace logs, one per device
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Print times as the device's clock has them, which its register TIMESTAMP reads, instead of from the first event
    #[arg(long, conflicts_with = "json")]
    device_clock: bool,
    /// Stop after this many events
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

/// The names that filters take.
fn after_help() -> String {
    let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    let causes: Vec<&str> = ersatz_abi::command::Cause::ALL.iter().map(|cause| cause.name()).collect();
    format!(
        "Kinds: {}\n\nCauses: {}\n\nExample:\n  ersatz trace cat gpu0.trace --kind copy,interrupt --cause cpu-fault --time 1.5s..2s",
        kinds.join(", "),
        causes.join(", ")
    )
}

/// Prints what the filter lets through.
pub fn run(args: &CatArgs, out: &mut impl Write) -> Result<u8, TraceError> {
    let files = open_all(&args.files)?;
    let mut merge = Merge::new(&files);
    let Some(start) = merge.start() else { return Ok(0) };
    let filter = args.filter.filter();
    let mut left = args.limit.unwrap_or(u64::MAX);
    if !args.json {
        writeln!(
            out,
            "{:>9}  {:>14}  {:>3}  {:>2}  {:<16}  {:<17}  what",
            "sequence", "time", "dev", "ch", "kind", "cause"
        )?;
    }
    while left > 0 {
        let Some((time, record)) = merge.next().transpose()? else { break };
        let time = time.saturating_sub(start);
        if !filter.matches(&record, time) {
            continue;
        }
        if args.json {
            writeln!(out, "{}", describe::object(&record, time))?;
        } else {
            writeln!(out, "{}", line(&record, if args.device_clock { record.time } else { time }))?;
        }
        left -= 1;
    }
    Ok(0)
}

/// One event as text, in columns.
fn line(record: &Record, time: u64) -> String {
    let fields = &record.fields;
    let event = record.event();
    let channel = event.and_then(|event| event.channel()).map_or_else(|| "-".to_owned(), |channel| channel.to_string());
    let kind = event.map_or("unknown", |event| event.kind().name());
    let cause = event.and_then(|event| event.cause()).map_or("-", |cause| cause.name());
    let what = event.map_or_else(|| format!("{fields:?}"), |event| describe::text(&event));
    let line = format!(
        "{:>9}  {:>14}  {:>3}  {channel:>2}  {kind:<16}  {cause:<17}  {what}",
        record.sequence,
        units::seconds(time),
        fields.device
    );
    line.trim_end().to_owned()
}

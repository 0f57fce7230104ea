// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz trace cat`: the events themselves.

use std::io::Write;
use std::iter::Peekable;
use std::path::PathBuf;

use clap::Args;
use ersatz_device_model::trace::{Kind, ReadError, Record, Records, TraceFile};
use serde_json::{Map, Value as Json, json};

use super::filter::{self, Filter};
use super::{TraceError, describe, open_all, units};

/// Print events, one a line
///
/// Logs of several devices are merged by time. Times are in seconds from the first event of all.
#[derive(Debug, Args)]
#[command(after_help = after_help())]
pub struct CatArgs {
    /// Trace logs, one a device
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    filter: Filter,
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
        if !args.filter.wants(&record, time) {
            continue;
        }
        if args.json {
            writeln!(out, "{}", object(&record, time))?;
        } else {
            writeln!(out, "{}", line(&record, time))?;
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
    let cause = event.as_ref().and_then(filter::cause).map_or("-", |cause| cause.name());
    let what = event.map_or_else(|| format!("{fields:?}"), |event| describe::text(&event));
    let line = format!(
        "{:>9}  {:>14}  {:>3}  {channel:>2}  {kind:<16}  {cause:<17}  {what}",
        record.sequence,
        units::seconds(time),
        fields.device
    );
    line.trim_end().to_owned()
}

/// One event as a JSON object.
fn object(record: &Record, time: u64) -> Json {
    let mut object = Map::new();
    object.insert("sequence".to_owned(), json!(record.sequence));
    object.insert("time_ns".to_owned(), json!(time));
    object.insert("device".to_owned(), json!(record.fields.device));
    match record.event() {
        Some(event) => {
            object.insert("kind".to_owned(), json!(event.kind().name()));
            if let Some(channel) = event.channel() {
                object.insert("channel".to_owned(), json!(channel));
            }
            if let Some(cause) = filter::cause(&event) {
                object.insert("cause".to_owned(), json!(cause.name()));
            }
            describe::json(&event, &mut object);
        }
        None => {
            object.insert("kind".to_owned(), json!("unknown"));
            let words = record.fields.to_words(record.sequence, record.time).map(|word| format!("{word:#x}"));
            object.insert("words".to_owned(), json!(words));
        }
    }
    Json::Object(object)
}

/// The records of several logs by time of day; those of one log stay in their order.
struct Merge<'a>(Vec<(u64, Peekable<Records<'a>>)>);

impl<'a> Merge<'a> {
    fn new(files: &'a [TraceFile]) -> Self {
        Self(files.iter().map(|file| (file.header().epoch, file.records().peekable())).collect())
    }

    /// The time of the earliest head.
    fn start(&mut self) -> Option<u64> {
        self.heads().min().map(|(time, _)| time)
    }

    /// Time and index of the log for each log that has more; one that cannot be read comes first, to say so.
    fn heads(&mut self) -> impl Iterator<Item = (u64, usize)> + '_ {
        self.0.iter_mut().enumerate().filter_map(|(index, (epoch, records))| {
            records.peek().map(|head| (head.as_ref().map_or(0, |record| epoch.saturating_add(record.time)), index))
        })
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<(u64, Record), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (time, index) = self.heads().min()?;
        let (_, records) = self.0.get_mut(index)?;
        records.next().map(|record| record.map(|record| (time, record)))
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz trace check`: the protocol oracle over finished logs.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use ersatz_device_model::trace::TraceFile;
use ersatz_device_model::trace::check::{Checker, Finding, Verdict};
use serde_json::json;

use super::{TraceError, open_all, shown, units};

/// Exit status when a rule is broken.
const STATUS_BROKEN: u8 = 1;

/// Check that device and driver kept their contract
///
/// Looks for commands that never end, fences that fall or never come, DMA after bus mastering was switched off or
/// outside of mapped memory, work outside of commands, accesses through translations whose invalidation was acknowledged,
/// faults without an answer, and holes in the log. Each finding names the section of device-model/MANUAL.md that it is about.
///
/// Warnings are what is not good order, and may have a reason that the log does not show: a log that ends, or a reset that comes, with
/// channels enabled, faults without an answer or bad accesses to registers. (A machine that is switched off leaves its channels enabled.)
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 if no rule is broken, whatever warnings there are; 1 if a rule is broken, or with --strict if there is a \
                  warning; 2 if a file is not a log."
)]
pub struct CheckArgs {
    /// Trace logs, one per device; of a folder all its files that end in .trace
    #[arg(required = true, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
    /// Take warnings for broken rules
    #[arg(long)]
    strict: bool,
    /// Print one JSON object a log
    #[arg(long)]
    json: bool,
}

/// Checks each log by itself and prints what was found.
pub fn run(args: &CheckArgs, out: &mut impl Write) -> Result<u8, TraceError> {
    let files = open_all(&args.files)?;
    let mut broken = false;
    for file in &files {
        let verdict = Checker::check(file)?;
        broken |= verdict.total > 0 || (args.strict && !verdict.warnings.is_empty());
        if args.json {
            print_json(file, &verdict, out)?;
        } else {
            print_text(file, &verdict, out)?;
        }
    }
    Ok(if broken { STATUS_BROKEN } else { 0 })
}

fn print_text(file: &TraceFile, verdict: &Verdict, out: &mut impl Write) -> std::io::Result<()> {
    let path = shown(file.path());
    let looked_at =
        format!("({}, {})", units::counted(verdict.records, "event"), units::counted(verdict.commands, "command"));
    let warnings = match verdict.warnings.len() as u64 {
        0 => String::new(),
        count => format!(", {}", units::counted(count, "warning")),
    };
    if verdict.total == 0 {
        writeln!(out, "{path}: in order {looked_at}{warnings}")?;
    } else {
        writeln!(out, "{path}: {} {looked_at}{warnings}", units::counted(verdict.total, "broken rule"))?;
    }
    verdict.findings.iter().try_for_each(|finding| writeln!(out, "  {}", text(finding)))?;
    let hidden = verdict.total - verdict.findings.len() as u64;
    if hidden > 0 {
        writeln!(out, "  ... and {} more", units::count(hidden))?;
    }
    verdict.warnings.iter().try_for_each(|finding| writeln!(out, "  warning: {}", text(finding)))?;
    if !verdict.closed {
        writeln!(out, "  note: the log was not closed: its writer still runs, or was killed")?;
    }
    if verdict.under_way > 0 {
        writeln!(out, "  note: {} cut short by the end of the device", units::counted(verdict.under_way, "command"))?;
    }
    if verdict.unanswered > 0 {
        writeln!(out, "  note: {} without an answer where the log ends", units::counted(verdict.unanswered, "fault"))?;
    }
    Ok(())
}

/// A finding in a line: the rule, the place in the log, what happened, the section of the manual.
fn text(finding: &Finding) -> String {
    let place = match finding.sequence {
        0 => "the log".to_owned(),
        sequence => format!("record {sequence}"),
    };
    let section = finding.rule.section().map(|section| format!(" (manual: {section})")).unwrap_or_default();
    format!("{:<15}  {place}: {}{section}", finding.rule.name(), finding.message)
}

fn json(finding: &Finding) -> serde_json::Value {
    json!({
        "sequence": finding.sequence,
        "time_ns": finding.time,
        "rule": finding.rule.name(),
        "section": finding.rule.section(),
        "message": finding.message,
    })
}

fn print_json(file: &TraceFile, verdict: &Verdict, out: &mut impl Write) -> std::io::Result<()> {
    let findings: Vec<_> = verdict.findings.iter().map(json).collect();
    let warnings: Vec<_> = verdict.warnings.iter().map(json).collect();
    let object = json!({
        "path": shown(file.path()),
        "device": file.header().identity.device,
        "records": verdict.records,
        "commands": verdict.commands,
        "closed": verdict.closed,
        "under_way": verdict.under_way,
        "unanswered": verdict.unanswered,
        "broken": verdict.total,
        "findings": findings,
        "warnings": warnings,
    });
    writeln!(out, "{object}")
}

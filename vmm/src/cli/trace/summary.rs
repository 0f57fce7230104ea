// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz trace summary`: what moved, why, how fast, and what went wrong.

mod memory;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use ersatz_abi::command::Cause;
use ersatz_device_model::trace::summary::{Direction, Summary, Traffic};
use ersatz_device_model::trace::{Header, InterruptOutcome, TraceFile};
use serde_json::{Map, Value as Json, json};

use super::units::{bytes, bytes_per_second, count, counted, duration, rate};
use super::{TraceError, open_all, shown};

/// Sum up what devices did: pages moved, faults, DMA, commands, interrupts, errors, rates
#[derive(Debug, Args)]
pub struct SummaryArgs {
    /// Trace logs, one per device
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON object a log
    #[arg(long)]
    json: bool,
}

/// Prints a summary of each log.
pub fn run(args: &SummaryArgs, out: &mut impl Write) -> Result<u8, TraceError> {
    let files = open_all(&args.files)?;
    for (index, file) in files.iter().enumerate() {
        let summary = Summary::of(file)?;
        if args.json {
            writeln!(out, "{}", object(file, &summary))?;
        } else {
            if index > 0 {
                writeln!(out)?;
            }
            print(file, &summary, out)?;
        }
    }
    Ok(0)
}

/// Writes a line with a label in front.
fn row(out: &mut impl Write, label: &str, text: &str) -> io::Result<()> {
    writeln!(out, "{label:<12}{text}")
}

fn print(file: &TraceFile, summary: &Summary, out: &mut impl Write) -> io::Result<()> {
    let Header { identity, closed, .. } = *file.header();
    row(out, "Trace log", &shown(file.path()))?;
    row(
        out,
        &format!("Device {}", identity.device),
        &format!(
            "{} of VRAM, {}, {}",
            bytes(identity.vram),
            counted(identity.channels.into(), "channel"),
            counted(identity.copy_engines.into(), "copy engine")
        ),
    )?;
    let (wall, active) = (summary.duration(), summary.active);
    row(out, "Time", &format!("{}, with commands under way for {}", duration(wall), duration(active)))?;
    row(out, "Events", &events(summary, closed))?;
    writeln!(out)?;
    print_copies(summary, out)?;
    writeln!(out)?;
    print_faults(summary, out)?;
    let dma =
        |amount: u64| format!("{} ({} active, {} overall)", bytes(amount), rate(amount, active), rate(amount, wall));
    row(out, "DMA", &format!("read {}", dma(summary.dma_read)))?;
    row(out, "", &format!("written {}", dma(summary.dma_written)))?;
    print_commands(summary, out)?;
    memory::print(&summary.memory, out)?;
    row(out, "Signals", &signals(summary))?;
    row(out, "Errors", &errors(summary))
}

fn events(summary: &Summary, closed: bool) -> String {
    let mut text = count(summary.records);
    let mut but = Vec::new();
    for (number, what) in
        [(summary.dropped, "dropped"), (summary.missing, "missing"), (summary.unknown, "of unknown kind")]
    {
        if number > 0 {
            but.push(format!("{} {what}", count(number)));
        }
    }
    if !closed {
        but.push("log not closed: its writer runs or was killed".to_owned());
    }
    text.push_str(if but.is_empty() { ", none lost" } else { "; " });
    text.push_str(&but.join(", "));
    text
}

/// The table of what was copied, by direction and cause.
fn print_copies(summary: &Summary, out: &mut impl Write) -> io::Result<()> {
    if summary.copies.is_empty() {
        return row(out, "Copied", "nothing");
    }
    let mut line = |name: &str, [pages, entries, amount, active, overall]: [&str; 5]| {
        writeln!(out, "{name:<23}{pages:>12}{entries:>12}{amount:>12}{active:>16}{overall:>16}")
    };
    let figures = |name: &str, traffic: Traffic, line: &mut dyn FnMut(&str, [&str; 5]) -> io::Result<()>| {
        let Traffic { entries, pages, bytes: amount } = traffic;
        let texts = [
            count(pages),
            count(entries),
            bytes(amount),
            rate(amount, summary.active),
            rate(amount, summary.duration()),
        ];
        line(name, texts.each_ref().map(String::as_str))
    };
    line("Copied", ["4K pages", "entries", "bytes", "active rate", "overall rate"])?;
    for direction in Direction::ALL {
        let all = summary.copied(direction);
        if all.entries == 0 {
            continue;
        }
        figures(&format!("  {}", direction.name()), all, &mut line)?;
        for (key, traffic) in &summary.copies {
            if key.0 == direction {
                figures(&format!("    {}", key.1.name()), *traffic, &mut line)?;
            }
        }
    }
    Ok(())
}

fn print_faults(summary: &Summary, out: &mut impl Write) -> io::Result<()> {
    let pages = |cause| counted(summary.copied_for(cause).pages, "page");
    row(
        out,
        "CPU faults",
        &format!("{} came back, by {}", pages(Cause::CpuFault), counted(summary.cpu_fault_commands, "copy command")),
    )?;
    row(out, "Evicted", &format!("{}; at unbind {}", pages(Cause::Evict), pages(Cause::Unbind)))
}

fn print_commands(summary: &Summary, out: &mut impl Write) -> io::Result<()> {
    let all = summary.commands_in_all();
    let kinds: Vec<String> = summary
        .commands
        .iter()
        .map(|(opcode, commands)| format!("{} {}", opcode.name(), count(commands.started)))
        .collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
    row(
        out,
        "Commands",
        &format!("{} completed, {} failed of {}{kinds}", count(all.completed), count(all.failed), count(all.started)),
    )?;
    if summary.fills.entries + summary.digests.entries > 0 {
        row(
            out,
            "",
            &format!("{} filled, {} read for digests", bytes(summary.fills.bytes), bytes(summary.digests.bytes)),
        )?;
    }
    Ok(())
}

fn signals(summary: &Summary) -> String {
    let outcomes: Vec<String> =
        summary.interrupts.iter().map(|(outcome, number)| format!("{} {}", count(*number), outcome.name())).collect();
    let outcomes = if outcomes.is_empty() { String::new() } else { format!(" ({})", outcomes.join(", ")) };
    format!(
        "{}, {}, {}{outcomes}",
        counted(summary.doorbells, "doorbell"),
        counted(summary.fences, "fence"),
        counted(summary.interrupts_raised(), "interrupt"),
    )
}

fn errors(summary: &Summary) -> String {
    let mut parts: Vec<String> = summary
        .channel_errors
        .iter()
        .map(|(error, number)| format!("{} ({})", counted(*number, "channel error"), error.name()))
        .collect();
    if summary.bad_accesses > 0 {
        let plural = if summary.bad_accesses == 1 { "" } else { "es" };
        parts.push(format!("{} bad register access{plural}", count(summary.bad_accesses)));
    }
    let lost = summary.interrupts.get(&InterruptOutcome::Lost).copied().unwrap_or(0);
    if lost > 0 {
        parts.push(format!("{} lost", counted(lost, "interrupt")));
    }
    let mut text = if parts.is_empty() { "none".to_owned() } else { parts.join(", ") };
    let resets: Vec<String> =
        summary.resets.iter().map(|(source, number)| format!("{} {}", count(*number), source.name())).collect();
    if !resets.is_empty() || summary.channel_resets > 0 {
        let resets = if resets.is_empty() { "0".to_owned() } else { resets.join(", ") };
        text.push_str(&format!("; resets: {resets}; of channels {}", count(summary.channel_resets)));
    }
    text
}

/// The same as one JSON object; times in nanoseconds, rates in bytes a second.
fn object(file: &TraceFile, summary: &Summary) -> Json {
    let header = file.header();
    let traffic = |traffic: Traffic| {
        json!({
            "pages": traffic.pages,
            "entries": traffic.entries,
            "bytes": traffic.bytes,
            "active_bytes_per_second": bytes_per_second(traffic.bytes, summary.active),
            "overall_bytes_per_second": bytes_per_second(traffic.bytes, summary.duration()),
        })
    };
    let copies: Vec<Json> = summary
        .copies
        .iter()
        .map(|((direction, cause), amount)| {
            let mut object = traffic(*amount);
            object["direction"] = json!(direction.name());
            object["cause"] = json!(cause.name());
            object
        })
        .collect();
    let commands: Map<String, Json> = summary
        .commands
        .iter()
        .map(|(opcode, commands)| {
            let figures =
                json!({ "started": commands.started, "completed": commands.completed, "failed": commands.failed });
            (opcode.name().to_owned(), figures)
        })
        .collect();
    let named = |pairs: Vec<(&'static str, u64)>| {
        Json::Object(pairs.into_iter().map(|(name, number)| (name.to_owned(), json!(number))).collect())
    };
    json!({
        "path": shown(file.path()),
        "device": {
            "number": header.identity.device,
            "vram_bytes": header.identity.vram,
            "channels": header.identity.channels,
            "copy_engines": header.identity.copy_engines,
        },
        "records": summary.records,
        "dropped": summary.dropped,
        "missing": summary.missing,
        "unknown": summary.unknown,
        "closed": header.closed,
        "duration_ns": summary.duration(),
        "active_ns": summary.active,
        "copies": copies,
        "to_vram": traffic(summary.copied(Direction::ToVram)),
        "to_system": traffic(summary.copied(Direction::ToSystem)),
        "cpu_fault_pages": summary.copied_for(Cause::CpuFault).pages,
        "cpu_fault_commands": summary.cpu_fault_commands,
        "evicted_pages": summary.copied_for(Cause::Evict).pages,
        "unbind_pages": summary.copied_for(Cause::Unbind).pages,
        "filled": traffic(summary.fills),
        "digested": traffic(summary.digests),
        "dma_read_bytes": summary.dma_read,
        "dma_written_bytes": summary.dma_written,
        "doorbells": summary.doorbells,
        "commands": commands,
        "fences": summary.fences,
        "interrupts": named(summary.interrupts.iter().map(|(outcome, number)| (outcome.name(), *number)).collect()),
        "channel_errors": named(summary.channel_errors.iter().map(|(error, number)| (error.name(), *number)).collect()),
        "bad_accesses": summary.bad_accesses,
        "resets": named(summary.resets.iter().map(|(source, number)| (source.name(), *number)).collect()),
        "channel_resets": summary.channel_resets,
        "marks": summary.marks,
        "virtual_memory": memory::object(&summary.memory),
    })
}

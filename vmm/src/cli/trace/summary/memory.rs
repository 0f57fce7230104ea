// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The part of the summary about virtual memory; nothing at all for a device whose driver uses none.

use std::io::{self, Write};

use ersatz_device_model::trace::Loss;
use ersatz_device_model::trace::summary::VirtualMemory;
use serde_json::{Map, Value as Json, json};

use super::row;
use crate::cli::trace::units::{bytes, count, counted};

/// Writes the lines of text.
pub fn print(memory: &VirtualMemory, out: &mut impl Write) -> io::Result<()> {
    if !memory.is_used() {
        return Ok(());
    }
    row(
        out,
        "MMU",
        &format!(
            "{}, {} ({} acknowledged)",
            counted(memory.tlb_fills, "TLB fill"),
            counted(memory.invalidations, "invalidation"),
            count(memory.invalidations_acknowledged)
        ),
    )?;
    if !memory.accessed.is_empty() {
        let accessed: Vec<String> = memory
            .accessed
            .iter()
            .map(|((kind, aperture), amount)| format!("{} {} {}", kind.name(), aperture.name(), bytes(*amount)))
            .collect();
        row(out, "", &format!("accessed: {}", accessed.join(", ")))?;
    }
    row(out, "Faults", &faults(memory))?;
    if memory.access_notifications > 0 || !memory.access_notifications_dropped.is_empty() {
        row(
            out,
            "Counters",
            &format!(
                "{}{}",
                counted(memory.access_notifications, "access notification"),
                dropped(&memory.access_notifications_dropped)
            ),
        )?;
    }
    Ok(())
}

fn faults(memory: &VirtualMemory) -> String {
    let kinds: Vec<String> =
        memory.faults.iter().map(|(kind, number)| format!("{} {}", kind.name(), count(*number))).collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
    format!(
        "{}{kinds}, {} of them for prefetches{}; {}, {} cancelled",
        count(memory.faults_in_all()),
        count(memory.prefetch_faults),
        dropped(&memory.faults_dropped),
        counted(memory.replays, "replay"),
        count(memory.faults_cancelled)
    )
}

fn dropped<'a>(losses: impl IntoIterator<Item = (&'a Loss, &'a u64)>) -> String {
    losses.into_iter().map(|(loss, number)| format!(", {} dropped ({})", count(*number), loss.name())).collect()
}

/// The same as a JSON object.
pub fn object(memory: &VirtualMemory) -> Json {
    let accessed: Vec<Json> = memory
        .accessed
        .iter()
        .map(
            |((kind, aperture), amount)| json!({ "access": kind.name(), "aperture": aperture.name(), "bytes": amount }),
        )
        .collect();
    let faults: Map<String, Json> =
        memory.faults.iter().map(|(kind, number)| (kind.name().to_owned(), json!(number))).collect();
    json!({
        "tlb_fills": memory.tlb_fills,
        "accessed": accessed,
        "invalidations": memory.invalidations,
        "invalidations_acknowledged": memory.invalidations_acknowledged,
        "faults": faults,
        "prefetch_faults": memory.prefetch_faults,
        "faults_dropped": losses(&memory.faults_dropped),
        "replays": memory.replays,
        "faults_cancelled": memory.faults_cancelled,
        "access_notifications": memory.access_notifications,
        "access_notifications_dropped": losses(&memory.access_notifications_dropped),
    })
}

fn losses<'a>(losses: impl IntoIterator<Item = (&'a Loss, &'a u64)>) -> Json {
    Json::Object(losses.into_iter().map(|(loss, number)| (loss.name().to_owned(), json!(number))).collect())
}

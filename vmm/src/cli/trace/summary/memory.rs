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
            counted(memory.translations, "translation"),
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
    if memory.hot_regions > 0 || !memory.hot_regions_lost.is_empty() {
        row(out, "Hot regions", &format!("{}{}", count(memory.hot_regions), lost(&memory.hot_regions_lost)))?;
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
        lost(&memory.faults_lost),
        counted(memory.replays, "replay"),
        count(memory.faults_cancelled)
    )
}

fn lost<'a>(losses: impl IntoIterator<Item = (&'a Loss, &'a u64)>) -> String {
    losses.into_iter().map(|(loss, number)| format!(", {} lost ({})", count(*number), loss.name())).collect()
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
        "translations": memory.translations,
        "accessed": accessed,
        "invalidations": memory.invalidations,
        "invalidations_acknowledged": memory.invalidations_acknowledged,
        "faults": faults,
        "prefetch_faults": memory.prefetch_faults,
        "faults_lost": losses(&memory.faults_lost),
        "replays": memory.replays,
        "faults_cancelled": memory.faults_cancelled,
        "hot_regions": memory.hot_regions,
        "hot_regions_lost": losses(&memory.hot_regions_lost),
    })
}

fn losses<'a>(losses: impl IntoIterator<Item = (&'a Loss, &'a u64)>) -> Json {
    Json::Object(losses.into_iter().map(|(loss, number)| (loss.name().to_owned(), json!(number))).collect())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The rules of memory that the host demands: what was handed over is not accessed, and each demand is answered in time.

use std::collections::BTreeMap;

use ersatz_abi::command::{Aperture, Location};
use ersatz_abi::error::ErrorCode;
use ersatz_abi::pci::VECTOR_ERROR;

use super::{Rule, Site};
use crate::trace::enumeration::InterruptOutcome;
use crate::trace::event::{Event, MemoryEvent, MmuEvent};

/// Most ranges that are followed.
const MAX_RANGES: usize = 65_536;

/// What the log says about memory that is the host's.
#[derive(Debug, Default)]
pub(super) struct HandedOver {
    /// Ranges of VRAM that were handed over: the first offset, the end, and the record that says so.
    ranges: BTreeMap<u64, (u64, u64)>,
    /// The demand that waits for an answer, and whether an interrupt was sent to the driver since.
    demand: Option<(u64, bool)>,
}

impl HandedOver {
    /// Looks at an event that is not work of an engine.
    pub(super) fn look(&mut self, event: &Event, site: &mut Site<'_>) {
        match *event {
            Event::Memory(MemoryEvent::Demanded { number, .. }) => self.demand = Some((number, false)),
            Event::Memory(MemoryEvent::Answered { .. }) => self.demand = None,
            Event::Memory(MemoryEvent::Expired { number, given, deadline }) => {
                let ended = self.demand.take();
                // A driver that was not told need not know.
                if ended == Some((number, true)) {
                    let message = format!(
                        "demand {number} for memory had no answer within its {deadline} ns; {given:#x} bytes were handed over"
                    );
                    site.warn(Rule::DemandAnswered, message);
                }
            }
            Event::Memory(MemoryEvent::HandedOver { page, length }) => self.add(page.address, length, site.sequence),
            Event::Memory(MemoryEvent::Returned { page, length }) => self.remove(page.address, length),
            Event::Interrupt {
                vector: VECTOR_ERROR,
                outcome: InterruptOutcome::Sent | InterruptOutcome::Released,
                ..
            } => {
                if let Some((_, is_told)) = &mut self.demand {
                    *is_told = true;
                }
            }
            // A driver that comes after it may not be there yet.
            Event::Reset { .. } => {
                if let Some((_, is_told)) = &mut self.demand {
                    *is_told = false;
                }
            }
            Event::ChannelError { channel, error: ErrorCode::HandedOver, address, .. } => {
                let message =
                    format!("channel {channel}: a command is about VRAM at {address:#x}, which is handed over");
                site.warn(Rule::HandedOver, message);
            }
            _ => {}
        }
    }

    /// Looks at an event of an engine. `since` is the record its channel's engine wrote before this one: the work was done after that.
    pub(super) fn look_at_work(&self, event: &Event, since: u64, site: &mut Site<'_>) {
        if self.ranges.is_empty() {
            return;
        }
        let accesses: [Option<(Location, u64)>; 2] = match *event {
            Event::Copy { source, destination, length, .. } => [Some((source, length)), Some((destination, length))],
            Event::Fill { destination, length, .. } => [None, Some((destination, length))],
            Event::Digest { source, destination, length, .. } => {
                [Some((source, length)), Some((destination, size_of::<u64>() as u64))]
            }
            Event::Mmu(MmuEvent::Access { location, length, .. }) => [None, Some((location, length))],
            _ => return,
        };
        for (Location { address, .. }, length) in
            accesses.into_iter().flatten().filter(|(place, _)| place.aperture == Aperture::Vram)
        {
            if let Some(record) = self.handed_over_in(address, length, since) {
                let kind = event.kind().name();
                site.report(
                    Rule::HandedOver,
                    format!(
                        "{kind}: {length:#x} bytes of VRAM at {address:#x} are in part handed over (record {record})"
                    ),
                );
            }
        }
    }

    /// The record, before another one, by which some of these bytes were handed over.
    fn handed_over_in(&self, address: u64, length: u64, before: u64) -> Option<u64> {
        let end = address.saturating_add(length);
        let overlapping = self.ranges.range(..end).rev().take_while(|(_, (last, _))| *last > address);
        overlapping.map(|(_, (_, record))| *record).find(|record| *record < before)
    }

    fn add(&mut self, first: u64, length: u64, record: u64) {
        // What is handed over twice was handed over the first time.
        let end = first.saturating_add(length);
        let mut at = first;
        for (start, last) in self.overlapping(first, end) {
            if at < start {
                self.insert(at, start, record);
            }
            at = last;
        }
        if at < end {
            self.insert(at, end, record);
        }
    }

    fn insert(&mut self, first: u64, end: u64, record: u64) {
        if self.ranges.len() < MAX_RANGES {
            self.ranges.insert(first, (end, record));
        }
    }

    fn remove(&mut self, first: u64, length: u64) {
        let end = first.saturating_add(length);
        for (start, last) in self.overlapping(first, end) {
            let Some((_, record)) = self.ranges.remove(&start) else { continue };
            if start < first {
                self.insert(start, first, record);
            }
            if last > end {
                self.insert(end, last, record);
            }
        }
    }

    /// The ranges that have a part of another one, in their order.
    fn overlapping(&self, first: u64, end: u64) -> Vec<(u64, u64)> {
        let below = self.ranges.range(..end).rev().take_while(|(_, (last, _))| *last > first);
        let mut found: Vec<_> = below.map(|(start, (last, _))| (*start, *last)).collect();
        found.reverse();
        found
    }
}

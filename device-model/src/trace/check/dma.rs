// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The rules of where and when the device may do DMA.

use std::collections::{BTreeMap, VecDeque};

use ersatz_abi::command::{Aperture, Location};
use ersatz_abi::fault::AccessKind;

use super::{Rule, Site};
use crate::trace::enumeration::ResetSource;
use crate::trace::event::{Event, MmuEvent, NotificationEvent};

/// Most maps that are followed; no transport has as many.
const MAX_MAPS: usize = 65_536;
/// How many of the latest unmaps are remembered, for work that was done before them and recorded after.
const MAX_UNMAPS: usize = 64;

/// What the log says about what the device may do DMA to.
#[derive(Debug)]
pub(super) struct DmaRules {
    /// Since which record DMA is forbidden, and by what; `None`: allowed, or not known.
    forbidden: Option<(u64, &'static str)>,
    /// First address of each map, with the last one and whether it may be written; `None`: the transport does not report them.
    maps: Option<BTreeMap<u64, (u64, bool)>>,
    /// First and last address of ranges taken away, with the records that say so.
    unmaps: VecDeque<(u64, u64, u64)>,
}

impl Default for DmaRules {
    /// As at power-on.
    fn default() -> Self {
        Self { forbidden: Some((0, "bus mastering was never switched on")), maps: None, unmaps: VecDeque::new() }
    }
}

impl DmaRules {
    /// Behind a hole in the log: everything may have been allowed.
    pub(super) fn unknown() -> Self {
        Self { forbidden: None, ..Self::default() }
    }

    /// Looks at an event that changes what is allowed.
    pub(super) fn look(&mut self, event: &Event, sequence: u64, site: &mut Site<'_>) {
        match *event {
            Event::BusMaster { enabled: true } => self.forbidden = None,
            Event::BusMaster { enabled: false } => self.forbid(sequence, "bus mastering was switched off"),
            // The register keeps config space, and with it the bus master bit.
            Event::Reset { source: ResetSource::Register } => {}
            Event::Reset { .. } => self.forbid(sequence, "the device was reset"),
            Event::DeviceDropped => self.forbid(sequence, "the device is gone"),
            Event::DmaMap { address, length, writable } => self.map(address, length, writable, site),
            Event::DmaUnmap { address, length } => self.unmap(address, length, sequence),
            _ => {}
        }
    }

    fn forbid(&mut self, sequence: u64, why: &'static str) {
        self.forbidden.get_or_insert((sequence, why));
    }

    fn map(&mut self, address: u64, length: u64, writable: bool, site: &mut Site<'_>) {
        let Some(last) = length.checked_sub(1).and_then(|more| address.checked_add(more)) else {
            site.report(Rule::DmaMapped, format!("a map of {length:#x} bytes at {address:#x} is no range"));
            return;
        };
        let maps = self.maps.get_or_insert_default();
        if maps.len() < MAX_MAPS {
            maps.insert(address, (last, writable));
        }
    }

    fn unmap(&mut self, address: u64, length: u64, sequence: u64) {
        let Some(maps) = &mut self.maps else { return };
        let end = address.saturating_add(length.saturating_sub(1));
        let gone: Vec<u64> =
            maps.range(address..=end).filter(|(_, map)| map.0 <= end).map(|(first, _)| *first).collect();
        if gone.is_empty() {
            return;
        }
        for first in gone {
            maps.remove(&first);
        }
        if self.unmaps.len() == MAX_UNMAPS {
            self.unmaps.pop_front();
        }
        self.unmaps.push_back((address, end, sequence));
    }

    /// Looks at an event of an engine. `since` is the record its channel's engine wrote before this one: the work was done
    /// after that.
    pub(super) fn look_at_work(&self, event: &Event, since: u64, vram: u64, site: &mut Site<'_>) {
        let accesses: [Option<(Location, u64, bool)>; 2] = match *event {
            Event::Copy { source, destination, length, .. } => {
                [Some((source, length, false)), Some((destination, length, true))]
            }
            Event::Fill { destination, length, .. } => [None, Some((destination, length, true))],
            Event::Digest { source, destination, length, .. } => {
                [Some((source, length, false)), Some((destination, size_of::<u64>() as u64, true))]
            }
            Event::Mmu(MmuEvent::Access { kind, location, length, .. }) => {
                let is_write = matches!(kind, AccessKind::Write | AccessKind::Atomic);
                [None, Some((location, length, is_write))]
            }
            Event::Fence { address, .. } => [None, Some((Location::system(address), size_of::<u64>() as u64, true))],
            // The log does not say where their ring is.
            Event::Notification(
                NotificationEvent::FaultRecorded { .. } | NotificationEvent::AccessNotification { .. },
            ) => {
                return self.look_at_mastership(&format!("{}: a record was written", event.kind().name()), since, site);
            }
            _ => return,
        };
        let kind = event.kind().name();
        let accesses = accesses.into_iter().flatten();
        for (Location { aperture, address, .. }, length, write) in accesses {
            match aperture {
                Aperture::Vram => {
                    if vram != 0 && address.checked_add(length).is_none_or(|end| end > vram) {
                        site.report(
                            Rule::VramRange,
                            format!("{kind}: {length:#x} bytes at VRAM offset {address:#x} reach beyond {vram:#x}"),
                        );
                    }
                }
                Aperture::System => self.look_at_access(kind, address, length, write, since, site),
                // Other events say which GPU a peer access was to, and where a virtual address led.
                Aperture::Peer | Aperture::Virtual => {}
            }
        }
    }

    fn look_at_access(&self, kind: &str, address: u64, length: u64, write: bool, since: u64, site: &mut Site<'_>) {
        self.look_at_mastership(&format!("{kind}: DMA at {address:#x}"), since, site);
        if !self.covers(address, length, write, since) {
            let verb = if write { "written" } else { "read" };
            site.report(
                Rule::DmaMapped,
                format!("{kind}: {length:#x} bytes at {address:#x} were {verb}, and are not mapped for that"),
            );
        }
    }

    /// Checks that `what` was done while the device was bus master.
    fn look_at_mastership(&self, what: &str, since: u64, site: &mut Site<'_>) {
        if let Some((sequence, why)) = self.forbidden.filter(|(sequence, _)| *sequence < since) {
            site.report(Rule::BusMaster, format!("{what}, though {why} (record {sequence}) before it began"));
        }
    }

    /// Whether maps side by side cover the range, or did when the work may have been done.
    fn covers(&self, address: u64, length: u64, write: bool, since: u64) -> bool {
        let Some(maps) = &self.maps else { return true };
        let Some(last) = length.checked_sub(1).and_then(|more| address.checked_add(more)) else { return false };
        if self.unmaps.iter().any(|(first, end, sequence)| *sequence > since && *first <= last && address <= *end) {
            return true;
        }
        let mut next = address;
        loop {
            match maps.range(..=next).next_back() {
                Some((_, &(end, writable))) if end >= next && (writable || !write) => {
                    if end >= last {
                        return true;
                    }
                    next = end + 1;
                }
                _ => return false,
            }
        }
    }
}

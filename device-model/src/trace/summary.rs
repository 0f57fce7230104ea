// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a log amounts to: how much moved where and why, how fast, and what went wrong.
//!
//! Figures are of payload: ring and list fetches, fences and GET updates are not counted as DMA.

mod memory;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use ersatz_abi::command::{Aperture, Cause, Opcode};
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::AccessKind;

use super::enumeration::{InterruptOutcome, ResetSource};
use super::event::{Event, MmuEvent};
use super::header::Header;
use super::reader::{ReadError, TraceFile};
use super::record::Record;
pub use memory::VirtualMemory;

/// Size of the pages that are counted.
pub const PAGE_BYTES: u64 = 4096;

/// From which memory to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the system to VRAM.
    ToVram,
    /// From VRAM to the system.
    ToSystem,
    /// From VRAM to VRAM.
    WithinVram,
    /// From the system to the system.
    WithinSystem,
    /// From a peer, to wherever.
    FromPeer,
    /// To a peer, from here.
    ToPeer,
    /// From or to virtual addresses: where these led, the accesses tell.
    Virtual,
}

impl Direction {
    /// Every direction.
    pub const ALL: [Self; 7] = [
        Self::ToVram,
        Self::ToSystem,
        Self::WithinVram,
        Self::WithinSystem,
        Self::FromPeer,
        Self::ToPeer,
        Self::Virtual,
    ];

    /// The direction between two apertures.
    pub const fn between(source: Aperture, destination: Aperture) -> Self {
        match (source, destination) {
            (Aperture::System, Aperture::Vram) => Self::ToVram,
            (Aperture::Vram, Aperture::System) => Self::ToSystem,
            (Aperture::Vram, Aperture::Vram) => Self::WithinVram,
            (Aperture::System, Aperture::System) => Self::WithinSystem,
            (Aperture::Virtual, _) | (_, Aperture::Virtual) => Self::Virtual,
            (Aperture::Peer, _) => Self::FromPeer,
            (_, Aperture::Peer) => Self::ToPeer,
        }
    }

    /// The name the tool prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToVram => "to-vram",
            Self::ToSystem => "to-system",
            Self::WithinVram => "within-vram",
            Self::WithinSystem => "within-system",
            Self::FromPeer => "from-peer",
            Self::ToPeer => "to-peer",
            Self::Virtual => "virtual",
        }
    }
}

/// An amount of work on lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// List entries.
    pub entries: u64,
    /// Pages of [`PAGE_BYTES`], each entry rounded up.
    pub pages: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Traffic {
    fn add(&mut self, length: u64) {
        self.entries += 1;
        self.pages = self.pages.saturating_add(length.div_ceil(PAGE_BYTES));
        self.bytes = self.bytes.saturating_add(length);
    }

    /// Both amounts together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_add(other.entries),
            pages: self.pages.saturating_add(other.pages),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// What became of the commands with one opcode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// Fetched and understood.
    pub started: u64,
    /// Completed.
    pub completed: u64,
    /// Failed with an error.
    pub failed: u64,
}

/// The figures of one log. All times are in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records read.
    pub records: u64,
    /// Records this version could not decode.
    pub unknown: u64,
    /// Events that found no room in the log.
    pub dropped: u64,
    /// Events that have a slot, but were not published (yet), or were cut off.
    pub missing: u64,
    /// Earliest time in the log.
    pub first: Option<u64>,
    /// Latest time in the log.
    pub last: Option<u64>,
    /// Time in which at least one command was being executed.
    pub active: u64,
    /// What was copied.
    pub copies: BTreeMap<(Direction, Cause), Traffic>,
    /// What was filled.
    pub fills: Traffic,
    /// What was read for digests.
    pub digests: Traffic,
    /// Bytes the device read from system memory.
    pub dma_read: u64,
    /// Bytes the device wrote to system memory.
    pub dma_written: u64,
    /// Doorbell writes.
    pub doorbells: u64,
    /// Commands.
    pub commands: BTreeMap<Opcode, Commands>,
    /// Copy commands on behalf of CPU faults that completed.
    pub cpu_fault_commands: u64,
    /// Fence values written.
    pub fences: u64,
    /// Interrupts.
    pub interrupts: BTreeMap<InterruptOutcome, u64>,
    /// Channel errors.
    pub channel_errors: BTreeMap<ErrorCode, u64>,
    /// Bad register accesses.
    pub bad_accesses: u64,
    /// Resets of the device.
    pub resets: BTreeMap<ResetSource, u64>,
    /// Resets of single channels.
    pub channel_resets: u64,
    /// Marks by the driver.
    pub marks: u64,
    /// DMA maps and unmaps, where the transport reports them.
    pub dma_maps: u64,
    /// Virtual memory.
    pub memory: VirtualMemory,
    running: BTreeSet<u8>,
    active_since: u64,
}

impl Summary {
    /// The figures of a whole log.
    ///
    /// # Errors
    ///
    /// Those of reading the log.
    pub fn of(file: &TraceFile) -> Result<Self, ReadError> {
        let mut summary = Self::default();
        for record in file.records() {
            summary.add(&record?);
        }
        summary.finish(file.header());
        Ok(summary)
    }

    /// Takes the next record into account.
    pub fn add(&mut self, record: &Record) {
        self.records += 1;
        self.first = Some(self.first.map_or(record.time, |first| first.min(record.time)));
        self.last = Some(self.last.map_or(record.time, |last| last.max(record.time)));
        match record.event() {
            Some(event) => self.add_event(&event, record.time),
            None => self.unknown += 1,
        }
    }

    /// Closes the account: a command that is still running counts as active until the last record.
    pub fn finish(&mut self, header: &Header) {
        self.dropped = header.dropped;
        self.missing = header.kept().saturating_sub(self.records);
        if let (false, Some(last)) = (self.running.is_empty(), self.last) {
            self.running.clear();
            self.active = self.active.saturating_add(last.saturating_sub(self.active_since));
        }
    }

    /// Time from the first record to the last.
    pub fn duration(&self) -> u64 {
        self.last.zip(self.first).map_or(0, |(last, first)| last - first)
    }

    /// What was copied in one direction, whatever the cause.
    pub fn copied(&self, direction: Direction) -> Traffic {
        self.sum(|key| key.0 == direction)
    }

    /// What was copied for one cause, whatever the direction.
    pub fn copied_for(&self, cause: Cause) -> Traffic {
        self.sum(|key| key.1 == cause)
    }

    /// All that was copied.
    pub fn copied_in_all(&self) -> Traffic {
        self.sum(|_| true)
    }

    /// All commands, whatever they did.
    pub fn commands_in_all(&self) -> Commands {
        self.commands.values().fold(Commands::default(), |sum, one| Commands {
            started: sum.started + one.started,
            completed: sum.completed + one.completed,
            failed: sum.failed + one.failed,
        })
    }

    /// Interrupts with one outcome.
    pub fn interrupts_with(&self, outcome: InterruptOutcome) -> u64 {
        self.interrupts.get(&outcome).copied().unwrap_or(0)
    }

    /// Interrupts raised: sent at once or left pending. Lost interrupts are not counted.
    pub fn interrupts_raised(&self) -> u64 {
        self.interrupts_with(InterruptOutcome::Sent) + self.interrupts_with(InterruptOutcome::Pending)
    }

    fn sum(&self, wanted: impl Fn(&(Direction, Cause)) -> bool) -> Traffic {
        self.copies
            .iter()
            .filter(|(key, _)| wanted(key))
            .fold(Traffic::default(), |sum, (_, traffic)| sum.plus(*traffic))
    }

    fn add_event(&mut self, event: &Event, time: u64) {
        match *event {
            Event::Copy { cause, source, destination, length, .. } => {
                let direction = Direction::between(source.aperture, destination.aperture);
                self.copies.entry((direction, cause)).or_default().add(length);
                self.add_dma(source.aperture, destination.aperture, length, length);
            }
            Event::Fill { destination, length, .. } => {
                self.fills.add(length);
                self.add_dma(Aperture::Vram, destination.aperture, 0, length);
            }
            Event::Digest { source, destination, length, .. } => {
                self.digests.add(length);
                self.add_dma(source.aperture, destination.aperture, length, size_of::<u64>() as u64);
            }
            Event::CommandStart { channel, opcode, .. } => {
                self.commands.entry(opcode).or_default().started += 1;
                if self.running.is_empty() {
                    self.active_since = time;
                }
                self.running.insert(channel);
            }
            Event::CommandEnd { channel, opcode, cause, error, .. } => {
                let commands = self.commands.entry(opcode).or_default();
                if error == ErrorCode::None {
                    commands.completed += 1;
                    self.cpu_fault_commands += u64::from(opcode == Opcode::Copy && cause == Cause::CpuFault);
                } else {
                    commands.failed += 1;
                }
                self.end(channel, time);
            }
            Event::ChannelError { channel, error, .. } => {
                *self.channel_errors.entry(error).or_default() += 1;
                self.end(channel, time);
            }
            Event::ChannelReset { channel } => {
                self.channel_resets += 1;
                self.end(channel, time);
            }
            Event::Reset { source } => {
                *self.resets.entry(source).or_default() += 1;
                let running = self.running.clone();
                for channel in running {
                    self.end(channel, time);
                }
            }
            Event::Fence { .. } => self.fences += 1,
            Event::Interrupt { outcome, .. } => *self.interrupts.entry(outcome).or_default() += 1,
            Event::Doorbell { rings, .. } => self.doorbells = self.doorbells.saturating_add(rings),
            Event::BadAccess { .. } => self.bad_accesses += 1,
            Event::Mark { .. } => self.marks += 1,
            Event::DmaMap { .. } | Event::DmaUnmap { .. } => self.dma_maps += 1,
            Event::Mmu(event) => {
                if let MmuEvent::Access { kind, location, length, .. } = event {
                    let read = if kind == AccessKind::Write { 0 } else { length };
                    let written = if kind == AccessKind::Read { 0 } else { length };
                    self.add_dma(location.aperture, location.aperture, read, written);
                }
                self.memory.add_mmu(&event);
            }
            Event::Notification(event) => self.memory.add_notification(&event),
            // The other events do not change any figure.
            _ => {}
        }
    }

    fn add_dma(&mut self, source: Aperture, destination: Aperture, read: u64, written: u64) {
        if source == Aperture::System {
            self.dma_read = self.dma_read.saturating_add(read);
        }
        if destination == Aperture::System {
            self.dma_written = self.dma_written.saturating_add(written);
        }
    }

    /// The channel has no command any more.
    fn end(&mut self, channel: u8, time: u64) {
        if self.running.remove(&channel) && self.running.is_empty() {
            self.active = self.active.saturating_add(time.saturating_sub(self.active_since));
        }
    }
}

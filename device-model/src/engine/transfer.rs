// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What copy engines do with an entry of a list: one piece of it at a time.
//!
//! A piece ends where its page does, if it has a virtual address. Between two memories that this process has mapped a
//! piece is copied once, straight; system to system, fills and digests go through a small buffer of the engine's.

use ersatz_abi::command::{Cause, ListEntry};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::AccessKind;
use ersatz_abi::list::{Aperture, Location};

use super::PIECE_BYTES;
use super::context::{Context, Stop};
use super::memory_access::MemoryAccess;
use crate::channel::task::Part;
use crate::trace::Event;

/// Size of the buffer: fits the cache, and is worth the calls it takes.
const BUFFER_BYTES: u64 = 64 << 10;
/// What a digest takes up at its destination.
const DIGEST_BYTES: u64 = 8;

/// What to do with each entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Copy,
    Fill(u64),
    Digest,
}

/// Executes list entries.
pub(crate) struct Transfer {
    buffer: Box<[u8]>,
    /// Entries done and not settled.
    done: Vec<Part>,
}

/// A location `offset` bytes further on.
#[inline]
fn behind(location: Location, offset: u64) -> Location {
    Location { address: location.address + offset, ..location }
}

impl Transfer {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES as usize].into_boxed_slice(), done: Vec::new() }
    }

    /// Takes an entry one piece further, of `limit` bytes at most; returns how many it was. An entry that is finished
    /// by it is to be settled.
    pub(crate) fn step(
        &mut self,
        memory: &mut MemoryAccess<'_>,
        work: Work,
        part: &mut Part,
        limit: u64,
    ) -> Result<u64, Stop> {
        if part.offset == 0 {
            check(memory, work, &part.entry)?;
        }
        let left = u64::from(part.entry.length) - part.offset;
        let done = match work {
            Work::Copy => self.copy(memory, part, left.min(limit))?,
            Work::Fill(pattern) => self.fill(memory, part, left.min(limit), pattern)?,
            Work::Digest => self.digest(memory, part, left.min(limit))?,
        };
        if part.finished {
            self.done.push(*part);
        }
        Ok(done)
    }

    /// Counts and traces the entries that were finished, at the end of the piece of work in which they were.
    pub(crate) fn settle(&mut self, context: &Context<'_>, memory: &mut MemoryAccess<'_>, work: Work, cause: Cause) {
        for Part { entry, .. } in &self.done {
            let length = u64::from(entry.length);
            match work {
                Work::Copy => memory.tally.add_entry(cause, length),
                Work::Fill(_) => memory.tally.add(Counter::BytesFilled, length),
                Work::Digest => memory.tally.add(Counter::BytesDigested, length),
            }
        }
        let done = self.done.iter().map(|part| entry_event(context, work, cause, &part.entry, part.digest));
        context.device.ports.tracer.emit_all(done);
        self.done.clear();
    }

    #[inline]
    fn copy(&mut self, memory: &mut MemoryAccess<'_>, part: &mut Part, limit: u64) -> Result<u64, Stop> {
        let ListEntry { source, destination, length, .. } = part.entry;
        let in_system = |location: Location| matches!(location.aperture, Aperture::System | Aperture::Virtual);
        let limit = if in_system(source) && in_system(destination) { limit.min(BUFFER_BYTES) } else { limit };
        let from = memory.resolve(behind(source, part.offset), limit, AccessKind::Read)?;
        let to = memory.resolve(behind(destination, part.offset), from.length, AccessKind::Write)?;
        memory.copy(from.location, to.location, to.length, &mut self.buffer)?;
        memory.accessed(&from, to.length);
        memory.accessed(&to, to.length);
        memory.tally.add_direction(from.location.aperture, to.location.aperture, to.length);
        part.offset += to.length;
        part.finished = part.offset == u64::from(length);
        Ok(to.length)
    }

    fn fill(&mut self, memory: &mut MemoryAccess<'_>, part: &mut Part, limit: u64, pattern: u64) -> Result<u64, Stop> {
        let ListEntry { destination, length, .. } = part.entry;
        let to = memory.resolve(behind(destination, part.offset), limit.min(BUFFER_BYTES), AccessKind::Write)?;
        let bytes = &mut self.buffer[..to.length as usize];
        bytes.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&pattern.to_le_bytes()));
        memory.write(to.location, bytes)?;
        memory.accessed(&to, to.length);
        part.offset += to.length;
        part.finished = part.offset == u64::from(length);
        Ok(to.length)
    }

    fn digest(&mut self, memory: &mut MemoryAccess<'_>, part: &mut Part, limit: u64) -> Result<u64, Stop> {
        let ListEntry { source, destination, length, .. } = part.entry;
        if part.offset == u64::from(length) {
            let to = memory.resolve(destination, DIGEST_BYTES, AccessKind::Write)?;
            memory.write(to.location, &mut u64::from(part.digest).to_le_bytes())?;
            memory.accessed(&to, DIGEST_BYTES);
            part.finished = true;
            return Ok(DIGEST_BYTES);
        }
        let from = memory.resolve(behind(source, part.offset), limit.min(BUFFER_BYTES), AccessKind::Read)?;
        let bytes = &mut self.buffer[..from.length as usize];
        memory.read(from.location, bytes)?;
        memory.accessed(&from, from.length);
        part.digest = crc32c::crc32c_append(part.digest, bytes);
        part.offset += from.length;
        Ok(from.length)
    }
}

/// The event of an entry that was executed.
#[inline]
fn entry_event(context: &Context<'_>, work: Work, cause: Cause, entry: &ListEntry, digest: u32) -> Event {
    let Context { number: channel, engine, .. } = *context;
    let ListEntry { source, destination, length, tag } = *entry;
    let length = u64::from(length);
    match work {
        Work::Copy => Event::Copy { channel, engine, cause, source, destination, length, tag },
        Work::Fill(pattern) => Event::Fill { channel, engine, cause, destination, length, pattern, tag },
        Work::Digest => Event::Digest { channel, engine, cause, source, destination, length, digest, tag },
    }
}

/// The event of the piece of an entry that comes next, as if it were an entry of its own.
pub(super) fn part_event(context: &Context<'_>, work: Work, cause: Cause, part: &Part) -> Event {
    let ListEntry { source, destination, length, tag } = part.entry;
    let left = u64::from(length).saturating_sub(part.offset).min(PIECE_BYTES);
    let entry = ListEntry {
        source: behind(source, part.offset),
        // A digest is written to one place.
        destination: if work == Work::Digest { destination } else { behind(destination, part.offset) },
        length: u32::try_from(left).unwrap_or(u32::MAX),
        tag: tag.wrapping_add(part.offset),
    };
    entry_event(context, work, cause, &entry, part.digest)
}

/// Finds out what can be found out before anything is moved.
#[inline]
fn check(memory: &MemoryAccess<'_>, work: Work, entry: &ListEntry) -> Result<(), Stop> {
    let ListEntry { source, destination, length, .. } = *entry;
    let length = u64::from(length);
    if !matches!(work, Work::Fill(_)) {
        memory.check(source, length)?;
    }
    memory.check(destination, if work == Work::Digest { DIGEST_BYTES } else { length })?;
    let same = (source.aperture, source.peer) == (destination.aperture, destination.peer);
    if work == Work::Copy && same && source.address.abs_diff(destination.address) < length {
        return Err(Stop::failed(ErrorCode::Overlap, memory.entry, destination.address));
    }
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The lists of copy engines: one entry at a time, one piece of it at a time.
//!
//! A piece ends where its page does, if it has a virtual address. Between two memories that this process has mapped a piece is copied once,
//! straight; system to system, fills and digests go through a small buffer of the engine's.

use ersatz_abi::command::{Cause, ListEntry};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::AccessKind;
use ersatz_abi::list::{Aperture, Location};

use super::PIECE_BYTES;
use super::bus::Bus;
use super::context::{Context, Stop};
use super::task::Part;
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

/// What belongs to a list entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    /// Its place in the list.
    pub(crate) index: u32,
    pub(crate) cause: Cause,
}

/// Executes list entries.
pub(crate) struct Transfer {
    buffer: Box<[u8]>,
}

/// A location `offset` bytes further on.
fn behind(location: Location, offset: u64) -> Location {
    Location { address: location.address + offset, ..location }
}

fn is_virtual(location: Location) -> bool {
    location.aperture == Aperture::Virtual
}

/// The address to name when neither may be accessed: the system's, if one of them is.
fn system_address(from: Location, to: Location) -> u64 {
    if from.aperture == Aperture::System { from.address } else { to.address }
}

impl Transfer {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES as usize].into_boxed_slice() }
    }

    /// Executes an entry, from where it has come to.
    pub(crate) fn run(&mut self, context: &Context<'_>, work: Work, item: Item, part: &mut Part) -> Result<(), Stop> {
        if part.offset == 0 {
            check(context, work, item, &part.entry)?;
        }
        match work {
            Work::Copy => self.copy(context, item, part),
            Work::Fill(pattern) => self.fill(context, item, part, pattern),
            Work::Digest => self.digest(context, item, part),
        }
    }

    fn copy(&mut self, context: &Context<'_>, item: Item, part: &mut Part) -> Result<(), Stop> {
        let ListEntry { source, destination, length, tag } = part.entry;
        let length = u64::from(length);
        let translates = is_virtual(source) || is_virtual(destination);
        let in_system = |location: Location| matches!(location.aperture, Aperture::System | Aperture::Virtual);
        let limit = if in_system(source) && in_system(destination) { BUFFER_BYTES } else { PIECE_BYTES };
        while part.offset < length {
            let (from, to) = (behind(source, part.offset), behind(destination, part.offset));
            let wanted = limit.min(length - part.offset);
            Bus::open(context, item.index, system_address(from, to), translates, |bus| {
                let from = bus.resolve(from, wanted, AccessKind::Read)?;
                let to = bus.resolve(to, from.length, AccessKind::Write)?;
                bus.copy(from.location, to.location, to.length, &mut self.buffer)?;
                bus.accessed(&from, to.length);
                bus.accessed(&to, to.length);
                part.offset += to.length;
                let device = context.device;
                device.counters.add_direction(from.location.aperture, to.location.aperture, to.length);
                if part.offset == length {
                    device.counters.add_entry(item.cause, length);
                    device.ports.tracer.emit(Event::Copy {
                        channel: context.number,
                        engine: context.engine,
                        cause: item.cause,
                        source,
                        destination,
                        length,
                        tag,
                    });
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn fill(&mut self, context: &Context<'_>, item: Item, part: &mut Part, pattern: u64) -> Result<(), Stop> {
        let ListEntry { destination, length, tag, .. } = part.entry;
        let length = u64::from(length);
        let used = length.min(BUFFER_BYTES) as usize;
        for word in self.buffer[..used].chunks_exact_mut(8) {
            word.copy_from_slice(&pattern.to_le_bytes());
        }
        while part.offset < length {
            let to = behind(destination, part.offset);
            let wanted = BUFFER_BYTES.min(length - part.offset);
            Bus::open(context, item.index, to.address, is_virtual(destination), |bus| {
                let to = bus.resolve(to, wanted, AccessKind::Write)?;
                bus.write(to.location, &mut self.buffer[..to.length as usize])?;
                bus.accessed(&to, to.length);
                part.offset += to.length;
                if part.offset == length {
                    context.device.counters.add(Counter::BytesFilled, length);
                    context.device.ports.tracer.emit(Event::Fill {
                        channel: context.number,
                        engine: context.engine,
                        cause: item.cause,
                        destination,
                        length,
                        pattern,
                        tag,
                    });
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn digest(&mut self, context: &Context<'_>, item: Item, part: &mut Part) -> Result<(), Stop> {
        let ListEntry { source, destination, length, tag } = part.entry;
        let length = u64::from(length);
        while part.offset < length {
            let from = behind(source, part.offset);
            let wanted = BUFFER_BYTES.min(length - part.offset);
            Bus::open(context, item.index, system_address(from, destination), is_virtual(source), |bus| {
                let from = bus.resolve(from, wanted, AccessKind::Read)?;
                let bytes = &mut self.buffer[..from.length as usize];
                bus.read(from.location, bytes)?;
                bus.accessed(&from, from.length);
                part.digest = crc32c::crc32c_append(part.digest, bytes);
                part.offset += from.length;
                Ok(())
            })?;
        }
        Bus::open(context, item.index, destination.address, is_virtual(destination), |bus| {
            let to = bus.resolve(destination, DIGEST_BYTES, AccessKind::Write)?;
            bus.write(to.location, &mut u64::from(part.digest).to_le_bytes())?;
            bus.accessed(&to, DIGEST_BYTES);
            context.device.counters.add(Counter::BytesDigested, length);
            context.device.ports.tracer.emit(Event::Digest {
                channel: context.number,
                engine: context.engine,
                cause: item.cause,
                source,
                destination,
                length,
                digest: part.digest,
                tag,
            });
            Ok(())
        })
    }
}

/// Finds out what can be found out before anything is moved.
fn check(context: &Context<'_>, work: Work, item: Item, entry: &ListEntry) -> Result<(), Stop> {
    let ListEntry { source, destination, length, .. } = *entry;
    let length = u64::from(length);
    Bus::open(context, item.index, system_address(source, destination), false, |bus| {
        if !matches!(work, Work::Fill(_)) {
            bus.check(source, length)?;
        }
        bus.check(destination, if work == Work::Digest { DIGEST_BYTES } else { length })?;
        let same = (source.aperture, source.peer) == (destination.aperture, destination.peer);
        if work == Work::Copy && same && source.address.abs_diff(destination.address) < length {
            return Err(Stop::fault(ErrorCode::Overlap, item.index, destination.address));
        }
        Ok(())
    })
}

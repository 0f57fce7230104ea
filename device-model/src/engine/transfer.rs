// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Moving bytes: one list entry at a time, one piece of it at a time.
//!
//! Between VRAM and the system a piece is copied once, straight from one mapping to the other. System to system, fills
//! of system memory and digests go through a small buffer of the engine's.

use ersatz_abi::command::{Aperture, Cause, ListEntry, Location};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use vm_memory::VolatileSlice;

use super::PIECE_BYTES;
use super::context::{Context, Stop};
use crate::channel::Turn;
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

/// A list entry and what belongs to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'a> {
    pub(crate) entry: &'a ListEntry,
    /// Its place in the list.
    pub(crate) index: u32,
    pub(crate) cause: Cause,
}

/// Executes list entries.
pub(crate) struct Transfer {
    buffer: Box<[u8]>,
}

/// Parts of `[0, length)` of at most `limit` bytes each: offset, length, whether it is the last.
fn pieces(length: u64, limit: u64) -> impl Iterator<Item = (u64, u64, bool)> {
    (0..length.div_ceil(limit)).map(move |number| {
        let offset = number * limit;
        let size = limit.min(length - offset);
        (offset, size, offset + size == length)
    })
}

impl Transfer {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES as usize].into_boxed_slice() }
    }

    /// Executes one entry.
    pub(crate) fn run(&mut self, context: &Context<'_>, turn: &Turn, work: Work, item: &Item<'_>) -> Result<(), Stop> {
        match work {
            Work::Copy => self.copy(context, turn, item),
            Work::Fill(pattern) => self.fill(context, turn, item, pattern),
            Work::Digest => self.digest(context, turn, item),
        }
    }

    fn copy(&mut self, context: &Context<'_>, turn: &Turn, item: &Item<'_>) -> Result<(), Stop> {
        let Item { entry: &ListEntry { source, destination, length, tag }, index, cause } = *item;
        let length = u64::from(length);
        check_range(context, index, source, length)?;
        check_range(context, index, destination, length)?;
        if source.aperture == destination.aperture && source.address.abs_diff(destination.address) < length {
            return Err(Stop::fault(ErrorCode::Overlap, index, destination.address));
        }
        let limit = match (source.aperture, destination.aperture) {
            (Aperture::System, Aperture::System) => BUFFER_BYTES,
            _ => PIECE_BYTES,
        };
        for (offset, size, last) in pieces(length, limit) {
            let from = Location { address: source.address + offset, ..source };
            let to = Location { address: destination.address + offset, ..destination };
            context.access(turn, index, system_address(from, to), || {
                self.copy_piece(context, index, from, to, size)?;
                if last {
                    context.device.counters.add_copy(source.aperture, destination.aperture, cause, length);
                    context.device.ports.tracer.emit(Event::Copy {
                        channel: context.number,
                        engine: context.engine,
                        cause,
                        source,
                        destination,
                        length,
                        tag,
                    });
                }
                Ok(())
            })??;
        }
        Ok(())
    }

    fn copy_piece(
        &mut self,
        context: &Context<'_>,
        index: u32,
        from: Location,
        to: Location,
        size: u64,
    ) -> Result<(), Stop> {
        let dma = &context.device.ports.dma;
        match (from.aperture, to.aperture) {
            (Aperture::System, Aperture::Vram) => {
                let target = vram(context, index, to, size)?;
                dma.read(from.address, &target).map_err(|error| Stop::read(index, error))
            }
            (Aperture::Vram, Aperture::System) => {
                let source = vram(context, index, from, size)?;
                dma.write(to.address, &source).map_err(|error| Stop::write(index, error))
            }
            (Aperture::Vram, Aperture::Vram) => {
                let target = vram(context, index, to, size)?;
                vram(context, index, from, size)?.copy_to_volatile_slice(target);
                Ok(())
            }
            (Aperture::System, Aperture::System) => {
                let buffer = VolatileSlice::from(&mut self.buffer[..size as usize]);
                dma.read(from.address, &buffer).map_err(|error| Stop::read(index, error))?;
                dma.write(to.address, &buffer).map_err(|error| Stop::write(index, error))
            }
            (Aperture::Peer | Aperture::Virtual, _) => Err(elsewhere(index, from)),
            (_, Aperture::Peer | Aperture::Virtual) => Err(elsewhere(index, to)),
        }
    }

    fn fill(&mut self, context: &Context<'_>, turn: &Turn, item: &Item<'_>, pattern: u64) -> Result<(), Stop> {
        let Item { entry: &ListEntry { destination, length, tag, .. }, index, cause } = *item;
        let length = u64::from(length);
        check_range(context, index, destination, length)?;
        let used = length.min(BUFFER_BYTES) as usize;
        for word in self.buffer[..used].chunks_exact_mut(8) {
            word.copy_from_slice(&pattern.to_le_bytes());
        }
        for (offset, size, last) in pieces(length, BUFFER_BYTES) {
            let to = Location { address: destination.address + offset, ..destination };
            context.access(turn, index, to.address, || {
                let source = VolatileSlice::from(&mut self.buffer[..size as usize]);
                write(context, index, to, &source)?;
                if last {
                    context.device.counters.add(Counter::BytesFilled, length);
                    context.device.ports.tracer.emit(Event::Fill {
                        channel: context.number,
                        engine: context.engine,
                        cause,
                        destination,
                        length,
                        pattern,
                        tag,
                    });
                }
                Ok(())
            })??;
        }
        Ok(())
    }

    fn digest(&mut self, context: &Context<'_>, turn: &Turn, item: &Item<'_>) -> Result<(), Stop> {
        let Item { entry: &ListEntry { source, destination, length, tag }, index, cause } = *item;
        let length = u64::from(length);
        check_range(context, index, source, length)?;
        check_range(context, index, destination, DIGEST_BYTES)?;
        let mut digest = 0;
        for (offset, size, last) in pieces(length, BUFFER_BYTES) {
            let from = Location { address: source.address + offset, ..source };
            context.access(turn, index, system_address(from, destination), || {
                let bytes = &mut self.buffer[..size as usize];
                read(context, index, from, &VolatileSlice::from(&mut *bytes))?;
                digest = crc32c::crc32c_append(digest, bytes);
                if last {
                    let mut value = u64::from(digest).to_le_bytes();
                    write(context, index, destination, &VolatileSlice::from(&mut value[..]))?;
                    context.device.counters.add(Counter::BytesDigested, length);
                    context.device.ports.tracer.emit(Event::Digest {
                        channel: context.number,
                        engine: context.engine,
                        cause,
                        source,
                        destination,
                        length,
                        digest,
                        tag,
                    });
                }
                Ok(())
            })??;
        }
        Ok(())
    }
}

/// The address to name when neither may be accessed: the system's, if one of them is.
fn system_address(from: Location, to: Location) -> u64 {
    if from.aperture == Aperture::System { from.address } else { to.address }
}

/// There are no peers and no address spaces.
fn elsewhere(index: u32, location: Location) -> Stop {
    let code = if location.aperture == Aperture::Peer { ErrorCode::PeerUnavailable } else { ErrorCode::AddressSpace };
    Stop::fault(code, index, location.address)
}

fn check_range(context: &Context<'_>, index: u32, location: Location, length: u64) -> Result<(), Stop> {
    match location.aperture {
        Aperture::Vram => vram(context, index, location, length).map(drop),
        Aperture::System => Ok(()),
        Aperture::Peer | Aperture::Virtual => Err(elsewhere(index, location)),
    }
}

fn vram<'a>(context: &Context<'a>, index: u32, location: Location, length: u64) -> Result<VolatileSlice<'a>, Stop> {
    let outside = Stop::fault(ErrorCode::VramRange, index, location.address);
    context.device.vram.slice(location.address, length).ok_or(outside)
}

fn read(context: &Context<'_>, index: u32, from: Location, target: &VolatileSlice<'_>) -> Result<(), Stop> {
    match from.aperture {
        Aperture::Vram => {
            vram(context, index, from, target.len() as u64)?.copy_to_volatile_slice(*target);
            Ok(())
        }
        Aperture::System => {
            context.device.ports.dma.read(from.address, target).map_err(|error| Stop::read(index, error))
        }
        Aperture::Peer | Aperture::Virtual => Err(elsewhere(index, from)),
    }
}

fn write(context: &Context<'_>, index: u32, to: Location, source: &VolatileSlice<'_>) -> Result<(), Stop> {
    match to.aperture {
        Aperture::Vram => {
            source.copy_to_volatile_slice(vram(context, index, to, source.len() as u64)?);
            Ok(())
        }
        Aperture::System => {
            context.device.ports.dma.write(to.address, source).map_err(|error| Stop::write(index, error))
        }
        Aperture::Peer | Aperture::Virtual => Err(elsewhere(index, to)),
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory as an engine reaches it: VRAM, the system's by DMA, a peer's over the fabric, and any of these by virtual address.
//!
//! A [`MemoryAccess`] is the permit for a piece of work of bounded size. While it is held the function is not reset, and, from
//! the first virtual address on, the engine's TLB is locked: an invalidation is not acknowledged before the piece is done.

use std::sync::atomic::{AtomicU64, Ordering};

use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::AccessKind;
use ersatz_abi::kernel::WORD_BYTES;
use ersatz_abi::list::{Aperture, Location};
use vm_memory::{VolatileMemory, VolatileSlice};

use super::context::{Context, Stop};
use super::gate::Master;
use crate::cache_hint::prefetch;
use crate::counters::Tally;
use crate::dma::{DmaSession, Purpose};
use crate::fabric::PeerPass;
use crate::mmu::{PageFault, TranslateError, Translator};
use crate::notification::Access;
use crate::trace::MmuEvent;

/// The permit for one piece of work on behalf of a channel.
pub(crate) struct MemoryAccess<'a> {
    context: &'a Context<'a>,
    master: &'a Master<'a>,
    /// What is counted of this piece.
    pub(super) tally: Tally<'a>,
    /// Bytes that a kernel accessed in this piece.
    pub(super) bytes: u64,
    /// List entry under way, for errors.
    pub(super) entry: u32,
    /// The engine's TLB, locked.
    translator: Option<Translator<'a>>,
}

/// Where an address leads, and how far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Not virtual.
    pub(crate) location: Location,
    /// Bytes from there on that lie in one piece, at most as many as were asked for.
    pub(crate) length: u64,
    /// The virtual address that led here, and for what.
    virtual_address: Option<(u64, AccessKind)>,
}

impl MemoryAccess<'_> {
    /// Runs `work` with the permit for one piece of work; fails at once if there is none, with `address` and `entry` in the
    /// error.
    pub(crate) fn open<R>(
        context: &Context<'_>,
        entry: u32,
        address: u64,
        work: impl FnOnce(&mut MemoryAccess<'_>) -> Result<R, Stop>,
    ) -> Result<R, Stop> {
        context.access(entry, address, |master| {
            let tally = Tally::new(&context.device.counters);
            work(&mut MemoryAccess { context, master, tally, bytes: 0, entry, translator: None })
        })?
    }

    /// Where a location leads, for an access of up to `length` bytes.
    #[inline]
    pub(crate) fn resolve(&mut self, location: Location, length: u64, access: AccessKind) -> Result<Span, Stop> {
        if location.aperture != Aperture::Virtual {
            return Ok(Span { location, length, virtual_address: None });
        }
        self.translate(location.address, length, access)
    }

    fn translate(&mut self, address: u64, length: u64, access: AccessKind) -> Result<Span, Stop> {
        let entry = self.entry;
        let asid = self.context.turn.setup.asid;
        let tables = self.context.device.tables(&self.master.dma);
        let translator = self.translator.get_or_insert_with(|| self.context.device.mmu.lock(self.context.engine));
        match translator.translate(&tables, asid, address, access) {
            Ok(found) => Ok(Span {
                location: found.location,
                length: found.length.min(length),
                virtual_address: Some((address, access)),
            }),
            Err(TranslateError::SpaceDisabled) => Err(Stop::failed(ErrorCode::AddressSpace, entry, address)),
            Err(TranslateError::PageFault(fault)) => Err(Stop::PageFault { fault, entry }),
        }
    }

    /// Adds an access of `length` bytes to the trace and to the access counters, if it was by a virtual address.
    #[inline]
    pub(crate) fn accessed(&self, span: &Span, length: u64) {
        let Some((address, kind)) = span.virtual_address else { return };
        let Context { device, number: channel, engine, turn, .. } = *self.context;
        let asid = turn.setup.asid;
        let location = span.location;
        device.ports.tracer.emit(MmuEvent::Access { channel, engine, asid, kind, address, location, length }.into());
        let access = Access { channel, engine, asid, address, length, aperture: location.aperture };
        device.count_access(self.master, &access);
    }

    /// Copies between places that do not overlap; `buffer` has room for `length` bytes if both are in the system.
    #[inline]
    pub(crate) fn copy(&self, from: Location, to: Location, length: u64, buffer: &mut [u8]) -> Result<(), Stop> {
        let dma = &self.master.dma;
        match (from.aperture == Aperture::System, to.aperture == Aperture::System) {
            (true, true) => {
                let buffer = VolatileSlice::from(&mut buffer[..length as usize]);
                dma.read(from.address, &buffer).map_err(|error| Stop::read(self.entry, error))?;
                dma.write(to.address, &buffer).map_err(|error| Stop::write(self.entry, error))
            }
            (true, false) => self.with_slice(to, length, |target| {
                dma.read(from.address, &target).map_err(|error| Stop::read(self.entry, error))
            }),
            (false, true) => self.with_slice(from, length, |source| {
                dma.write(to.address, &source).map_err(|error| Stop::write(self.entry, error))
            }),
            (false, false) => self.with_slice(from, length, |source| {
                self.with_slice(to, length, |target| {
                    source.copy_to_volatile_slice(target);
                    Ok(())
                })
            }),
        }
    }

    /// A place is about to be copied from or to: has the CPU look for it.
    #[inline]
    pub(crate) fn expect(&self, at: Location, purpose: Purpose) {
        match at.aperture {
            Aperture::System => self.master.dma.expect(at.address, purpose),
            Aperture::Vram => {
                if let Some(slice) = self.context.device.vram.slice(at.address, 1) {
                    prefetch(&slice, purpose);
                }
            }
            // Those take more than a look.
            Aperture::Peer | Aperture::Virtual => {}
        }
    }

    /// Reads all of `target` from a place.
    pub(crate) fn read(&self, from: Location, target: &mut [u8]) -> Result<(), Stop> {
        let length = target.len() as u64;
        let target = VolatileSlice::from(target);
        if from.aperture == Aperture::System {
            let dma = &self.master.dma;
            return dma.read(from.address, &target).map_err(|error| Stop::read(self.entry, error));
        }
        self.with_slice(from, length, |source| {
            source.copy_to_volatile_slice(target);
            Ok(())
        })
    }

    /// Writes all of `source` to a place.
    pub(crate) fn write(&self, to: Location, source: &mut [u8]) -> Result<(), Stop> {
        let length = source.len() as u64;
        let source = VolatileSlice::from(source);
        if to.aperture == Aperture::System {
            let dma = &self.master.dma;
            return dma.write(to.address, &source).map_err(|error| Stop::write(self.entry, error));
        }
        self.with_slice(to, length, |target| {
            source.copy_to_volatile_slice(target);
            Ok(())
        })
    }

    /// Changes an aligned word in one step, for CPUs and engines alike; returns what it was. `change` says what it becomes, or
    /// that it stays.
    pub(crate) fn update(&self, at: Location, change: impl Fn(u64) -> Option<u64>) -> Result<u64, Stop> {
        if at.aperture == Aperture::System {
            return self.update_system(at.address, change);
        }
        let unaligned = Stop::failed(ErrorCode::BadAlignment, self.entry, at.address);
        self.with_slice(at, 8, |slice| {
            let word = slice.get_atomic_ref::<AtomicU64>(0).map_err(|_| unaligned)?;
            let change = |old| change(u64::from_le(old)).map(u64::to_le);
            let (Ok(old) | Err(old)) = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
            Ok(u64::from_le(old))
        })
    }

    fn update_system(&self, address: u64, change: impl Fn(u64) -> Option<u64>) -> Result<u64, Stop> {
        let dma = &self.master.dma;
        let mut old = dma.load_u64(address).map_err(|error| Stop::read(self.entry, error))?;
        while let Some(new) = change(old) {
            let exchanged = dma.compare_exchange_u64(address, old, new);
            match exchanged.map_err(|error| Stop::write(self.entry, error))? {
                Ok(_) => break,
                Err(other) => old = other,
            }
        }
        Ok(old)
    }

    /// Runs `work` on memory of this device or of a peer.
    #[inline]
    fn with_slice<R>(
        &self,
        at: Location,
        length: u64,
        work: impl FnOnce(VolatileSlice<'_>) -> Result<R, Stop>,
    ) -> Result<R, Stop> {
        let device = self.context.device;
        let fault = |code| Stop::failed(code, self.entry, at.address);
        if at.aperture == Aperture::Peer {
            let peer = device.link.peer(at.peer).ok_or_else(|| fault(ErrorCode::PeerUnavailable))?;
            let pass: PeerPass<'_> = peer.enter().ok_or_else(|| fault(ErrorCode::PeerUnavailable))?;
            let slice = pass.slice(at.address, length).ok_or_else(|| fault(ErrorCode::PeerRange))?;
            self.unless_refused(pass.refusal(at.address, length))?;
            return work(slice);
        }
        let slice = device.vram.slice(at.address, length).ok_or_else(|| fault(ErrorCode::VramRange))?;
        self.unless_refused(device.vram.refusal(at.address, length))?;
        work(slice)
    }

    #[inline]
    fn unless_refused(&self, refusal: Option<(ErrorCode, u64)>) -> Result<(), Stop> {
        match refusal {
            Some((code, page)) => Err(Stop::failed(code, self.entry, page)),
            None => Ok(()),
        }
    }

    /// Whether faults of the channel's address space are reported, and waited for.
    pub(crate) fn is_replayable(&self) -> bool {
        self.context.device.mmu.spaces.is_replayable(self.context.turn.setup.asid)
    }

    /// Counts bytes that a kernel has read.
    pub(super) fn count_read(&mut self, bytes: u64) {
        self.tally.add(Counter::KernelBytesRead, bytes);
        self.bytes += bytes;
    }

    /// Counts bytes that a kernel has written.
    pub(super) fn count_written(&mut self, bytes: u64) {
        self.tally.add(Counter::KernelBytesWritten, bytes);
        self.bytes += bytes;
    }

    /// Counts words that a kernel has updated atomically.
    pub(super) fn count_atomics(&mut self, words: u64) {
        self.tally.add(Counter::KernelAtomics, words);
        self.bytes += words * WORD_BYTES;
    }

    /// Reports an access that faulted to the driver.
    pub(crate) fn report(&self, fault: &PageFault) {
        self.context.report(self.master, fault);
    }

    /// Checks that all of a place exists, if it is in VRAM or a peer; what is behind bus addresses is not known before an access.
    #[inline]
    pub(crate) fn check(&self, at: Location, length: u64) -> Result<(), Stop> {
        match at.aperture {
            Aperture::Vram | Aperture::Peer => self.with_slice(at, length, |_| Ok(())),
            Aperture::System | Aperture::Virtual => Ok(()),
        }
    }
}

// SPDX-License-Identifier: GPL-2.0
//! Filling destinations with what their sources hold, and what comes after.

use super::super::{
    folio::{Pfn, Side},
    pagemap::DeviceMemory,
};
use super::{isolated::Isolated, migration::Migration, reach::Reach, Source};
use crate::bindings;
use kernel::{
    dma::{DataDirection, DmaAddress},
    page::PAGE_SIZE,
    prelude::*,
};

/// One end of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint<A = DmaAddress> {
    /// An offset into the device's memory, in bytes.
    Device(u64),
    /// System memory, by what its [`Reach`] knows it: its bus address, if the device copies.
    System(A),
}

/// A stretch of memory to copy or to clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer<A = DmaAddress> {
    /// `None` if the destination is to be cleared.
    pub(crate) source: Option<Endpoint<A>>,
    /// Where the content goes.
    pub(crate) destination: Endpoint<A>,
    /// Length in bytes.
    pub(crate) length: usize,
    /// The user's address.
    pub(crate) address: usize,
}

/// By what a copier knows system memory.
type AddressOf<'a, 't, C> = <<C as Copier<'a>>::Reach as Reach<'a>>::Address<'t>;

/// The work of copying one migration's content.
///
/// An implementation vouches for two things, which nothing here can check: when [`Copier::finish`] succeeds, all transfers that were added
/// have been carried out; and once it has returned, or the copier has been dropped, the device touches none of their memory any more.
pub(crate) trait Copier<'a> {
    /// How it reaches the memory of the system: [`SystemMappings`](crate::kernel_ext::dma::SystemMappings) for a device, or
    /// [`ByCpu`](super::ByCpu).
    type Reach: Reach<'a>;

    /// Adds a stretch. Called before [`Copier::start`].
    ///
    /// # Errors
    ///
    /// Any: the migration does not take place.
    fn add(&mut self, transfer: Transfer<AddressOf<'a, '_, Self>>) -> Result;

    /// Makes the device begin. May be called again after [`Copier::finish`] has failed, to do all of the work once more.
    ///
    /// # Errors
    ///
    /// As for [`Copier::add`].
    fn start(&mut self) -> Result;

    /// Waits until the device is done.
    ///
    /// # Errors
    ///
    /// As for [`Copier::add`].
    fn finish(&mut self) -> Result;
}

/// Folios whose destinations are being filled.
pub(crate) struct Filling<'a, T: DeviceMemory, C: Copier<'a>> {
    // In the order in which they must go: the copier stops, its reach ends, the pages are let go.
    copier: C,
    reach: C::Reach,
    isolated: Isolated<'a, T>,
}

impl<'a, T: DeviceMemory, C: Copier<'a>> Filling<'a, T, C> {
    /// Brings the system's side into the copier's reach, and makes it begin to fill the destinations.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EIO` if memory cannot be reached; what `copier` reports. Every folio goes back to where it was.
    pub(crate) fn begin(isolated: Isolated<'a, T>, copier: C) -> Result<Self> {
        let (map, from) = (isolated.map_of_device(), isolated.from());
        let direction = match from {
            Side::System => DataDirection::ToDevice,
            Side::Device | Side::StandIn => DataDirection::FromDevice,
        };
        let reach = C::Reach::new(map.dev(), direction, isolated.len());
        let mut filling = Self { copier, reach, isolated };
        filling.add_all()?;
        filling.reach.finish()?;
        filling.copier.start()?;
        Ok(filling)
    }

    fn add_all(&mut self) -> Result {
        let mut at = 0;
        while let Some(run) = self.isolated.next_isolated_run(at) {
            at = run.end();
            let mut index = run.first;
            while index < run.end() {
                let Some((destination, order)) = self.isolated.destination(&run, index) else {
                    index += 1;
                    continue;
                };
                let source = match run.source {
                    Source::Hole => None,
                    Source::Folio(pfn) => Some(pfn + (index - run.first)),
                };
                let address = self.isolated.address(&run, index);
                match self.isolated.from() {
                    Side::System => {
                        let node = self.isolated.node(&run, index);
                        self.isolated.map_of_device().set_home(destination, 1 << order, node);
                    }
                    // Entries of private memory do not say whether the device wrote, and reclaim drops clean pages that were advised free.
                    // SAFETY: The destination is an allocated folio, whose lock and reference are the migration's.
                    Side::Device | Side::StandIn => unsafe {
                        bindings::ersatz_page_mark_dirty(bindings::ersatz_pfn_to_page(destination));
                    },
                }
                self.add(Piece { source, destination, pages: 1 << order, address })?;
                index += 1 << order;
            }
        }
        Ok(())
    }

    /// Opens the system's side of a piece, and gives the copier its stretches.
    fn add(&mut self, piece: Piece) -> Result {
        let map = self.isolated.map_of_device();
        let (system, device) = match (self.isolated.from(), piece.source) {
            (Side::System, source) => (source, piece.destination),
            (Side::Device, Some(source)) => (Some(piece.destination), source),
            (Side::Device, None) | (Side::StandIn, _) => return Err(EINVAL),
        };
        let mut done = 0;
        while done < piece.pages {
            let device = Endpoint::Device(map.offset(device + done).ok_or(EINVAL)?);
            let (system, pages) = match system {
                None => (None, piece.pages),
                Some(pfn) => {
                    // SAFETY: An isolated source and a destination stay allocated until the migration is dropped, which is after the
                    // reach is. Nobody else has a use for a destination's content.
                    let (address, pages) = unsafe { self.reach.open(pfn + done, piece.pages - done) }?;
                    (Some(Endpoint::System(address)), pages)
                }
            };
            let (source, destination) = match (self.isolated.from(), system) {
                (Side::System, system) => (system, device),
                (_, Some(system)) => (Some(device), system),
                (_, None) => return Err(EINVAL),
            };
            let (length, address) = (pages * PAGE_SIZE, piece.address + done * PAGE_SIZE);
            self.copier.add(Transfer { source, destination, length, address })?;
            done += pages;
        }
        Ok(())
    }

    /// The work.
    pub(crate) fn copier(&self) -> &C {
        &self.copier
    }

    /// Number of pages looked at.
    pub(crate) fn len(&self) -> usize {
        self.isolated.len()
    }

    /// The side that the pages come from.
    pub(crate) fn from(&self) -> Side {
        self.isolated.from()
    }

    /// Waits until the destinations are filled. The work is done again, up to `repeats` times, if it fails.
    ///
    /// # Errors
    ///
    /// What the copier reports. Every folio goes back to where it was.
    pub(crate) fn finish(mut self, repeats: u32) -> Result<Filled<'a>> {
        let mut result = self.copier.finish();
        for _ in 0..repeats {
            if result.is_ok() {
                break;
            }
            self.copier.start()?;
            result = self.copier.finish();
        }
        result?;
        let Self { copier, reach, isolated } = self;
        drop(copier);
        // What the device wrote may have to be copied to where it belongs.
        drop(reach);
        Ok(Filled(isolated.into_migration()))
    }
}

/// A destination and its source, both contiguous.
struct Piece {
    source: Option<Pfn>,
    destination: Pfn,
    pages: usize,
    address: usize,
}

/// Folios whose destinations have their content.
pub(crate) struct Filled<'a>(Migration<'a>);

impl<'a> Filled<'a> {
    /// Puts the destinations in the place of their sources.
    pub(crate) fn commit(mut self) -> Committed<'a> {
        self.0.commit();
        Committed(self.0)
    }
}

/// Folios that have moved, but that nobody sees until this is dropped.
pub(crate) struct Committed<'a>(Migration<'a>);

impl Committed<'_> {
    /// Number of pages that moved.
    pub(crate) fn count(&self) -> usize {
        self.0.count_moved()
    }

    /// Whether the page at a place moved.
    pub(crate) fn has_moved(&self, index: usize) -> bool {
        self.0.has_moved(index)
    }
}

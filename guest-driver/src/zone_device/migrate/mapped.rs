// SPDX-License-Identifier: GPL-2.0
//! Folios with destinations, within a device's reach; and what comes after the copy.

use super::super::{
    folio::{Pfn, Side},
    pagemap::{BoundMap, DeviceMemory},
};
use super::{isolated::Isolated, migration::Migration, Source};
use crate::kernel_ext::dma::SystemMappings;
use kernel::{
    dma::{DataDirection, DmaAddress},
    page::PAGE_SIZE,
    prelude::*,
};

/// One end of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// An offset into the device's memory, in bytes.
    Device(u64),
    /// System memory, by its bus address.
    System(DmaAddress),
}

/// A stretch of memory to copy or to clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// `None` if the destination is to be cleared.
    pub(crate) source: Option<Endpoint>,
    /// Where the content goes.
    pub(crate) destination: Endpoint,
    /// Length in bytes.
    pub(crate) length: usize,
    /// The user's address.
    pub(crate) address: usize,
}

/// Folios whose destinations a device can fill.
///
/// It must not be dropped while the device still works on it: the pages get other users then.
pub(crate) struct Mapped<'a, T: DeviceMemory> {
    // Dropped before the pages: declared first.
    mappings: SystemMappings<'a>,
    isolated: Isolated<'a, T>,
}

impl<'a, T: DeviceMemory> Mapped<'a, T> {
    pub(super) fn new(isolated: Isolated<'a, T>, mut add: impl FnMut(Transfer) -> Result) -> Result<Self> {
        let (map, from) = (isolated.map_of_device(), isolated.from());
        let direction = match from {
            Side::System => DataDirection::ToDevice,
            Side::Device | Side::StandIn => DataDirection::FromDevice,
        };
        let mut mappings = SystemMappings::new(map.dev(), direction, isolated.len(), GFP_KERNEL);
        let mut at = 0;
        while let Some(run) = isolated.next_run(at) {
            at = run.end();
            let mut index = run.first;
            while index < run.end() {
                let Some((destination, order)) = isolated.destination(&run, index) else {
                    index += 1;
                    continue;
                };
                let pages = 1 << order;
                let source = match run.source {
                    Source::Hole => None,
                    Source::Folio(pfn) => Some(pfn + (index - run.first)),
                };
                let address = isolated.address(&run, index);
                map_piece(map, &mut mappings, from, source, destination, pages, address, &mut add)?;
                index += pages;
            }
        }
        mappings.finish()?;
        Ok(Self { mappings, isolated })
    }

    /// Vouches that the device has filled every destination, from its source or with zeroes, and has finished.
    ///
    /// The content is seen by the processes from [`Filled::commit`] on: whoever calls this without having filled the destinations shows
    /// them what the memory's last user left there.
    pub(crate) fn filled(self) -> Filled<'a> {
        // What the device wrote may have to be copied to where it belongs.
        drop(self.mappings);
        Filled(self.isolated.into_migration())
    }
}

/// Maps the system's side of a piece, which is contiguous on both sides, and reports what is to be done.
#[allow(clippy::too_many_arguments)] // a private step of one loop
fn map_piece<T: DeviceMemory>(
    map: BoundMap<'_, T>,
    mappings: &mut SystemMappings<'_>,
    from: Side,
    source: Option<Pfn>,
    destination: Pfn,
    pages: usize,
    address: usize,
    add: &mut impl FnMut(Transfer) -> Result,
) -> Result {
    let offset = |pfn| map.offset(pfn).map(Endpoint::Device).ok_or(EINVAL);
    let mut done = 0;
    while done < pages {
        let (system, device) = match (from, source) {
            (Side::System, None) => (None, destination),
            (Side::System, Some(source)) => (Some(source), destination),
            (Side::Device, Some(source)) => (Some(destination), source),
            (Side::Device, None) | (Side::StandIn, _) => return Err(EINVAL),
        };
        let device = offset(device + done)?;
        let (system, mapped) = match system {
            None => (None, pages - done),
            Some(pfn) => {
                // SAFETY: An isolated source and a destination stay allocated until the migration is dropped, which is after the mappings
                // are. Nobody else has a use for a destination's content.
                let (address, mapped) = unsafe { mappings.map(pfn + done, pages - done) }?;
                (Some(Endpoint::System(address)), mapped)
            }
        };
        let (source, destination) = match (from, system) {
            (Side::System, system) => (system, device),
            (Side::Device, Some(system)) => (Some(device), system),
            (Side::Device, None) | (Side::StandIn, _) => return Err(EINVAL),
        };
        let address = address + done * PAGE_SIZE;
        add(Transfer { source, destination, length: mapped * PAGE_SIZE, address })?;
        done += mapped;
    }
    Ok(())
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

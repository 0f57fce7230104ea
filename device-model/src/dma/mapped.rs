// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest memory that is mapped into this process.
//!
//! [`MappedSpace`] is the [`DmaSpace`] of most embedders: one gives it the guest's RAM once, another adds and removes maps as
//! its client says. A session ([`session`]) holds the table's read lock, so [`MappedSpace::unmap`] returns
//! only when no access through the removed maps is under way.

mod error;
mod session;
mod sigbus;
mod table;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Weak};

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MmapRegion};

use super::{DmaSession, DmaSpace, MapAccess, MapObserver, MappedRegion};
use crate::sync::RwLock;
pub use error::MapError;
use session::Session;
use sigbus::Watch;
use table::{Map, MapTable, check_aligned};

/// Addresses, lengths and file offsets of maps are multiples of this many bytes.
pub const MAP_ALIGNMENT: u64 = 4096;
/// Most maps one space holds, which bounds what a client can make the table cost: as many as there are 16-bit numbers to name them.
pub const MAX_MAPS: usize = 65_535;

/// Guest memory by bus address; maps may come and go while engines use it.
///
/// A file behind a map may shrink under it: DMA to that map then fails as if there were no map, and the log says why once. To
/// outlive it, this process handles SIGBUS, and passes on what is not its own.
#[derive(Default)]
pub struct MappedSpace {
    maps: RwLock<BTreeMap<u64, Map>>,
    /// Changed and called with `maps` locked for writing, so that no change of the maps is missed.
    observers: RwLock<Vec<Weak<dyn MapObserver>>>,
}

impl MappedSpace {
    /// A space with no maps.
    pub fn new() -> Self {
        Self::default()
    }

    /// A space with all regions of a guest's memory, at their guest physical addresses, for reads and writes.
    ///
    /// # Errors
    ///
    /// As [`Self::map_region`].
    pub fn from_memory(memory: &GuestMemoryMmap) -> Result<Self, MapError> {
        let space = Self::new();
        for region in memory.iter() {
            space.map_region(region.start_addr().0, region.get_mmap(), MapAccess::ReadWrite)?;
        }
        Ok(space)
    }

    /// Maps `length` bytes of `file` from `file_offset` at bus address `address`.
    ///
    /// # Errors
    ///
    /// Whatever [`MapError`] lists but `Partial`; the maps are then as before.
    pub fn map_file(
        &self,
        address: u64,
        length: u64,
        file: File,
        file_offset: u64,
        access: MapAccess,
    ) -> Result<(), MapError> {
        check_aligned("the file offset", file_offset)?;
        self.maps.read().check_free(address, length)?;
        let too_large = MapError::TooLarge { address, length };
        let Ok(size) = usize::try_from(length) else { return Err(too_large) };
        let Some(needed) = file_offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok()) else {
            return Err(too_large);
        };
        let metadata = file.metadata().map_err(MapError::Stat)?;
        if !metadata.is_file() {
            return Err(MapError::NotAFile(address));
        }
        if needed > metadata.len() {
            return Err(MapError::BeyondFile { needed, size: metadata.len() });
        }
        let protection = match access {
            MapAccess::ReadOnly => libc::PROT_READ,
            MapAccess::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        let region = MmapRegionBuilder::new(size)
            .with_mmap_prot(protection)
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
            .with_file_offset(FileOffset::new(file, file_offset))
            .build()
            .map_err(|source| MapError::Mmap { address, length, source })?;
        self.map_region(address, Arc::new(region), access)
    }

    /// Maps memory that this process has mapped already, all of it, at bus address `address`. A region for
    /// [`MapAccess::ReadWrite`] must be writable.
    ///
    /// # Errors
    ///
    /// [`MapError::Empty`], [`MapError::Unaligned`], [`MapError::TooLarge`], [`MapError::Overlap`], [`MapError::TooMany`].
    pub fn map_region(&self, address: u64, region: Arc<MmapRegion>, access: MapAccess) -> Result<(), MapError> {
        Watch::prepare();
        let length = region.size() as u64;
        let mut maps = self.maps.write();
        let last = maps.check_free(address, length)?;
        if maps.len() >= MAX_MAPS {
            return Err(MapError::TooMany);
        }
        let map = Map { region, last, access, watch: Watch::default() };
        self.report(|observer| observer.mapped(&map.observed(address)));
        maps.insert(address, map);
        Ok(())
    }

    /// Removes all maps inside the range and returns how many there were; none is no error. Once this has returned, no
    /// access through them is under way or will begin.
    ///
    /// # Errors
    ///
    /// [`MapError::Partial`] if the range covers a map in part, [`MapError::TooLarge`] if it wraps; the maps are then as
    /// before.
    pub fn unmap(&self, address: u64, length: u64) -> Result<usize, MapError> {
        let Some(extent) = length.checked_sub(1) else { return Ok(0) };
        let Some(last) = address.checked_add(extent) else { return Err(MapError::TooLarge { address, length }) };
        let mut maps = self.maps.write();
        if let Some((&other, _)) = maps.range(..address).next_back().filter(|(_, map)| map.last >= address) {
            return Err(MapError::Partial { address, length, other });
        }
        if let Some((&other, _)) = maps.range(address..=last).next_back().filter(|(_, map)| map.last > last) {
            return Err(MapError::Partial { address, length, other });
        }
        let inside: Vec<u64> = maps.range(address..=last).map(|(&start, _)| start).collect();
        let removed = inside.into_iter().filter_map(|start| maps.remove(&start).map(|map| (start, map))).collect();
        Ok(self.report_unmapped(address, length, &removed))
    }

    /// Removes every map, as when the client disconnects.
    pub fn clear(&self) {
        let mut maps = self.maps.write();
        let removed = std::mem::take(&mut *maps);
        self.report_unmapped(0, u64::MAX, &removed);
    }

    /// Tells the observers which maps of a range were removed, if any; returns how many. `maps` is locked for writing.
    fn report_unmapped(&self, address: u64, length: u64, removed: &BTreeMap<u64, Map>) -> usize {
        if !removed.is_empty() {
            let regions: Vec<MappedRegion<'_>> = removed.iter().map(|(&start, map)| map.observed(start)).collect();
            self.report(|observer| observer.unmapped(address, length, &regions));
        }
        removed.len()
    }

    /// Calls `report` with each observer that still exists. `maps` is locked for writing.
    fn report(&self, report: impl Fn(&dyn MapObserver)) {
        self.observers.write().retain(|observer| match observer.upgrade() {
            Some(observer) => {
                report(&*observer);
                true
            }
            None => false,
        });
    }

    /// Number of maps.
    pub fn len(&self) -> usize {
        self.maps.read().len()
    }

    /// Whether there is no map.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl DmaSpace for MappedSpace {
    fn open(&self) -> Box<dyn DmaSession + '_> {
        Box::new(Session { maps: self.maps.read() })
    }

    fn observe_maps(&self, observer: Weak<dyn MapObserver>) {
        let maps = self.maps.write();
        if let Some(observer) = observer.upgrade() {
            maps.iter().for_each(|(&address, map)| observer.mapped(&map.observed(address)));
        }
        self.observers.write().push(observer);
    }
}

#[cfg(test)]
mod tests;

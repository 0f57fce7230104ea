// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table of maps, and walking it for a transfer.

use std::collections::BTreeMap;
use std::sync::Arc;

use vm_memory::{MmapRegion, VolatileMemory, VolatileSlice};

use super::super::{DmaError, MapAccess, MappedRegion};
use super::sigbus::Watch;
use super::{MAP_ALIGNMENT, MapError};

/// One map: a range of bus addresses and the memory behind it.
pub(super) struct Map {
    pub(super) region: Arc<MmapRegion>,
    pub(super) last: u64,
    pub(super) access: MapAccess,
    pub(super) watch: Watch,
}

impl Map {
    /// Calls `transfer` with some of the memory.
    fn touch<R>(
        &self,
        (address, offset, count): (u64, usize, usize),
        transfer: impl FnOnce(VolatileSlice<'_>) -> R,
    ) -> Result<R, DmaError> {
        let gone = DmaError::Unmapped(address);
        let slice = self.region.get_slice(offset, count).map_err(|_| gone)?;
        self.watch.touch(&self.region, || transfer(slice)).ok_or_else(|| {
            if self.watch.is_news() {
                log::error!(
                    "the guest memory behind a DMA map is gone, at or near bus address {address:#x}: its file was truncated, \
                     or is on a file system that is full; DMA to that map fails from now on"
                );
            }
            gone
        })
    }

    /// What observers see of this map.
    pub(super) fn observed(&self, address: u64) -> MappedRegion<'_> {
        MappedRegion { address, access: self.access, memory: &self.region }
    }
}

/// The table of maps, by first bus address.
pub(super) trait MapTable {
    /// The last bus address of this range, provided that no map touches it.
    fn check_free(&self, address: u64, length: u64) -> Result<u64, MapError>;

    /// Calls `transfer` with the memory from `address` on to the end of its map, at most `limit` bytes.
    fn with_slice<R>(
        &self,
        address: u64,
        limit: usize,
        access: MapAccess,
        transfer: impl FnOnce(VolatileSlice<'_>) -> R,
    ) -> Result<R, DmaError>;

    /// Calls `transfer` for each piece of `[address, address + length)` with the piece's offset in the range.
    fn for_each_piece(
        &self,
        address: u64,
        length: usize,
        access: MapAccess,
        mut transfer: impl FnMut(VolatileSlice<'_>, usize),
    ) -> Result<(), DmaError> {
        let mut done = 0;
        while done < length {
            // Beyond the last address there is nothing, and no map ends there but at it.
            let at = address.checked_add(done as u64).ok_or(DmaError::Unmapped(u64::MAX))?;
            done += self.with_slice(at, length - done, access, |slice| {
                let count = slice.len();
                transfer(slice, done);
                count
            })?;
        }
        Ok(())
    }
}

impl MapTable for BTreeMap<u64, Map> {
    fn check_free(&self, address: u64, length: u64) -> Result<u64, MapError> {
        check_aligned("the address", address)?;
        check_aligned("the length", length)?;
        let Some(extent) = length.checked_sub(1) else { return Err(MapError::Empty(address)) };
        let Some(last) = address.checked_add(extent) else { return Err(MapError::TooLarge { address, length }) };
        match self.range(..=last).next_back() {
            Some((&other, map)) if map.last >= address => Err(MapError::Overlap { address, length, other }),
            _ => Ok(last),
        }
    }

    fn with_slice<R>(
        &self,
        address: u64,
        limit: usize,
        access: MapAccess,
        transfer: impl FnOnce(VolatileSlice<'_>) -> R,
    ) -> Result<R, DmaError> {
        let unmapped = DmaError::Unmapped(address);
        let Some((start, map)) = self.range(..=address).next_back().filter(|(_, map)| map.last >= address) else {
            return Err(unmapped);
        };
        if access == MapAccess::ReadWrite && map.access == MapAccess::ReadOnly {
            return Err(DmaError::ReadOnly(address));
        }
        let offset = usize::try_from(address - start).map_err(|_| unmapped)?;
        let count = limit.min(map.region.size() - offset);
        map.touch((address, offset, count), transfer)
    }
}

/// Refuses what is not a multiple of [`MAP_ALIGNMENT`].
pub(super) fn check_aligned(what: &'static str, value: u64) -> Result<(), MapError> {
    if value % MAP_ALIGNMENT == 0 { Ok(()) } else { Err(MapError::Unaligned { what, value }) }
}

/// Calls `transfer` with an aligned word, which never crosses maps: they are aligned to more than a word.
pub(super) fn with_word<T, R>(
    maps: &BTreeMap<u64, Map>,
    address: u64,
    access: MapAccess,
    transfer: impl FnOnce(VolatileSlice<'_>) -> R,
) -> Result<R, DmaError> {
    if address % size_of::<T>() as u64 != 0 {
        return Err(DmaError::Unaligned(address));
    }
    maps.with_slice(address, size_of::<T>(), access, transfer)
}

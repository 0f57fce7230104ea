// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Accesses to mapped memory, by maps that stay as they are meanwhile.

use std::collections::BTreeMap;
use std::sync::RwLockReadGuard;
use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::{AtomicAccess, Bytes, VolatileMemory, VolatileMemoryError, VolatileSlice};

use super::super::{DmaError, DmaSession, MapAccess, Purpose};
use super::table::{Map, MapTable, with_word};
use crate::cache_hint::prefetch;

/// Maps, locked against changes.
pub(super) struct Session<'a> {
    pub(super) maps: RwLockReadGuard<'a, BTreeMap<u64, Map>>,
}

impl Session<'_> {
    fn load<T: AtomicAccess>(&self, address: u64, order: Ordering) -> Result<T, DmaError> {
        with_word::<T, _>(&self.maps, address, MapAccess::ReadOnly, |word| word.load(0, order))?
            .map_err(|_| DmaError::Unaligned(address))
    }

    fn store<T: AtomicAccess>(&self, address: u64, value: T, order: Ordering) -> Result<(), DmaError> {
        with_word::<T, _>(&self.maps, address, MapAccess::ReadWrite, |word| word.store(value, 0, order))?
            .map_err(|_| DmaError::Unaligned(address))
    }
}

impl DmaSession for Session<'_> {
    fn read(&self, address: u64, target: &VolatileSlice<'_>) -> Result<(), DmaError> {
        self.maps.for_each_piece(address, target.len(), MapAccess::ReadOnly, |piece, offset| {
            if let Ok(rest) = target.offset(offset) {
                piece.copy_to_volatile_slice(rest);
            }
        })
    }

    fn write(&self, address: u64, source: &VolatileSlice<'_>) -> Result<(), DmaError> {
        self.maps.for_each_piece(address, source.len(), MapAccess::ReadWrite, |piece, offset| {
            if let Ok(rest) = source.offset(offset) {
                rest.copy_to_volatile_slice(piece);
            }
        })
    }

    fn load_u32(&self, address: u64) -> Result<u32, DmaError> {
        self.load(address, Ordering::Acquire).map(u32::from_le)
    }

    fn load_u64(&self, address: u64) -> Result<u64, DmaError> {
        self.load(address, Ordering::Acquire).map(u64::from_le)
    }

    fn store_u32(&self, address: u64, value: u32) -> Result<(), DmaError> {
        self.store(address, value.to_le(), Ordering::Release)
    }

    fn store_u64(&self, address: u64, value: u64) -> Result<(), DmaError> {
        self.store(address, value.to_le(), Ordering::Release)
    }

    fn compare_exchange_u64(&self, address: u64, current: u64, new: u64) -> Result<Result<u64, u64>, DmaError> {
        let exchanged = with_word::<u64, _>(&self.maps, address, MapAccess::ReadWrite, |word| {
            let word = word.get_atomic_ref::<AtomicU64>(0)?;
            let result = word.compare_exchange(current.to_le(), new.to_le(), Ordering::AcqRel, Ordering::Acquire);
            Ok::<_, VolatileMemoryError>(result.map(u64::from_le).map_err(u64::from_le))
        })?;
        exchanged.map_err(|_| DmaError::Unaligned(address))
    }

    fn expect(&self, address: u64, purpose: Purpose) {
        // An address that leads nowhere is for the access to find out.
        let _ = self.maps.with_slice(address, 1, MapAccess::ReadOnly, |slice| prefetch(&slice, purpose));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The memory that page tables are in, as a walk sees it.

use std::sync::atomic::{AtomicU64, Ordering};

use ersatz_abi::list::{Aperture, Location};
use vm_memory::{Bytes, VolatileMemory, VolatileSlice};

use crate::dma::DmaSession;
use crate::vram::Vram;

/// What a walk needs of the device around it.
pub trait TableMemory {
    /// Reads the aligned word at a location, with acquire ordering; `None` if nothing can be read there.
    fn load_u64(&self, at: Location) -> Option<u64>;

    /// Replaces the aligned word at a location by `new` if it is `current`, in one step; `Err` says what it is instead, `None` that
    /// nothing can be written there.
    fn compare_exchange_u64(&self, at: Location, current: u64, new: u64) -> Option<Result<u64, u64>>;

    /// Whether a peer of this number is there.
    fn has_peer(&self, peer: u8) -> bool;
}

/// The memory that a GPU's page tables may be in: its VRAM, and the system's memory.
pub struct DeviceTables<'a, P> {
    /// For offsets in VRAM.
    pub vram: &'a Vram,
    /// For bus addresses.
    pub system: &'a dyn DmaSession,
    /// Whether a peer of this number is there.
    pub has_peer: P,
}

impl<P> DeviceTables<'_, P> {
    /// A word of VRAM, unless engines do not access its page.
    fn table_word(&self, offset: u64) -> Option<VolatileSlice<'_>> {
        self.vram.slice(offset, 8).filter(|_| self.vram.refusal(offset, 8).is_none())
    }
}

impl<P: Fn(u8) -> bool> TableMemory for DeviceTables<'_, P> {
    fn load_u64(&self, at: Location) -> Option<u64> {
        match at.aperture {
            Aperture::Vram => {
                let word = self.table_word(at.address)?;
                word.load(0, Ordering::Acquire).ok().map(u64::from_le)
            }
            Aperture::System => self.system.load_u64(at.address).ok(),
            Aperture::Peer | Aperture::Virtual => None,
        }
    }

    fn compare_exchange_u64(&self, at: Location, current: u64, new: u64) -> Option<Result<u64, u64>> {
        match at.aperture {
            Aperture::Vram => {
                let word = self.table_word(at.address)?;
                let word = word.get_atomic_ref::<AtomicU64>(0).ok()?;
                let result = word.compare_exchange(current.to_le(), new.to_le(), Ordering::AcqRel, Ordering::Acquire);
                Some(result.map(u64::from_le).map_err(u64::from_le))
            }
            Aperture::System => self.system.compare_exchange_u64(at.address, current, new).ok(),
            Aperture::Peer | Aperture::Virtual => None,
        }
    }

    fn has_peer(&self, peer: u8) -> bool {
        (self.has_peer)(peer)
    }
}

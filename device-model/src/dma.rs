// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest memory as the device sees it: by bus address, with maps that come and go at run time.

mod mapped;
mod observer;

use std::sync::Weak;

use thiserror::Error;
use vm_memory::VolatileSlice;

pub use crate::cache_hint::Purpose;

pub use mapped::{MAP_ALIGNMENT, MAX_MAPS, MapError, MappedSpace};
pub use observer::{MapAccess, MapObserver, MappedRegion};

/// Why DMA did not happen. Nothing was transferred beyond what the error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DmaError {
    /// No map covers this bus address.
    #[error("bus address {0:#x} is not mapped")]
    Unmapped(u64),
    /// The map that covers this bus address may not be written.
    #[error("bus address {0:#x} is mapped read-only")]
    ReadOnly(u64),
    /// An atomic access was not naturally aligned.
    #[error("bus address {0:#x} is not aligned for this access")]
    Unaligned(u64),
}

/// The memory a device masters.
///
/// Called by engine threads at any time, with locks of the device held, while another thread changes the maps: must not call
/// into the device. An implementation guarantees that once
/// a map is taken away (the call that removes it has returned), no access through it is under way or will begin.
pub trait DmaSpace: Send + Sync {
    /// Begins a few accesses, which are cheaper together than each by itself: the maps stay as they are until what this returns
    /// is dropped. A thread holds one of these at a time, and not for long: a change of the maps waits for it.
    fn open(&self) -> Box<dyn DmaSession + '_>;

    /// Reports the regions that are mapped, and from now on every change, to `observer`, as long as it exists. A space that does
    /// not know its maps reports nothing.
    fn observe_maps(&self, observer: Weak<dyn MapObserver>) {
        let _ = observer;
    }
}

/// Accesses to a [`DmaSpace`].
pub trait DmaSession {
    /// Copies from bus address `address` into all of `target`; may cross maps.
    ///
    /// # Errors
    ///
    /// [`DmaError::Unmapped`] with the first address that could not be read.
    fn read(&self, address: u64, target: &VolatileSlice<'_>) -> Result<(), DmaError>;

    /// Copies all of `source` to bus address `address`; may cross maps.
    ///
    /// # Errors
    ///
    /// [`DmaError::Unmapped`] or [`DmaError::ReadOnly`] with the first address that could not be written.
    fn write(&self, address: u64, source: &VolatileSlice<'_>) -> Result<(), DmaError>;

    /// Reads an aligned 32-bit word with acquire ordering.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], or [`DmaError::Unaligned`].
    fn load_u32(&self, address: u64) -> Result<u32, DmaError>;

    /// Reads an aligned 64-bit word with acquire ordering.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], or [`DmaError::Unaligned`].
    fn load_u64(&self, address: u64) -> Result<u64, DmaError>;

    /// Writes an aligned 32-bit word with release ordering.
    ///
    /// # Errors
    ///
    /// As [`Self::write`], or [`DmaError::Unaligned`].
    fn store_u32(&self, address: u64, value: u32) -> Result<(), DmaError>;

    /// Writes an aligned 64-bit word with release ordering.
    ///
    /// # Errors
    ///
    /// As [`Self::write`], or [`DmaError::Unaligned`].
    fn store_u64(&self, address: u64, value: u64) -> Result<(), DmaError>;

    /// Replaces an aligned 64-bit word by `new` if it is `current`, in one step for CPUs and devices alike, with acquire and
    /// release ordering. Returns what was there, as `Ok` if it was replaced.
    ///
    /// # Errors
    ///
    /// As [`Self::write`], or [`DmaError::Unaligned`].
    fn compare_exchange_u64(&self, address: u64, current: u64, new: u64) -> Result<Result<u64, u64>, DmaError>;

    /// Memory at this bus address is about to be accessed, if there is any. Nothing need come of it.
    fn expect(&self, address: u64, purpose: Purpose) {
        let _ = (address, purpose);
    }
}

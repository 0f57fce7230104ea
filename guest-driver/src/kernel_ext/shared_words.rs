// SPDX-License-Identifier: GPL-2.0
//! Memory that a device reads and writes while the driver does: an array of 64-bit words, little-endian in memory.

use super::compat;
use crate::bindings;
use kernel::{
    device::{Bound, Device},
    dma::{Coherent, DmaAddress},
    prelude::*,
};

/// An array of 64-bit words in coherent DMA memory. It begins at a page boundary.
pub(crate) struct SharedWords(Coherent<[u64]>);

impl SharedWords {
    /// Allocates `length` words, all zero.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` if `length` is zero.
    pub(crate) fn zeroed(dev: &Device<Bound>, length: usize) -> Result<Self> {
        Ok(Self(Coherent::zeroed_slice(dev, length, GFP_KERNEL)?))
    }

    /// Returns the address by which the device reaches the first word.
    pub(crate) fn dma_address(&self) -> DmaAddress {
        compat::coherent_address(&self.0)
    }

    /// Reads a word.
    ///
    /// # Errors
    ///
    /// `ERANGE` if there is no such word.
    pub(crate) fn read(&self, index: usize) -> Result<u64> {
        self.check(index, 1)?;
        Ok(u64::from_le(compat::coherent_read(&self.0, index)?))
    }

    /// Writes words, the first one at `index`.
    ///
    /// # Errors
    ///
    /// `ERANGE` if they do not all fit in; nothing has been written then.
    pub(crate) fn write(&self, index: usize, words: &[u64]) -> Result {
        self.check(index, words.len())?;
        for (offset, word) in words.iter().enumerate() {
            compat::coherent_write(&self.0, index + offset, word.to_le())?;
        }
        Ok(())
    }

    fn check(&self, index: usize, length: usize) -> Result {
        let end = index.checked_add(length).ok_or(ERANGE)?;
        (end <= self.0.len()).then_some(()).ok_or(ERANGE)
    }
}

/// Orders the writes to shared memory before it against those behind it, as the device sees them.
pub(crate) fn dma_write_barrier() {
    // SAFETY: There are no requirements.
    unsafe { bindings::ersatz_dma_wmb() };
}

/// Orders the reads of shared memory before it against the reads behind it.
pub(crate) fn dma_read_barrier() {
    // SAFETY: There are no requirements.
    unsafe { bindings::ersatz_dma_rmb() };
}

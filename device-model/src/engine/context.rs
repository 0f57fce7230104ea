// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How an engine gets at the bus on behalf of a channel, and the two reasons why it must stop.

use ersatz_abi::error::ErrorCode;
use vm_memory::VolatileSlice;

use crate::channel::{Channel, Fault, Turn};
use crate::device::Device;
use crate::dma::DmaError;

/// Why a turn ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The channel was reset: drop everything.
    Reset,
    /// The channel is to stop with an error.
    Fault(Fault),
}

impl Stop {
    pub(crate) fn fault(code: ErrorCode, entry: u32, address: u64) -> Self {
        Self::Fault(Fault { code, entry, address })
    }

    /// Reading guest memory failed.
    pub(crate) fn read(entry: u32, error: DmaError) -> Self {
        Self::fault(ErrorCode::DmaRead, entry, refused_address(error))
    }

    /// Writing guest memory failed.
    pub(crate) fn write(entry: u32, error: DmaError) -> Self {
        Self::fault(ErrorCode::DmaWrite, entry, refused_address(error))
    }
}

fn refused_address(error: DmaError) -> u64 {
    match error {
        DmaError::Unmapped(address) | DmaError::ReadOnly(address) | DmaError::Unaligned(address) => address,
    }
}

/// Who works for which channel.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) device: &'a Device,
    pub(crate) channel: &'a Channel,
    /// The number of that channel.
    pub(crate) number: u8,
    /// The number of the engine.
    pub(crate) engine: u8,
}

impl Context<'_> {
    /// Does something on the bus, provided that the channel was not reset and the function is master; `address` and
    /// `entry` are for the error if it is not.
    pub(crate) fn access<R>(&self, turn: &Turn, entry: u32, address: u64, work: impl FnOnce() -> R) -> Result<R, Stop> {
        let pass = self.device.gate.enter();
        if !self.channel.is_current(turn) {
            return Err(Stop::Reset);
        }
        if !pass.is_master() {
            return Err(Stop::fault(ErrorCode::NotMaster, entry, address));
        }
        Ok(work())
    }

    /// Reads `items` of `size` bytes each into `buffer`; returns how many could be read, at least one.
    pub(crate) fn fetch(
        &self,
        turn: &Turn,
        entry: u32,
        address: u64,
        items: u64,
        size: u64,
        buffer: &mut [u8],
    ) -> Result<u64, Stop> {
        let mut items = items;
        loop {
            let length = usize::try_from(items * size).unwrap_or(usize::MAX).min(buffer.len());
            let target = VolatileSlice::from(&mut buffer[..length]);
            match self.access(turn, entry, address, || self.device.ports.dma.read(address, &target))? {
                Ok(()) => return Ok(items),
                Err(error) => {
                    let whole = refused_address(error).saturating_sub(address) / size;
                    // A space that refuses an address it was not asked for must not keep this going.
                    if whole == 0 || whole >= items {
                        return Err(Stop::read(entry, error));
                    }
                    items = whole;
                }
            }
        }
    }
}

/// The little-endian words of the item in a slot of a batch, zeros beyond its end.
pub(crate) fn words_at<const N: usize>(batch: &[u8], slot: usize) -> [u64; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(batch.chunks_exact(8).skip(slot * N)) {
        *word = bytes.try_into().map_or(0, u64::from_le_bytes);
    }
    words
}

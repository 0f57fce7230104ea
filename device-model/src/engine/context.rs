// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How an engine gets the permit to act on behalf of a channel, and the reasons why it must stop.

use ersatz_abi::command::{CommandError, EntryError};
use ersatz_abi::error::ErrorCode;
use ersatz_abi::list::ListError;
use vm_memory::VolatileSlice;

use crate::channel::{Channel, ChannelFailure, Turn, Wait};
use crate::device::Device;
use crate::dma::{DmaError, DmaSession};
use crate::engine::gate::{Master, Pass};
use crate::mmu::PageFault;
use crate::notification::Initiator;

/// Why a turn ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The channel was reset: drop everything.
    Reset,
    /// The channel is to stop with an error.
    Failed(ChannelFailure),
    /// The MMU refused an access.
    PageFault {
        /// What it refused.
        fault: PageFault,
        /// List entry, 0 if there is none.
        entry: u32,
    },
    /// The command has to wait.
    Wait(Wait),
}

impl Stop {
    pub(crate) fn failed(code: ErrorCode, entry: u32, address: u64) -> Self {
        Self::Failed(ChannelFailure { code, entry, address })
    }

    /// The 64 bytes at the bus address `place` are not a valid command.
    pub(crate) fn command(error: CommandError, place: u64, words: &[u64; 8]) -> Self {
        match error {
            CommandError::Unknown => Self::failed(ErrorCode::BadCommand, 0, place),
            CommandError::Reserved => Self::failed(ErrorCode::ReservedBits, 0, place),
            CommandError::List(ListError::Count) => Self::failed(ErrorCode::BadCount, 0, place),
            CommandError::List(ListError::Address) => Self::failed(ErrorCode::BadListAddress, 0, words[2]),
            CommandError::Invalidation => Self::failed(ErrorCode::BadInvalidation, 0, place),
            CommandError::Operand(operand) => Self::failed(ErrorCode::BadOperand, 0, operand),
        }
    }

    /// The 32 bytes at the bus address `place` are not a valid list entry.
    pub(crate) fn entry(error: EntryError, entry: u32, place: u64) -> Self {
        let code = match error {
            EntryError::Reserved => ErrorCode::ReservedBits,
            EntryError::Aperture => ErrorCode::BadAperture,
            EntryError::Alignment => ErrorCode::BadAlignment,
            EntryError::Length => ErrorCode::BadLength,
        };
        Self::failed(code, entry, place)
    }

    /// Reading guest memory failed.
    pub(crate) fn read(entry: u32, error: DmaError) -> Self {
        Self::failed(ErrorCode::DmaRead, entry, refused_address(error))
    }

    /// Writing guest memory failed.
    pub(crate) fn write(entry: u32, error: DmaError) -> Self {
        Self::failed(ErrorCode::DmaWrite, entry, refused_address(error))
    }
}

fn refused_address(error: DmaError) -> u64 {
    match error {
        DmaError::Unmapped(address) | DmaError::ReadOnly(address) | DmaError::Unaligned(address) => address,
    }
}

/// Who works for which channel, and at what.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) device: &'a Device,
    pub(crate) channel: &'a Channel,
    pub(crate) turn: Turn,
    /// The number of that channel.
    pub(crate) number: u8,
    /// The number of the engine.
    pub(crate) engine: u8,
}

impl Context<'_> {
    /// Does something on the memory, provided that the channel was not reset and the function is master; `address` and
    /// `entry` are for the error if it is not.
    pub(crate) fn access<R>(&self, entry: u32, address: u64, work: impl FnOnce(&Master<'_>) -> R) -> Result<R, Stop> {
        match self.enter()?.master(&self.device.ports.dma) {
            Ok(master) => Ok(work(&master)),
            Err(_) => Err(Stop::failed(ErrorCode::NotMaster, entry, address)),
        }
    }

    /// Does something that needs no memory of the system, provided that the channel was not reset. A reset of the function
    /// waits until it is done, and undoes it.
    pub(crate) fn unless_reset<R>(&self, work: impl FnOnce() -> R) -> Result<R, Stop> {
        let _pass = self.enter()?;
        Ok(work())
    }

    /// Passes the gate, provided that the channel was not reset.
    pub(crate) fn enter(&self) -> Result<Pass<'_>, Stop> {
        let pass = self.device.gate.enter();
        if self.channel.is_current(&self.turn) { Ok(pass) } else { Err(Stop::Reset) }
    }

    /// Reports an access that faulted to the driver; if the record is lost, counters and trace say so.
    pub(crate) fn report(&self, master: &Master<'_>, fault: &PageFault) {
        let initiator = Initiator { channel: self.number, engine: self.engine, asid: self.turn.setup.asid };
        let _ = self.device.record_fault(master, initiator, fault);
    }

    /// Reads `items` of `size` bytes each into `buffer`; returns how many could be read, at least one.
    pub(crate) fn fetch(
        &self,
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
            match self.access(entry, address, |master| master.dma.read(address, &target))? {
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
#[inline]
pub(crate) fn words_at<const N: usize>(batch: &[u8], slot: usize) -> [u64; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(batch.chunks_exact(8).skip(slot * N)) {
        *word = bytes.try_into().map_or(0, u64::from_le_bytes);
    }
    words
}

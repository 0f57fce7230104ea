// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A notification ring: its registers, and the way of a record to guest memory.

use ersatz_abi::notification::{NotificationControl, NotificationStatus};
use vm_memory::VolatileSlice;

use super::publish::{RECORD_WORDS, Slot, publish};
use super::state::{Acknowledged, Claim, Setup, State};
use crate::dma::{DmaError, DmaSession};
use crate::sync::Mutex;
use crate::trace::Loss;

/// The registers of a ring as they read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingRegisters {
    pub(crate) setup: Setup,
    pub(crate) control: NotificationControl,
    pub(crate) status: NotificationStatus,
    pub(crate) get: u32,
    pub(crate) put: u32,
}

/// One of the device's two rings. The vectors that methods return are to be raised by the caller once they have returned.
#[derive(Debug, Default)]
pub(crate) struct NotificationRing {
    state: Mutex<State>,
}

impl NotificationRing {
    /// Back to the state after reset. No thread may be between [`Self::claim`] and [`Self::fill`].
    pub(crate) fn reset(&self) {
        *self.state.lock() = State::default();
    }

    pub(crate) fn snapshot(&self) -> RingRegisters {
        let state = self.state.lock();
        RingRegisters {
            setup: state.setup(),
            control: state.control(),
            status: state.status(),
            get: state.get(),
            put: state.put(),
        }
    }

    /// Changes the setup; whether the ring was disabled, as it must be.
    pub(crate) fn set_up(&self, change: impl FnOnce(&mut Setup)) -> bool {
        self.state.lock().set_up(change)
    }

    /// Enables or disables the ring; `false` while records claimed before it was disabled are under way.
    pub(crate) fn switch(&self, enable: bool) -> bool {
        self.state.lock().switch(enable)
    }

    /// Clears the given bits of the status.
    pub(crate) fn clear_status(&self, bits: NotificationStatus) {
        self.state.lock().clear_status(bits);
    }

    /// The driver has read up to `get`; `None` if it cannot have.
    pub(crate) fn acknowledge(&self, get: u32) -> Option<Acknowledged> {
        self.state.lock().acknowledge(get)
    }

    /// Moves PUT for a record; the claim must go to [`Self::fill`]. `may_drop`: whether the record is left out of
    /// a ring that is more than half full.
    pub(crate) fn claim(&self, may_drop: bool) -> Result<Claim, Loss> {
        self.state.lock().claim(may_drop)
    }

    /// A record is lost as if the ring was full. Returns why it is lost.
    pub(crate) fn overflow(&self) -> Loss {
        self.state.lock().overflow()
    }

    /// Writes a record where a claim says. The claim's interrupt is due either way: it may be what announces a record of another
    /// thread, behind this one.
    pub(crate) fn fill(&self, dma: &dyn DmaSession, claim: &Claim, record: &[u64; RECORD_WORDS]) -> Result<(), Loss> {
        let written = publish(&GuestSlot { dma, address: claim.address }, record);
        self.state.lock().settle(written.is_ok());
        written.map_err(|_| Loss::DmaError)
    }

    /// No DMA is possible for a claim: its place stays empty. Returns why its record is lost.
    pub(crate) fn abandon(&self, _claim: &Claim) -> Loss {
        self.state.lock().settle(false);
        Loss::DmaError
    }
}

/// A slot in guest memory.
struct GuestSlot<'a> {
    dma: &'a dyn DmaSession,
    address: u64,
}

impl GuestSlot<'_> {
    fn address_of(&self, word: usize) -> u64 {
        self.address + (word * size_of::<u64>()) as u64
    }
}

impl Slot for GuestSlot<'_> {
    type Error = DmaError;

    fn write(&self, word: usize, value: u64) -> Result<(), DmaError> {
        let mut bytes = value.to_le_bytes();
        self.dma.write(self.address_of(word), &VolatileSlice::from(&mut bytes[..]))
    }

    fn release(&self, word: usize, value: u64) -> Result<(), DmaError> {
        self.dma.store_u64(self.address_of(word), value)
    }
}

#[cfg(test)]
mod tests;

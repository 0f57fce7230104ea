// SPDX-License-Identifier: GPL-2.0
//! The device's fault buffer.
//!
//! Whoever waits for a channel collects the records of all channels, and takes those of its own. What is lost (the ring was full, a record
//! never became valid, a channel had too many) is reported again after a replay, so nothing has to be kept for good.

use super::{
    super::registers::{Registers, Ring},
    notification_ring::NotificationRing,
    MAX_CHANNELS,
};
use crate::abi::fault::FaultRecord;
use kernel::{
    device::{Bound, Device},
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
};

/// Records that are kept for a channel: as many as it has accesses under way, twice.
const KEPT: usize = 8;

struct State {
    ring: NotificationRing,
    kept: [[Option<FaultRecord>; KEPT]; MAX_CHANNELS],
}

/// The ring of fault records.
#[pin_data]
pub(crate) struct FaultBuffer {
    first_channel: u32,
    #[pin]
    state: Mutex<State>,
}

impl FaultBuffer {
    /// A ring for the faults of up to [`MAX_CHANNELS`] channels from `first_channel` on, not enabled yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        dev: &Device<Bound>,
        registers: Arc<Registers>,
        first_channel: u32,
        vector: u16,
    ) -> Result<impl PinInit<Self>> {
        let ring = NotificationRing::new(dev, registers, Ring::Faults, vector)?;
        Ok(pin_init!(Self {
            first_channel,
            state <- new_mutex!(
                State { ring, kept: [const { [None; KEPT] }; MAX_CHANNELS] },
                "ersatz_fault_buffer"
            ),
        }))
    }

    /// As [`NotificationRing::enable`].
    ///
    /// # Errors
    ///
    /// `EIO`; `ETIMEDOUT`.
    pub(crate) fn enable(&self) -> Result {
        self.state.lock().ring.enable()
    }

    /// Takes all records from the ring, for [`FaultBuffer::take`].
    ///
    /// # Errors
    ///
    /// `EIO` if the device does not answer as it should.
    pub(crate) fn collect(&self) -> Result {
        let mut state = self.state.lock();
        let State { ring, kept } = &mut *state;
        // What was lost comes back after a replay.
        ring.collect(|words| {
            if let Some(record) = FaultRecord::decode(words) {
                self.keep(kept, record);
            }
        })?;
        Ok(())
    }

    fn keep(&self, kept: &mut [[Option<FaultRecord>; KEPT]; MAX_CHANNELS], record: FaultRecord) {
        let index = u32::from(record.channel).wrapping_sub(self.first_channel) as usize;
        let slots = kept.get_mut(index);
        if let Some(slot) = slots.and_then(|slots| slots.iter_mut().find(|slot| slot.is_none())) {
            *slot = Some(record);
        }
    }

    /// The records of channel `index` of those that this is for, which are forgotten, in the order they came.
    pub(crate) fn take(&self, index: usize) -> [Option<FaultRecord>; KEPT] {
        self.state.lock().kept.get_mut(index).map_or([None; KEPT], core::mem::take)
    }
}

// SPDX-License-Identifier: GPL-2.0
//! The device's fault buffer.
//!
//! Whoever waits for a channel collects the records of all channels, and takes those of its own. What is lost (the ring was full, a record
//! never became valid, a channel had too many) is reported again after a replay, so nothing has to be kept for good.

use super::{super::registers::Registers, MAX_CHANNELS};
use crate::{
    abi::{
        fault::{FaultRecord, FaultWord},
        notification::{NotificationControl, NotificationStatus, RECORD_BYTES, RECORD_VALID_WORD},
        regs,
    },
    kernel_ext::shared_words::{dma_read_barrier, dma_write_barrier, SharedWords},
};
use kernel::{
    device::{Bound, Device},
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
    time::{delay::fsleep, Delta},
};

/// Base-2 logarithm of the ring's length in records.
const ORDER: u32 = 8;
const LENGTH: u32 = 1 << ORDER;
const RECORD_WORDS: usize = RECORD_BYTES as usize / size_of::<u64>();
/// Records that are kept for a channel: as many as it has accesses under way, twice.
const KEPT: usize = 8;
/// How often to look whether a record is complete, and how long to wait in between.
const VALID_POLLS: u32 = 1000;
const VALID_PAUSE: Delta = Delta::from_micros(10);
/// How often to look whether the ring has stopped.
const STOP_POLLS: u32 = 1000;

struct State {
    /// The device takes the ring for enabled, unless it was reset since.
    is_running: bool,
    get: u32,
    kept: [[Option<FaultRecord>; KEPT]; MAX_CHANNELS],
}

/// The ring of fault records.
#[pin_data(PinnedDrop)]
pub(crate) struct FaultBuffer {
    registers: Arc<Registers>,
    first_channel: u32,
    vector: u16,
    ring: SharedWords,
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
    ) -> Result<impl PinInit<Self, Error>> {
        let ring = SharedWords::zeroed(dev, LENGTH as usize * RECORD_WORDS)?;
        Ok(try_pin_init!(Self {
            registers,
            first_channel,
            vector,
            ring,
            state <- new_mutex!(
                State { is_running: false, get: 0, kept: [const { [None; KEPT] }; MAX_CHANNELS] },
                "ersatz_fault_buffer"
            ),
        }))
    }

    /// Enables the ring, unless it is: a reset of the function may have come between.
    ///
    /// # Errors
    ///
    /// `EIO` if the device does not take it; `ETIMEDOUT` if it does not let go of the ring, which was stopped before.
    pub(crate) fn enable(&self) -> Result {
        let mut state = self.state.lock();
        if state.is_running && self.is_enabled()? {
            return Ok(());
        }
        self.stop(&mut state)?;
        self.start(&mut state)
    }

    fn is_enabled(&self) -> Result<bool> {
        let control = self.registers.read_fault_buffer(regs::NOTIFICATION_CONTROL)?;
        Ok(NotificationControl(control as u32).enable() && self.registers.device_answers())
    }

    fn start(&self, state: &mut State) -> Result {
        for word in 0..LENGTH as usize * RECORD_WORDS {
            self.ring.write(word, &[0])?;
        }
        dma_write_barrier();
        state.get = 0;
        let write = |register, value| self.registers.write_fault_buffer(register, value);
        write(regs::NOTIFICATION_BASE, self.ring.dma_address())?;
        write(regs::NOTIFICATION_ORDER, ORDER.into())?;
        write(regs::NOTIFICATION_VECTOR, self.vector.into())?;
        self.forget_losses()?;
        write(regs::NOTIFICATION_CONTROL, NotificationControl(0).with_enable(true).0.into())?;
        state.is_running = self.is_enabled()?;
        state.is_running.then_some(()).ok_or(EIO)
    }

    /// Clears what the device notes of records that were lost.
    fn forget_losses(&self) -> Result {
        let status = NotificationStatus(self.registers.read_fault_buffer(regs::NOTIFICATION_STATUS)? as u32);
        if status == NotificationStatus(0) || status.0 & NotificationStatus::RESERVED != 0 {
            return Ok(());
        }
        self.registers.write_fault_buffer(regs::NOTIFICATION_STATUS, status.0.into())
    }

    /// Stops the ring: its memory is the driver's again.
    fn stop(&self, state: &mut State) -> Result {
        state.is_running = false;
        self.registers.write_fault_buffer(regs::NOTIFICATION_CONTROL, 0)?;
        for _ in 0..STOP_POLLS {
            let control = self.registers.read_fault_buffer(regs::NOTIFICATION_CONTROL)?;
            if !self.registers.device_answers() {
                return Err(EIO);
            }
            if !NotificationControl(control as u32).enable() {
                return Ok(());
            }
            fsleep(VALID_PAUSE);
        }
        Err(ETIMEDOUT)
    }

    /// Takes all records from the ring, for [`FaultBuffer::take`].
    ///
    /// # Errors
    ///
    /// `EIO` if the device does not answer as it should.
    pub(crate) fn collect(&self) -> Result {
        let mut state = self.state.lock();
        // Before reading: what is lost from now on sets it again. What was lost comes back after a replay.
        self.forget_losses()?;
        let put = self.registers.read_fault_buffer(regs::NOTIFICATION_PUT)? as u32;
        let count = put.wrapping_sub(state.get);
        if count == 0 {
            return Ok(());
        }
        if !self.registers.device_answers() {
            return Err(EIO);
        }
        if count > LENGTH {
            self.stop(&mut state)?;
            return self.start(&mut state);
        }
        while state.get != put {
            let first = (state.get % LENGTH) as usize * RECORD_WORDS;
            let Some(words) = self.wait_for_record(first)? else {
                // It could not be written, and those behind it are lost with it.
                self.stop(&mut state)?;
                return self.start(&mut state);
            };
            self.ring.write(first + RECORD_VALID_WORD, &[0])?;
            state.get = state.get.wrapping_add(1);
            if let Some(record) = FaultRecord::decode(&words) {
                self.keep(&mut state, record);
            }
        }
        // The valid bits are clear before the slots are the device's again.
        dma_write_barrier();
        self.registers.write_fault_buffer(regs::NOTIFICATION_GET, put.into())
    }

    /// The words of a record, once they are there; `None` if they do not come.
    fn wait_for_record(&self, first: usize) -> Result<Option<[u64; RECORD_WORDS]>> {
        for _ in 0..VALID_POLLS {
            let word = self.ring.read(first + RECORD_VALID_WORD)?;
            if FaultWord(word).valid() {
                dma_read_barrier();
                let mut words = [word; RECORD_WORDS];
                for (index, slot) in words.iter_mut().enumerate().filter(|(index, _)| *index != RECORD_VALID_WORD) {
                    *slot = self.ring.read(first + index)?;
                }
                return Ok(Some(words));
            }
            fsleep(VALID_PAUSE);
        }
        Ok(None)
    }

    fn keep(&self, state: &mut State, record: FaultRecord) {
        let index = u32::from(record.channel).wrapping_sub(self.first_channel) as usize;
        let slots = state.kept.get_mut(index);
        if let Some(slot) = slots.and_then(|slots| slots.iter_mut().find(|slot| slot.is_none())) {
            *slot = Some(record);
        }
    }

    /// The records of channel `index` of those that this is for, which are forgotten, in the order they came.
    pub(crate) fn take(&self, index: usize) -> [Option<FaultRecord>; KEPT] {
        self.state.lock().kept.get_mut(index).map_or([None; KEPT], core::mem::take)
    }
}

#[pinned_drop]
impl PinnedDrop for FaultBuffer {
    fn drop(self: Pin<&mut Self>) {
        // The ring's memory is about to be freed. No channel is left that could fault, and a device that does not answer does no DMA.
        let _ = self.stop(&mut self.state.lock());
    }
}

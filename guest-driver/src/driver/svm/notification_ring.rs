// SPDX-License-Identifier: GPL-2.0
//! A ring of records in memory, by which the device tells what nobody asked for.
//!
//! Records get lost: the ring was full, or one could not be written. What that means is for those to say who read the ring.

use super::super::registers::{Registers, Ring};
use crate::{
    abi::{
        notification::{NotificationControl, NotificationStatus, RECORD_BYTES, RECORD_VALID, RECORD_VALID_WORD},
        regs,
    },
    kernel_ext::shared_words::{dma_read_barrier, dma_write_barrier, SharedWords},
};
use kernel::{
    device::{Bound, Device},
    prelude::*,
    sync::Arc,
    time::{delay::fsleep, Delta, Instant, Monotonic},
};

/// Base-2 logarithm of the ring's length in records.
const ORDER: u32 = 8;
const LENGTH: u32 = 1 << ORDER;
/// The words of a record.
pub(crate) const RECORD_WORDS: usize = RECORD_BYTES as usize / size_of::<u64>();
/// How long a record may take to be complete once PUT has moved, and the ring to stop.
const PATIENCE: Delta = Delta::from_millis(100);
/// How long to wait before looking again.
const PAUSE: Delta = Delta::from_micros(10);

/// The ring.
pub(crate) struct NotificationRing {
    registers: Arc<Registers>,
    which: Ring,
    vector: u16,
    words: SharedWords,
    /// The device takes the ring for enabled, unless it was reset since.
    is_running: bool,
    get: u32,
}

impl NotificationRing {
    /// A ring that raises interrupt vector `vector`, not enabled yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(dev: &Device<Bound>, registers: Arc<Registers>, which: Ring, vector: u16) -> Result<Self> {
        let words = SharedWords::zeroed(dev, LENGTH as usize * RECORD_WORDS)?;
        Ok(Self { registers, which, vector, words, is_running: false, get: 0 })
    }

    /// Enables the ring, unless it is: a reset of the function may have come between.
    ///
    /// # Errors
    ///
    /// `EIO` if the device does not take it; `ETIMEDOUT` if it does not let go of the ring, which was stopped before.
    pub(crate) fn enable(&mut self) -> Result {
        if self.is_running && self.is_enabled()? {
            return Ok(());
        }
        self.restart()
    }

    fn restart(&mut self) -> Result {
        self.stop()?;
        self.start()
    }

    fn is_enabled(&self) -> Result<bool> {
        let control = self.read(regs::NOTIFICATION_CONTROL)?;
        Ok(NotificationControl(control as u32).enable() && self.registers.device_answers())
    }

    fn start(&mut self) -> Result {
        for word in 0..LENGTH as usize * RECORD_WORDS {
            self.words.write(word, &[0])?;
        }
        dma_write_barrier();
        self.get = 0;
        self.write(regs::NOTIFICATION_BASE, self.words.dma_address())?;
        self.write(regs::NOTIFICATION_ORDER, ORDER.into())?;
        self.write(regs::NOTIFICATION_VECTOR, self.vector.into())?;
        self.forget_losses()?;
        self.write(regs::NOTIFICATION_CONTROL, NotificationControl(0).with_enable(true).0.into())?;
        self.is_running = self.is_enabled()?;
        self.is_running.then_some(()).ok_or(EIO)
    }

    /// Clears what the device notes of records that were lost. Returns whether any were.
    fn forget_losses(&self) -> Result<bool> {
        let status = NotificationStatus(self.read(regs::NOTIFICATION_STATUS)? as u32);
        if status == NotificationStatus(0) || status.0 & NotificationStatus::RESERVED != 0 {
            return Ok(false);
        }
        self.write(regs::NOTIFICATION_STATUS, status.0.into())?;
        Ok(status.overflow() || status.dma_error())
    }

    /// Stops the ring: its memory is the driver's again.
    fn stop(&mut self) -> Result {
        self.is_running = false;
        self.write(regs::NOTIFICATION_CONTROL, 0)?;
        let start = Instant::<Monotonic>::now();
        loop {
            let control = self.read(regs::NOTIFICATION_CONTROL)?;
            if !self.registers.device_answers() {
                return Err(EIO);
            }
            if !NotificationControl(control as u32).enable() {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(ETIMEDOUT);
            }
            fsleep(PAUSE);
        }
    }

    /// Takes all records from the ring, and hands them to `keep`. Returns whether others were lost.
    ///
    /// # Errors
    ///
    /// `EIO` if the device does not answer as it should.
    pub(crate) fn collect(&mut self, mut keep: impl FnMut(&[u64; RECORD_WORDS])) -> Result<bool> {
        // Before reading: what is lost from now on sets it again.
        let are_lost = self.forget_losses()?;
        let put = self.read(regs::NOTIFICATION_PUT)? as u32;
        let count = put.wrapping_sub(self.get);
        if count == 0 {
            return Ok(are_lost);
        }
        if !self.registers.device_answers() {
            return Err(EIO);
        }
        if count > LENGTH {
            self.restart()?;
            return Ok(true);
        }
        while self.get != put {
            let first = (self.get % LENGTH) as usize * RECORD_WORDS;
            let Some(words) = self.wait_for_record(first)? else {
                // It could not be written, and those behind it are lost with it.
                self.restart()?;
                return Ok(true);
            };
            self.words.write(first + RECORD_VALID_WORD, &[0])?;
            self.get = self.get.wrapping_add(1);
            keep(&words);
        }
        // The valid bits are clear before the slots are the device's again.
        dma_write_barrier();
        self.write(regs::NOTIFICATION_GET, put.into())?;
        Ok(are_lost)
    }

    /// The words of a record, once they are there; `None` if they do not come.
    fn wait_for_record(&self, first: usize) -> Result<Option<[u64; RECORD_WORDS]>> {
        let start = Instant::<Monotonic>::now();
        loop {
            let word = self.words.read(first + RECORD_VALID_WORD)?;
            if word & RECORD_VALID != 0 {
                dma_read_barrier();
                let mut words = [word; RECORD_WORDS];
                for (index, slot) in words.iter_mut().enumerate().filter(|(index, _)| *index != RECORD_VALID_WORD) {
                    *slot = self.words.read(first + index)?;
                }
                return Ok(Some(words));
            }
            if start.elapsed() > PATIENCE {
                return Ok(None);
            }
            fsleep(PAUSE);
        }
    }

    fn read(&self, register: regs::Register) -> Result<u64> {
        self.registers.read_ring(self.which, register)
    }

    fn write(&self, register: regs::Register, value: u64) -> Result {
        self.registers.write_ring(self.which, register, value)
    }
}

impl Drop for NotificationRing {
    fn drop(&mut self) {
        // The ring's memory is about to be freed. Nothing works that could write records, and a device that does not answer does no DMA.
        let _ = self.stop();
    }
}

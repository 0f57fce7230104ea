// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The rings by which the device tells of faults and of hot memory.

use std::cell::Cell;
use std::marker::PhantomData;

use ersatz_abi::access_counter::AccessRecord;
use ersatz_abi::fault::FaultRecord;
use ersatz_abi::notification::{
    NOTIFICATION_ORDER_MIN, NotificationControl, NotificationStatus, RECORD_BYTES, RECORD_VALID_WORD,
};
use ersatz_abi::regs::{self, Register};

use super::buffer::Buffer;
use super::gpu::Gpu;
use super::patience::{wait_for, wait_until};

/// What is in a ring.
pub trait Record: Sized {
    /// Offset in BAR0 of the registers of the ring with such records.
    const REGISTERS: u32;

    /// The record that these words stand for; `None` while it is not valid.
    fn decode(words: &[u64; 4]) -> Option<Self>;
}

impl Record for FaultRecord {
    const REGISTERS: u32 = regs::FAULT_RING_BASE;

    fn decode(words: &[u64; 4]) -> Option<Self> {
        Self::decode(words)
    }
}

impl Record for AccessRecord {
    const REGISTERS: u32 = regs::ACCESS_RING_BASE;

    fn decode(words: &[u64; 4]) -> Option<Self> {
        Self::decode(words)
    }
}

/// A ring that is enabled.
#[derive(Debug)]
pub struct NotificationRing<'a, R> {
    gpu: &'a Gpu,
    records: Buffer<'a>,
    get: Cell<u32>,
    kind: PhantomData<R>,
}

impl<'a, R: Record> NotificationRing<'a, R> {
    /// How many records it has room for.
    pub const LENGTH: u32 = 1 << NOTIFICATION_ORDER_MIN;

    /// Enables the ring.
    ///
    /// # Panics
    ///
    /// As all functions here, if the device does not do what a test needs.
    pub fn enable(gpu: &'a Gpu) -> Self {
        let records = gpu.system().take((u64::from(Self::LENGTH) * RECORD_BYTES) as usize);
        let ring = Self { gpu, records, get: Cell::new(0), kind: PhantomData };
        gpu.registers().write64(Self::register(regs::NOTIFICATION_BASE), records.address());
        ring.write(regs::NOTIFICATION_ORDER, NOTIFICATION_ORDER_MIN);
        ring.write(regs::NOTIFICATION_VECTOR, 0);
        ring.write(regs::NOTIFICATION_CONTROL, NotificationControl(0).with_enable(true).0);
        assert!(ring.is_enabled(), "{:?}", ring.status());
        ring
    }

    /// Disables it, and waits until its memory is no more the device's.
    pub fn disable(&self) {
        self.write(regs::NOTIFICATION_CONTROL, 0);
        wait_until("end of a notification ring", || !self.is_enabled());
    }

    /// How many records wait.
    pub fn waiting(&self) -> u32 {
        self.read(regs::NOTIFICATION_PUT).wrapping_sub(self.get.get())
    }

    /// Takes the records that wait.
    pub fn take(&self) -> Vec<R> {
        let taken: Vec<R> =
            (0..self.waiting()).map(|index| self.take_slot(self.get.get().wrapping_add(index))).collect();
        self.get.set(self.get.get().wrapping_add(taken.len() as u32));
        self.write(regs::NOTIFICATION_GET, self.get.get());
        taken
    }

    /// Waits for records, and takes those that came.
    #[track_caller]
    pub fn wait(&self) -> Vec<R> {
        wait_until("record of a notification ring", || self.waiting() != 0);
        self.take()
    }

    /// What went wrong.
    pub fn status(&self) -> NotificationStatus {
        NotificationStatus(self.read(regs::NOTIFICATION_STATUS))
    }

    /// Forgets that.
    pub fn clear_status(&self, status: NotificationStatus) {
        self.write(regs::NOTIFICATION_STATUS, status.0);
    }

    fn is_enabled(&self) -> bool {
        NotificationControl(self.read(regs::NOTIFICATION_CONTROL)).enable()
    }

    /// Waits for the record at a position, and clears its valid bit.
    fn take_slot(&self, position: u32) -> R {
        let first = u64::from(position % Self::LENGTH) * RECORD_BYTES;
        let place = |word: usize| first + (word * size_of::<u64>()) as u64;
        let record = wait_for("valid bit of a record", || {
            // The word with the bit comes first: what is read behind it is the whole record.
            let valid = self.records.read(place(RECORD_VALID_WORD));
            R::decode(&[self.records.read(place(0)), valid, self.records.read(place(2)), self.records.read(place(3))])
        });
        self.records.write(place(RECORD_VALID_WORD), 0);
        record
    }

    fn read(&self, register: Register) -> u32 {
        self.gpu.registers().read32(Self::register(register))
    }

    fn write(&self, register: Register, value: u32) {
        self.gpu.registers().write32(Self::register(register), value);
    }

    fn register(register: Register) -> Register {
        Register { offset: R::REGISTERS + register.offset, ..register }
    }
}

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! Notification rings: how the device reports faults and hot memory to the driver.
//!
//! A ring is an array of [`RECORD_BYTES`]-byte records in guest memory. The device moves PUT, then writes the record, last the
//! word with the valid bit (release): a driver that is quick finds PUT moved and the record not there yet, and waits for the
//! bit. It clears the bit before it moves GET, so that what it finds there next time is new.
//!
//! An interrupt is sent for the first record after the ring was enabled or GET was written; a write of GET that leaves
//! records behind sends another. So a driver that reads all it finds and then writes GET misses none.

/// Size of a record in bytes.
pub const RECORD_BYTES: u64 = 32;
/// Smallest order of a ring: 16 records.
pub const NOTIFICATION_ORDER_MIN: u32 = 4;
/// Largest order of a ring: 65,536 records.
pub const NOTIFICATION_ORDER_MAX: u32 = 16;
/// Word of a record that has the valid bit; written last.
pub const RECORD_VALID_WORD: usize = 1;
/// The valid bit in that word.
pub const RECORD_VALID: u64 = 1 << 63;

bitfield! {
    /// Value of [`NOTIFICATION_CONTROL`](super::regs::NOTIFICATION_CONTROL).
    pub struct NotificationControl(u32) {
        /// Records are written. Enabling starts with PUT and GET at zero. Cleared, it reads as one until the records under way
        /// are written.
        enable / with_enable: 0..=0 as flag;
    }
}

bitfield! {
    /// Value of [`NOTIFICATION_STATUS`](super::regs::NOTIFICATION_STATUS). Writing a one clears a bit.
    pub struct NotificationStatus(u32) {
        /// The ring was full, and at least one record was lost.
        overflow / with_overflow: 0..=0 as flag;
        /// A record could not be written to memory, and was lost.
        dma_error / with_dma_error: 1..=1 as flag;
        /// Enabled with an address, an order or a vector the device cannot use: it is not enabled.
        bad_setup / with_bad_setup: 2..=2 as flag;
    }
}

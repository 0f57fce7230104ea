// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The rules of a notification ring: which position a record gets, what is lost, and when an interrupt is due. No memory is
//! touched here.

use ersatz_abi::channel::SHARED_ALIGNMENT;
use ersatz_abi::notification::{
    NOTIFICATION_ORDER_MAX, NOTIFICATION_ORDER_MIN, NotificationControl, NotificationStatus, RECORD_BYTES,
};
use ersatz_abi::pci::MSIX_VECTORS;

use crate::trace::Loss;

/// The registers a driver sets while the ring is disabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) base: u64,
    pub(crate) order: u32,
    pub(crate) vector: u32,
}

/// A setup that can work. The whole ring lies inside the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ring {
    base: u64,
    records: u32,
    vector: u16,
}

impl Setup {
    fn check(&self) -> Option<Ring> {
        if !(NOTIFICATION_ORDER_MIN..=NOTIFICATION_ORDER_MAX).contains(&self.order) || self.base % SHARED_ALIGNMENT != 0
        {
            return None;
        }
        let records = 1 << self.order;
        self.base.checked_add(u64::from(records) * RECORD_BYTES)?;
        let vector = u16::try_from(self.vector).ok().filter(|vector| *vector < MSIX_VECTORS)?;
        Some(Ring { base: self.base, records, vector })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Activity {
    #[default]
    Disabled,
    Enabled(Ring),
    /// Disabled, with records under way that were claimed before.
    Stopping,
}

/// Leave to write one record: to be given back to [`State::settle`], written or not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Where in the ring.
    pub(crate) position: u32,
    /// Bus address of the record.
    pub(crate) address: u64,
    /// The vector to raise when the record is there.
    pub(crate) interrupt: Option<u16>,
}

/// A write of GET that the ring took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// The vector to raise, because records are left.
    pub(crate) interrupt: Option<u16>,
}

/// The state of a ring.
#[derive(Debug, Default)]
pub(crate) struct State {
    setup: Setup,
    activity: Activity,
    status: NotificationStatus,
    get: u32,
    put: u32,
    /// The next record is announced by an interrupt.
    armed: bool,
    /// Records claimed and not settled.
    under_way: u32,
}

impl State {
    pub(crate) fn setup(&self) -> Setup {
        self.setup
    }

    pub(crate) fn status(&self) -> NotificationStatus {
        self.status
    }

    pub(crate) fn get(&self) -> u32 {
        self.get
    }

    pub(crate) fn put(&self) -> u32 {
        self.put
    }

    /// Enabled reads as one until the last record under way is written.
    pub(crate) fn control(&self) -> NotificationControl {
        NotificationControl(0).with_enable(self.activity != Activity::Disabled)
    }

    /// Changes the setup; whether the ring was disabled, as it must be.
    pub(crate) fn set_up(&mut self, change: impl FnOnce(&mut Setup)) -> bool {
        if self.activity != Activity::Disabled {
            return false;
        }
        change(&mut self.setup);
        true
    }

    /// Enables or disables the ring; whether that made sense. A setup that cannot work shows in the status.
    pub(crate) fn switch(&mut self, enable: bool) -> bool {
        match (self.activity, enable) {
            (Activity::Disabled, true) => {
                match self.setup.check() {
                    Some(ring) => {
                        self.activity = Activity::Enabled(ring);
                        (self.get, self.put, self.armed) = (0, 0, true);
                    }
                    None => self.status = self.status.with_bad_setup(true),
                }
                true
            }
            (Activity::Enabled(_), false) => {
                self.activity = if self.under_way == 0 { Activity::Disabled } else { Activity::Stopping };
                true
            }
            (Activity::Stopping, true) => false,
            (Activity::Disabled | Activity::Stopping, false) | (Activity::Enabled(_), true) => true,
        }
    }

    /// Clears the given bits of the status.
    pub(crate) fn clear_status(&mut self, bits: NotificationStatus) {
        self.status.0 &= !bits.0;
    }

    /// The driver has read up to `get`; `None` if it cannot have.
    pub(crate) fn acknowledge(&mut self, get: u32) -> Option<Acknowledged> {
        let Activity::Enabled(ring) = self.activity else { return None };
        let left = self.put.wrapping_sub(get);
        if left > ring.records {
            return None;
        }
        self.get = get;
        self.armed = true;
        Some(Acknowledged { interrupt: (left > 0).then_some(ring.vector) })
    }

    /// Moves PUT for a record. With `may_drop`, the record is dropped if the ring is more than half full: no command waits for it.
    pub(crate) fn claim(&mut self, may_drop: bool) -> Result<Claim, Loss> {
        let Activity::Enabled(ring) = self.activity else { return Err(Loss::Off) };
        let waiting = self.put.wrapping_sub(self.get);
        if may_drop && waiting > ring.records / 2 {
            return Err(Loss::HalfFull);
        }
        if waiting >= ring.records {
            self.status = self.status.with_overflow(true);
            return Err(Loss::Overflow);
        }
        let position = self.put;
        self.put = position.wrapping_add(1);
        self.under_way += 1;
        let interrupt = std::mem::take(&mut self.armed).then_some(ring.vector);
        let address = ring.base + u64::from(position & (ring.records - 1)) * RECORD_BYTES;
        Ok(Claim { position, address, interrupt })
    }

    /// Behaves as if the ring was full. Returns why a record is lost: an overflow, if the ring is enabled.
    pub(crate) fn overflow(&mut self) -> Loss {
        let Activity::Enabled(_) = self.activity else { return Loss::Off };
        self.status = self.status.with_overflow(true);
        Loss::Overflow
    }

    /// The record of a claim is in memory, or could not be written.
    pub(crate) fn settle(&mut self, is_written: bool) {
        self.under_way = self.under_way.saturating_sub(1);
        if !is_written {
            self.status = self.status.with_dma_error(true);
        }
        if self.activity == Activity::Stopping && self.under_way == 0 {
            self.activity = Activity::Disabled;
        }
    }
}

#[cfg(test)]
mod tests;

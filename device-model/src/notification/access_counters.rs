// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The access counters: count the accesses of regions of virtual memory, and report the hot ones to the driver.

use std::sync::atomic::{AtomicBool, Ordering};

use ersatz_abi::access_counter::{
    ACCESS_SECTOR_BYTES, AccessCounterControl, AccessRecord, CLEAR_ALL_REGIONS, REGION_ORDER_MAX, REGION_ORDER_MIN,
};
use ersatz_abi::command::Aperture;
use ersatz_abi::counter::Counter;
use ersatz_abi::mmu::ADDRESS_SPACES;

use super::regions::{Region, Regions};
use super::ring::NotificationRing;
use crate::counters::Counters;
use crate::dma::DmaSession;
use crate::ports::Ports;
use crate::sync::Mutex;
use crate::trace::{Loss, NotificationEvent};

/// An access through a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) channel: u8,
    pub(crate) engine: u8,
    pub(crate) asid: u8,
    /// The virtual address.
    pub(crate) address: u64,
    /// How many bytes; does not wrap.
    pub(crate) length: u64,
    /// Where it went.
    pub(crate) aperture: Aperture,
}

#[derive(Debug, Default)]
struct State {
    control: AccessCounterControl,
    regions: Regions,
}

/// The counters and their ring.
#[derive(Debug, Default)]
pub(crate) struct AccessCounters {
    pub(crate) ring: NotificationRing,
    /// Whether anything is counted: a copy of the control's bit, for those who do not want the lock.
    enabled: AtomicBool,
    state: Mutex<State>,
}

impl AccessCounters {
    /// Back to the state after reset.
    pub(crate) fn reset(&self) {
        let mut state = self.state.lock();
        self.enabled.store(false, Ordering::Relaxed);
        *state = State::default();
        self.ring.reset();
    }

    /// Whether anything is counted.
    #[inline]
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// What the control register reads as.
    pub(crate) fn control(&self) -> AccessCounterControl {
        self.state.lock().control
    }

    /// Writes the control register, which forgets every region; whether it took the value.
    pub(crate) fn set_control(&self, control: AccessCounterControl) -> bool {
        let can_count =
            (REGION_ORDER_MIN..=REGION_ORDER_MAX).contains(&control.region_order()) && control.threshold() != 0;
        if control.0 & AccessCounterControl::RESERVED != 0 || (control.enable() && !can_count) {
            return false;
        }
        let mut state = self.state.lock();
        state.control = control;
        state.regions.clear_all();
        self.enabled.store(control.enable(), Ordering::Relaxed);
        true
    }

    /// Writes the clear register: an address with the address space in its low 16 bits, or [`CLEAR_ALL_REGIONS`]. Whether that is
    /// a region.
    pub(crate) fn clear(&self, value: u64) -> bool {
        let mut state = self.state.lock();
        if value == CLEAR_ALL_REGIONS {
            state.regions.clear_all();
            return true;
        }
        let Some(asid) = u8::try_from(value & 0xffff).ok().filter(|asid| u32::from(*asid) < ADDRESS_SPACES) else {
            return false;
        };
        if state.control.enable() {
            let address = region_of(value, state.control);
            state.regions.clear(Region { asid, address });
        }
        true
    }

    /// Counts an access; the records of regions that became hot by it, which are few, without a time.
    pub(crate) fn add(&self, access: &Access) -> Vec<AccessRecord> {
        let Access { channel, engine, asid, address, length, aperture } = *access;
        let mut hot = Vec::new();
        let mut state = self.state.lock();
        let control = state.control;
        if !control.enable() || (aperture == Aperture::Vram && !control.local()) {
            return hot;
        }
        let (mut at, mut left) = (address, length);
        while left > 0 {
            let region = region_of(at, control);
            let here = left.min((1 << control.region_order()) - (at - region));
            let key = Region { asid, address: region };
            let sectors = here.div_ceil(ACCESS_SECTOR_BYTES);
            if let Some(count) = state.regions.add(key, sectors, control.threshold().into()) {
                hot.push(AccessRecord { region, asid, channel, engine, aperture, timestamp: 0, count });
            }
            left -= here;
            at = at.saturating_add(here);
        }
        hot
    }

    /// Writes the record of a hot region, and raises the interrupt that may be due; with `loss`, behaves as if the record was lost for this
    /// reason.
    pub(crate) fn report(
        &self,
        ports: &Ports,
        counters: &Counters,
        dma: &dyn DmaSession,
        hot: AccessRecord,
        loss: Option<Loss>,
        raise: impl FnOnce(u16),
    ) {
        let record = AccessRecord { timestamp: ports.clock.now(), ..hot };
        let claim = match loss {
            None => self.ring.claim(false),
            Some(Loss::Overflow) => Err(self.ring.overflow()),
            Some(loss) => Err(loss),
        };
        let written = claim.as_ref().map_err(|loss| *loss).and_then(|claim| {
            self.ring.fill(dma, claim, &record.encode())?;
            Ok(claim.position)
        });
        let (counter, event) = match written {
            Ok(position) => (Counter::AccessNotifications, NotificationEvent::AccessNotification { record, position }),
            Err(loss) => {
                (Counter::AccessNotificationsDropped, NotificationEvent::AccessNotificationDropped { record, loss })
            }
        };
        counters.add(counter, 1);
        ports.tracer.emit(event.into());
        if let Some(vector) = claim.ok().and_then(|claim| claim.interrupt) {
            raise(vector);
        }
    }
}

/// First address of the region that an address is in.
fn region_of(address: u64, control: AccessCounterControl) -> u64 {
    address >> control.region_order() << control.region_order()
}

#[cfg(test)]
mod tests;

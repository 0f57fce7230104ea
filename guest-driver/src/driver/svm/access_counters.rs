// SPDX-License-Identifier: GPL-2.0
//! The device's access counters: which memory of the system it accesses often.
//!
//! The device counts for all address spaces while one of them wants it. Whoever waits for a kernel collects the reports of those that do,
//! and takes those of its own. A region that was reported is not reported again until it is cleared; one whose report is lost is cleared, so
//! that it is reported again if it is accessed on.

use super::{
    super::registers::{Registers, Ring},
    notification_ring::NotificationRing,
};
use crate::abi::{
    access_counter::{AccessCounterControl, AccessRecord, CLEAR_ALL_REGIONS, REGION_ORDER_MIN},
    regs,
};
use core::ops::Range;
use kernel::{
    device::{Bound, Device},
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
};

/// How much of the memory is counted as one: 64 KiB.
const REGION_BYTES: usize = 1 << REGION_ORDER_MIN;
/// Accesses, of up to 128 bytes each, that make a region one to have nearer: as many as it takes to read all of it twice.
const THRESHOLD: u32 = 1024;
/// Reports that are kept until someone takes them.
const KEPT: usize = 64;
/// Words with a bit for each number that an address space can have.
const WANTED_WORDS: usize = (u8::MAX as usize + 1) / u64::BITS as usize;

/// A region that the device accesses often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HotRegion {
    asid: u8,
    address: usize,
}

impl HotRegion {
    /// Its addresses.
    pub(crate) fn range(self) -> Range<usize> {
        self.address..self.address.saturating_add(REGION_BYTES)
    }
}

struct State {
    ring: NotificationRing,
    kept: [Option<HotRegion>; KEPT],
    /// The address spaces that want reports, a bit each.
    wanted: [u64; WANTED_WORDS],
}

impl State {
    /// Returns whether that is a change.
    fn set_wanted(&mut self, asid: u8, wants: bool) -> bool {
        let is_change = is_wanted(&self.wanted, asid) != wants;
        let (word, bit) = place(asid);
        if let Some(word) = self.wanted.get_mut(word).filter(|_| is_change) {
            *word ^= bit;
        }
        is_change
    }
}

/// Whether the bit of an address space is set.
fn is_wanted(wanted: &[u64; WANTED_WORDS], asid: u8) -> bool {
    let (word, bit) = place(asid);
    wanted.get(word).is_some_and(|word| word & bit != 0)
}

/// The word and the bit of an address space.
fn place(asid: u8) -> (usize, u64) {
    (usize::from(asid) / u64::BITS as usize, 1 << (u32::from(asid) % u64::BITS))
}

/// The counters, and the ring of their reports.
#[pin_data]
pub(crate) struct AccessCounters {
    registers: Arc<Registers>,
    #[pin]
    state: Mutex<State>,
}

impl AccessCounters {
    /// Counters that do not count yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(dev: &Device<Bound>, registers: Arc<Registers>, vector: u16) -> Result<impl PinInit<Self>> {
        let ring = NotificationRing::new(dev, registers.clone(), Ring::Accesses, vector)?;
        Ok(pin_init!(Self {
            registers,
            state <- new_mutex!(State { ring, kept: [None; KEPT], wanted: [0; WANTED_WORDS] }, "ersatz_access_counters"),
        }))
    }

    /// Makes the device count for an address space, unless it does: a reset of the function may have come between.
    ///
    /// # Errors
    ///
    /// `EIO` if the device does not take it; `ETIMEDOUT` if it does not let go of the ring, which was stopped before.
    pub(crate) fn enable(&self, asid: u8) -> Result {
        let mut state = self.state.lock();
        state.ring.enable()?;
        if state.set_wanted(asid, true) {
            // What was reported to nobody is to be reported.
            self.clear_all()?;
        }
        let control =
            AccessCounterControl(0).with_enable(true).with_region_order(REGION_ORDER_MIN).with_threshold(THRESHOLD);
        if self.control()? == control {
            return Ok(());
        }
        self.registers.write(regs::ACCESS_COUNTER_CONTROL, control.0.into())?;
        (self.control()? == control).then_some(()).ok_or(EIO)
    }

    fn control(&self) -> Result<AccessCounterControl> {
        Ok(AccessCounterControl(self.registers.read(regs::ACCESS_COUNTER_CONTROL)? as u32))
    }

    /// Takes all reports from the ring, for [`AccessCounters::take`].
    ///
    /// # Errors
    ///
    /// `EIO` if the device does not answer as it should.
    pub(crate) fn collect(&self) -> Result {
        let mut state = self.state.lock();
        let State { ring, kept, wanted } = &mut *state;
        let mut has_room = true;
        let are_lost = ring.collect(|words| {
            let Some(record) = AccessRecord::decode(words) else { return };
            let Ok(address) = usize::try_from(record.region) else { return };
            if !is_wanted(wanted, record.asid) {
                return;
            }
            let region = HotRegion { asid: record.asid, address: address / REGION_BYTES * REGION_BYTES };
            match kept.iter_mut().find(|slot| slot.is_none()) {
                Some(slot) => *slot = Some(region),
                None => has_room = false,
            }
        })?;
        if are_lost || !has_room {
            self.clear_all()?;
        }
        Ok(())
    }

    /// Resets the counts of all regions. The device cannot reset those of one address space alone.
    fn clear_all(&self) -> Result {
        self.registers.write(regs::ACCESS_COUNTER_CLEAR, CLEAR_ALL_REGIONS)
    }

    /// An address space wants no reports any more. The device counts on if others do.
    ///
    /// # Errors
    ///
    /// `ENODEV` after the device was unbound.
    pub(crate) fn disable(&self, asid: u8) -> Result {
        let mut state = self.state.lock();
        if !state.set_wanted(asid, false) {
            return Ok(());
        }
        for slot in state.kept.iter_mut().filter(|slot| slot.is_some_and(|region| region.asid == asid)) {
            *slot = None;
        }
        if state.wanted.iter().all(|word| *word == 0) {
            return self.registers.write(regs::ACCESS_COUNTER_CONTROL, 0);
        }
        Ok(())
    }

    /// A region of an address space that was reported, which is forgotten.
    pub(crate) fn take(&self, asid: u8) -> Option<HotRegion> {
        let mut state = self.state.lock();
        let is_wanted = |slot: &Option<HotRegion>| slot.is_some_and(|region| region.asid == asid);
        state.kept.iter_mut().find(|slot| is_wanted(slot)).and_then(Option::take)
    }

    /// Makes the device count the accesses of a region from zero, and report it again.
    ///
    /// # Errors
    ///
    /// `ENODEV` after the device was unbound.
    pub(crate) fn clear(&self, region: HotRegion) -> Result {
        self.registers.write(regs::ACCESS_COUNTER_CLEAR, region.address as u64 | u64::from(region.asid))
    }
}

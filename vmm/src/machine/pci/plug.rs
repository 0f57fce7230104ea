// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Filling and emptying the slots of a machine while it runs.

use std::sync::{Arc, Weak};

use super::bus::PciBus;
use super::error::PlugError;
use crate::machine::config::FunctionFactory;

/// The PCI slots of a machine. They may be filled and emptied from any thread, before the machine runs and while it does.
///
/// Slots are numbered from 0 on. The functions that a machine is built with are in the first ones.
#[derive(Clone)]
pub struct PciSlots(Weak<PciBus>);

impl PciSlots {
    /// The slots of a bus. They do not keep it.
    pub(in crate::machine) fn new(bus: &Arc<PciBus>) -> Self {
        Self(Arc::downgrade(bus))
    }

    /// Makes a function and puts it into an empty slot. The factory is called on this thread.
    ///
    /// The function is as after power-on: it decodes nothing. Its root port shows that the link is up. A guest finds it when it scans the bus (in Linux: `echo 1 >
    /// /sys/bus/pci/rescan`), and gives its BARs their addresses.
    ///
    /// # Errors
    ///
    /// [`PlugError`]; the slot is empty then, unless it was not before.
    pub fn plug(&self, slot: u8, factory: FunctionFactory) -> Result<(), PlugError> {
        self.bus()?.plug(slot, factory)
    }

    /// Takes a function out of its slot, whatever the guest does with it. The guest is not told: from now on it reads all
    /// ones there.
    ///
    /// When this returns no access reaches the function any more, it was reset (so it does no DMA), and all that it had of
    /// the machine was given back: interrupts, memory slots, ioeventfds, addresses.
    ///
    /// # Errors
    ///
    /// [`PlugError`] if there is no function in that slot.
    pub fn unplug(&self, slot: u8) -> Result<(), PlugError> {
        self.bus()?.unplug(slot)
    }

    /// The slots that hold a function; none if the machine has ended.
    pub fn occupied(&self) -> Vec<u8> {
        self.bus().map(|bus| bus.occupied()).unwrap_or_default()
    }

    /// The slots that are empty, lowest first; none if the machine has ended.
    pub fn empty(&self) -> Vec<u8> {
        self.bus().map(|bus| bus.empty()).unwrap_or_default()
    }

    fn bus(&self) -> Result<Arc<PciBus>, PlugError> {
        self.0.upgrade().ok_or(PlugError::Ended)
    }
}

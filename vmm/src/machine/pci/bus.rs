// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The functions on the bus: their config space, their BARs, and what their accesses make the machine do.
//!
//! Locks are taken in this order, from the outside in: the order of a slot's changes, the registers of its root port, its
//! occupant, the order of its config accesses, the decoder. The registers are not locked while an access to the function is
//! carried out.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ersatz_device_model::bus::{Effect, PciFunction};
use ersatz_device_model::interrupt::InterruptSink;

use super::address::ConfigAddress;
use super::attachment::MemorySlots;
use super::decode::{Decoder, Target};
use super::error::{PciError, PlugError};
use super::host_bridge::HostBridge;
use super::pending::PendingEffects;
use super::root_port::{PortEvent, RootPort};
use super::slot::{ConnectedFunction, MachineParts, Slot, connect};
use super::topology::{PortPlan, Topology, port_device};
use crate::machine::config::FunctionFactory;
use crate::machine::exits::ExitKind;
use crate::machine::interrupts::Interrupts;

/// Config space offset of BAR0.
const BAR0: u16 = 0x10;

/// What is on bus 0, and behind its root ports. Any number of vCPU threads use it side by side.
pub struct PciBus {
    host_bridge: HostBridge,
    slots: Vec<Slot>,
    interrupts: Arc<Interrupts>,
    pending: PendingEffects,
    parts: MachineParts,
    decoder: RwLock<Decoder>,
}

impl PciBus {
    /// The bus as planned, with `functions`, each with the sink that it was given, in the first slots.
    /// Root ports are set up; BARs are placed, and decode nothing yet.
    ///
    /// # Errors
    ///
    /// [`PciError`] if the functions cannot be connected.
    pub fn new(
        topology: &Topology,
        interrupts: Arc<Interrupts>,
        functions: Vec<ConnectedFunction>,
        memory_slots: MemorySlots,
        parts: MachineParts,
    ) -> Result<Self, PciError> {
        let pending = PendingEffects::new().map_err(PciError::Events)?;
        for (connected, slot) in functions.iter().zip(0..) {
            join(slot, connected, &interrupts, &pending)?;
        }
        let occupants = functions.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let slots = (0..).zip(&topology.ports).zip(occupants);
        let slots: Vec<_> = slots.map(|((slot, _), occupant)| Slot::new(RootPort::new(slot), occupant)).collect();
        let decoder = RwLock::new(Decoder::new(topology.layout.clone(), Arc::new(memory_slots), slots.len()));
        let bus = Self { host_bridge: HostBridge::new(), slots, interrupts, pending, parts, decoder };
        for (number, plan) in (0..).zip(&topology.ports) {
            bus.set_up(number, plan);
        }
        Ok(bus)
    }

    /// Does for one slot what firmware does before it starts an operating system.
    fn set_up(&self, number: u8, plan: &PortPlan) {
        let Some(slot) = self.slots.get(usize::from(number)) else {
            return;
        };
        let mut port = slot.port();
        port.set_up(plan.buses, &plan.windows);
        port.set_present(slot.read().is_some());
        self.decoder_write().set_windows(number, port.windows());
        drop(port);
        for (info, address) in &plan.bars {
            log::debug!("BAR{} of PCI slot {number}, {:#x} bytes, is at {address:#x}", info.bar, info.size);
            let offset = BAR0 + 4 * u16::from(info.bar);
            let bytes = address.to_le_bytes();
            let bytes = if info.is_64bit { &bytes[..] } else { &bytes[..4] };
            for (dword, offset) in bytes.chunks(4).zip((offset..).step_by(4)) {
                self.function_config_write(number, slot, offset, dword);
            }
        }
    }

    /// Reads config space; where no function is, all ones.
    pub fn config_read(&self, address: ConfigAddress, data: &mut [u8]) {
        data.fill(0xff);
        match self.route(address) {
            Some(Route::HostBridge) => self.host_bridge.config_read(address.offset, data),
            Some(Route::Port(_, slot)) => slot.port().read(address.offset, data),
            Some(Route::Function(_, slot)) => {
                if let Some(occupant) = slot.read().as_ref() {
                    occupant.function.config_read(address.offset, data);
                }
            }
            None => {}
        }
    }

    /// Writes config space, and carries out what follows.
    pub fn config_write(&self, address: ConfigAddress, data: &[u8]) {
        match self.route(address) {
            Some(Route::Port(number, slot)) => self.port_config_write(number, slot, address.offset, data),
            Some(Route::Function(number, slot)) => self.function_config_write(number, slot, address.offset, data),
            Some(Route::HostBridge) | None => {}
        }
    }

    /// What a config access is for, by the bus numbers that the root ports have now.
    fn route(&self, address: ConfigAddress) -> Option<Route<'_>> {
        if address.function != 0 {
            return None;
        }
        let mut slots = (0..).zip(&self.slots);
        match (address.bus, address.device) {
            (0, 0) => Some(Route::HostBridge),
            (0, device) => {
                slots.find(|(number, _)| port_device(*number) == device).map(|(number, slot)| Route::Port(number, slot))
            }
            // On a link there is device 0 alone.
            (bus, 0) => {
                slots.find(|(_, slot)| slot.port().leads_to(bus)).map(|(number, slot)| Route::Function(number, slot))
            }
            _ => None,
        }
    }

    fn port_config_write(&self, number: u8, slot: &Slot, offset: u16, data: &[u8]) {
        let mut port = slot.port();
        let event = port.write(offset, data);
        self.decoder_write().set_windows(number, port.windows());
        if event == PortEvent::SecondaryBusReset {
            let after = self.drive(number, slot, |function| function.reset());
            drop(port);
            self.finish(number, after);
        }
    }

    fn function_config_write(&self, number: u8, slot: &Slot, offset: u16, data: &[u8]) {
        let after = self.drive(number, slot, |function| function.config_write(offset, data));
        self.finish(number, after);
    }

    /// Carries out what functions report without having been accessed, as far as their events say that there is something.
    /// To be called when the descriptor of [`Self::pending`] is readable.
    pub fn carry_out_pending(&self) {
        for number in self.pending.signalled() {
            let Some(slot) = self.slots.get(usize::from(number)) else {
                continue;
            };
            let after = self.drive(number, slot, |function| function.take_effects());
            self.finish(number, after);
        }
    }

    /// The descriptor that is readable while functions have something to report.
    pub fn pending(&self) -> &PendingEffects {
        &self.pending
    }

    /// Does something with the function in a slot, and carries out what follows, in order with others that do.
    fn drive(&self, number: u8, slot: &Slot, act: impl FnOnce(&dyn PciFunction) -> Vec<Effect>) -> After {
        let occupant = slot.read();
        let Some(occupant) = occupant.as_ref() else {
            return After::Stays;
        };
        let _in_order = slot.order_config();
        let effects = act(occupant.function.as_ref());
        self.carry_out(number, occupant, effects)
    }

    /// Reads memory space; where no BAR is, all ones.
    pub fn memory_read(&self, address: u64, data: &mut [u8]) -> ExitKind {
        let target = self.decoder_read().find(address, data.len());
        data.fill(0xff);
        if let Some(target) = &target {
            self.with_occupant(target, |occupant| {
                occupant.function.bar_read(target.bar, target.offset, data);
                After::Stays
            });
        }
        exit_kind(target.as_ref())
    }

    /// Writes memory space, and carries out what follows.
    pub fn memory_write(&self, address: u64, data: &[u8]) -> ExitKind {
        // Not under the lock: an effect may change what decodes.
        let target = self.decoder_read().find(address, data.len());
        if let Some(target) = &target {
            self.with_occupant(target, |occupant| {
                let effects = occupant.function.bar_write(target.bar, target.offset, data);
                // Effects of BAR writes say where to look, not what is there, so their order does not matter.
                self.carry_out(target.slot, occupant, effects)
            });
        }
        exit_kind(target.as_ref())
    }

    /// Does something with the function whose BAR was found, unless it has left its slot since.
    fn with_occupant(&self, target: &Target, access: impl FnOnce(&ConnectedFunction) -> After) {
        let Some(slot) = self.slots.get(usize::from(target.slot)) else {
            return;
        };
        let occupant = slot.read();
        if let Some(now) = occupant.as_ref().filter(|now| Arc::ptr_eq(&now.function, &target.function)) {
            let after = access(now);
            drop(occupant);
            self.finish(target.slot, after);
        }
    }

    /// Carries out effects, of an access or not. The function does not leave its slot meanwhile; if it is gone that is left
    /// to [`Self::finish`].
    fn carry_out(&self, slot: u8, occupant: &ConnectedFunction, effects: Vec<Effect>) -> After {
        for effect in effects {
            log::trace!("PCI slot {slot}: {effect:?}");
            match effect {
                Effect::BarMoved { bar, address } => {
                    self.decoder_write().move_bar(slot, &occupant.function, bar, address);
                }
                Effect::MappingsChanged { bar } => self.decoder_write().refresh_bar(slot, bar),
                Effect::MsixChanged { vector } => self.update_messages(occupant, vector..vector.saturating_add(1)),
                Effect::MsixControlChanged => self.update_messages(occupant, 0..occupant.function.msix_vectors()),
                Effect::MsixSend { vector } => occupant.msix.signal(vector),
                Effect::Reset => {
                    self.decoder_write().remove_function(slot);
                    self.update_messages(occupant, 0..occupant.function.msix_vectors());
                }
                Effect::Gone => return After::Leaves(Arc::clone(&occupant.function)),
            }
        }
        After::Stays
    }

    /// Takes a function out of its slot if it is gone. No lock of the slot is held.
    fn finish(&self, number: u8, after: After) {
        let (After::Leaves(function), Some(slot)) = (after, self.slots.get(usize::from(number))) else {
            return;
        };
        let _in_order = slot.order_changes();
        // Another thread may have been faster, and even have put the next function there.
        let is_there = slot.read().as_ref().is_some_and(|now| Arc::ptr_eq(&now.function, &function));
        if is_there && self.empty_slot(number, slot).is_some() {
            log::info!("the function in PCI slot {number} is gone");
        }
    }

    /// Has KVM send the messages that the function says it sends now.
    fn update_messages(&self, occupant: &ConnectedFunction, vectors: Range<u16>) {
        self.interrupts.route(&occupant.msix, vectors, |vector| occupant.function.msix_message(vector));
    }

    fn slot(&self, slot: u8) -> Result<&Slot, PlugError> {
        let slots = self.slots.len();
        self.slots.get(usize::from(slot)).ok_or(PlugError::NoSlot { slot, slots })
    }

    /// Puts a function into an empty slot; see [`PciSlots::plug`](super::PciSlots::plug).
    pub fn plug(&self, number: u8, factory: FunctionFactory) -> Result<(), PlugError> {
        let slot = self.slot(number)?;
        // Not under the lock that accesses need: to make a function may take its time.
        let _in_order = slot.order_changes();
        if slot.read().is_some() {
            return Err(PlugError::Occupied(number));
        }
        let requester_id = u16::from(slot.port().buses().secondary) << 8;
        let connected = connect(factory, &self.parts, requester_id)
            .map_err(|source| PlugError::Function { slot: number, source })?;
        join(number, &connected, &self.interrupts, &self.pending)?;
        *slot.write() = Some(connected);
        slot.port().set_present(true);
        Ok(())
    }

    /// Takes a function out of its slot; see [`PciSlots::unplug`](super::PciSlots::unplug).
    pub fn unplug(&self, number: u8) -> Result<(), PlugError> {
        let slot = self.slot(number)?;
        let _in_order = slot.order_changes();
        self.empty_slot(number, slot).ok_or(PlugError::Empty(number))
    }

    /// Takes the function out of a slot whose changes are in order; `None` if there is none.
    fn empty_slot(&self, number: u8, slot: &Slot) -> Option<()> {
        let occupant = {
            let mut occupant = slot.write();
            self.decoder_write().remove_function(number);
            occupant.take()?
        };
        slot.port().set_present(false);
        if let Some(event) = &occupant.event {
            self.pending.forget(event);
        }
        occupant.msix.disconnect();
        // Whoever else has a reference to it may keep it. Nothing is left for the effects to be carried out on.
        occupant.function.reset();
        Some(())
    }

    /// The slots that hold a function.
    pub fn occupied(&self) -> Vec<u8> {
        (0..).zip(&self.slots).filter(|(_, slot)| slot.read().is_some()).map(|(number, _)| number).collect()
    }

    /// The slots that hold none.
    pub fn empty(&self) -> Vec<u8> {
        (0..).zip(&self.slots).filter(|(_, slot)| slot.read().is_none()).map(|(number, _)| number).collect()
    }

    fn decoder_read(&self) -> RwLockReadGuard<'_, Decoder> {
        self.decoder.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn decoder_write(&self) -> RwLockWriteGuard<'_, Decoder> {
        self.decoder.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is left to do when the effects of a call have been carried out.
enum After {
    /// Nothing.
    Stays,
    /// The function is gone, and must leave its slot.
    Leaves(Arc<dyn PciFunction>),
}

/// Connects a function that is to be in a slot: its interrupts, and its event.
fn join(
    slot: u8,
    connected: &ConnectedFunction,
    interrupts: &Arc<Interrupts>,
    pending: &PendingEffects,
) -> Result<(), PlugError> {
    connected
        .msix
        .connect(interrupts, connected.function.msix_vectors())
        .map_err(|source| PlugError::Interrupts { slot, source })?;
    if let Some(event) = &connected.event {
        pending.watch(slot, event).map_err(|source| PlugError::Event { slot, source })?;
    }
    Ok(())
}

/// What a config access is for; with it the number of the slot.
enum Route<'a> {
    HostBridge,
    Port(u8, &'a Slot),
    Function(u8, &'a Slot),
}

fn exit_kind(target: Option<&Target>) -> ExitKind {
    match target {
        None => ExitKind::Unclaimed,
        Some(Target { direct: true, .. }) => ExitKind::MappedBar,
        Some(_) => ExitKind::Bar,
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The functions on the bus: their config space, their BARs, and what their accesses make the machine do.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ersatz_device_model::bus::{Effect, PciFunction};
use ersatz_device_model::dma::MappedSpace;
use ersatz_device_model::interrupt::InterruptSink;

use super::address::ConfigAddress;
use super::attachment::MemorySlots;
use super::decode::{Decoder, Target};
use super::host_bridge::HostBridge;
use super::placement::{BarRequest, Placement, bar_requests, place};
use super::plug::PlugError;
use super::slot::{ConnectedFunction, Slot, connect, device, requester_id};
use super::{PciError, SLOTS};
use crate::machine::config::FunctionFactory;
use crate::machine::exits::ExitKind;
use crate::machine::interrupts::Interrupts;
use crate::machine::layout::Layout;

/// Config space offset of BAR0.
const BAR0: u16 = 0x10;

/// Bus 0. Any number of vCPU threads use it side by side.
pub struct PciBus {
    host_bridge: HostBridge,
    slots: Vec<Slot>,
    interrupts: Arc<Interrupts>,
    /// Where functions do DMA.
    dma: Arc<MappedSpace>,
    decoder: RwLock<Decoder>,
}

impl PciBus {
    /// The bus with a host bridge and `functions`, each with the sink that it was given, in the first slots.
    /// BARs are placed, and decode nothing yet.
    ///
    /// # Errors
    ///
    /// [`PciError`] if the functions do not fit.
    pub fn new(
        layout: &Layout,
        interrupts: Arc<Interrupts>,
        functions: Vec<ConnectedFunction>,
        memory_slots: MemorySlots,
    ) -> Result<Self, PciError> {
        if functions.len() > SLOTS {
            return Err(PciError::TooManyFunctions(functions.len()));
        }
        let requests = bar_requests(&functions);
        for (connected, slot) in functions.iter().zip(0..) {
            connected
                .msix
                .connect(&interrupts, connected.function.msix_vectors())
                .map_err(|source| PciError::Interrupts { device: device(slot), source })?;
        }
        let occupants = functions.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let slots = occupants.take(SLOTS).map(Slot::new).collect();
        let dma = Arc::clone(memory_slots.dma());
        let decoder = RwLock::new(Decoder::new(layout.clone(), Arc::new(memory_slots)));
        let bus = Self { host_bridge: HostBridge::new(), slots, interrupts, dma, decoder };
        bus.place_bars(layout, &requests)?;
        Ok(bus)
    }

    /// Gives each BAR an address.
    fn place_bars(&self, layout: &Layout, requests: &[BarRequest]) -> Result<(), PciError> {
        for Placement { device, info, address } in place(layout, requests)? {
            log::debug!("BAR{} of 00:{device:02x}.0, {:#x} bytes, is at {address:#x}", info.bar, info.size);
            let offset = BAR0 + 4 * u16::from(info.bar);
            let bytes = address.to_le_bytes();
            let bytes = if info.is_64bit { &bytes[..] } else { &bytes[..4] };
            for (dword, offset) in bytes.chunks(4).zip((offset..).step_by(4)) {
                self.config_write(ConfigAddress { device, function: 0, offset }, dword);
            }
        }
        Ok(())
    }

    /// The slot of a device.
    fn slot_of(&self, device: u8) -> Option<&Slot> {
        self.slots.get(usize::from(device).checked_sub(1)?)
    }

    /// Reads config space; where no function is, all ones.
    pub fn config_read(&self, address: ConfigAddress, data: &mut [u8]) {
        data.fill(0xff);
        match address {
            ConfigAddress { device: 0, function: 0, offset } => self.host_bridge.config_read(offset, data),
            ConfigAddress { device, function: 0, offset } => {
                if let Some(occupant) = self.slot_of(device).map(Slot::read).as_deref().and_then(Option::as_ref) {
                    occupant.function.config_read(offset, data);
                }
            }
            _ => {}
        }
    }

    /// Writes config space, and carries out what follows.
    pub fn config_write(&self, address: ConfigAddress, data: &[u8]) {
        let ConfigAddress { device, function: 0, offset } = address else {
            return;
        };
        let Some(slot) = self.slot_of(device) else {
            return;
        };
        if let Some(occupant) = slot.read().as_ref() {
            let _in_order = slot.order_config();
            let effects = occupant.function.config_write(offset, data);
            self.carry_out(device, occupant, effects);
        }
    }

    /// Reads memory space; where no BAR is, all ones.
    pub fn memory_read(&self, address: u64, data: &mut [u8]) -> ExitKind {
        let target = self.decoder_read().find(address, data.len());
        data.fill(0xff);
        if let Some(target) = &target {
            self.with_occupant(target, |occupant| occupant.function.bar_read(target.bar, target.offset, data));
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
                self.carry_out(target.device, occupant, effects);
            });
        }
        exit_kind(target.as_ref())
    }

    /// Does something with the function whose BAR was found, unless it has left its slot since.
    fn with_occupant(&self, target: &Target, access: impl FnOnce(&ConnectedFunction)) {
        let Some(slot) = self.slot_of(target.device) else {
            return;
        };
        if let Some(occupant) = slot.read().as_ref().filter(|now| Arc::ptr_eq(&now.function, &target.function)) {
            access(occupant);
        }
    }

    /// Carries out the effects of an access. The function does not leave its slot meanwhile.
    fn carry_out(&self, device: u8, occupant: &ConnectedFunction, effects: Vec<Effect>) {
        for effect in effects {
            log::trace!("00:{device:02x}.0: {effect:?}");
            match effect {
                Effect::BarMoved { bar, address } => {
                    self.decoder_write().move_bar(device, &occupant.function, bar, address);
                }
                Effect::MsixChanged { vector } => self.update_messages(occupant, vector..vector.saturating_add(1)),
                Effect::MsixControlChanged => self.update_messages(occupant, 0..occupant.function.msix_vectors()),
                Effect::MsixSend { vector } => occupant.msix.signal(vector),
                Effect::Reset => {
                    self.decoder_write().remove_device(device);
                    self.update_messages(occupant, 0..occupant.function.msix_vectors());
                }
            }
        }
    }

    /// Has KVM send the messages that the function says it sends now.
    fn update_messages(&self, occupant: &ConnectedFunction, vectors: std::ops::Range<u16>) {
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
        let connected = connect(factory, &self.dma, requester_id(number))
            .map_err(|source| PlugError::Function { slot: number, source })?;
        connected
            .msix
            .connect(&self.interrupts, connected.function.msix_vectors())
            .map_err(|source| PlugError::Interrupts { slot: number, source })?;
        *slot.write() = Some(connected);
        Ok(())
    }

    /// Takes a function out of its slot; see [`PciSlots::unplug`](super::PciSlots::unplug).
    pub fn unplug(&self, number: u8) -> Result<(), PlugError> {
        let slot = self.slot(number)?;
        let _in_order = slot.order_changes();
        let occupant = {
            let mut occupant = slot.write();
            self.decoder_write().remove_device(device(number));
            occupant.take().ok_or(PlugError::Empty(number))?
        };
        occupant.msix.disconnect();
        // Whoever else has a reference to it may keep it. Nothing is left for the effects to be carried out on.
        occupant.function.reset();
        Ok(())
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

fn exit_kind(target: Option<&Target>) -> ExitKind {
    match target {
        None => ExitKind::Unclaimed,
        Some(Target { direct: true, .. }) => ExitKind::MappedBar,
        Some(_) => ExitKind::Bar,
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The functions on the bus: their config space, their BARs, and what their accesses make the machine do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ersatz_device_model::bus::{Effect, PciFunction};

use super::address::ConfigAddress;
use super::attachment::MemorySlots;
use super::decode::{Decoder, Target};
use super::host_bridge::HostBridge;
use super::placement::{BarRequest, Placement, place};
use super::{MAX_FUNCTIONS, PciError};
use crate::machine::exits::ExitKind;
use crate::machine::interrupts::{Interrupts, MsixVectors};
use crate::machine::layout::Layout;

/// Config space offset of BAR0.
const BAR0: u16 = 0x10;

/// A function and the sink it was made with.
pub type ConnectedFunction = (Arc<dyn PciFunction>, Arc<MsixVectors>);

/// A function and its interrupts.
struct Slot {
    function: Arc<dyn PciFunction>,
    msix: Option<Arc<MsixVectors>>,
    /// Held while a config access and its effects are carried out: those of two vCPUs must not overtake each other.
    config: Mutex<()>,
}

/// Bus, device and function numbers of the functions, in their order; device 0 is the host bridge.
pub fn requester_ids() -> impl Iterator<Item = u16> {
    (1..=MAX_FUNCTIONS as u16).map(|device| device << 3)
}

/// The BARs of functions that are to be devices 1, 2 and so on.
pub fn bar_requests(functions: &[ConnectedFunction]) -> Vec<BarRequest> {
    let numbered = functions.iter().zip(1..=u8::MAX);
    numbered
        .flat_map(|((function, _), device)| function.bars().into_iter().map(move |info| BarRequest { device, info }))
        .collect()
}

/// Bus 0. Any number of vCPU threads use it side by side.
pub struct PciBus {
    /// By device number.
    slots: Vec<Slot>,
    interrupts: Arc<Interrupts>,
    decoder: RwLock<Decoder>,
}

impl PciBus {
    /// The bus with a host bridge and `functions`, each with the sink that it was given, as devices 1, 2 and so on.
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
        if functions.len() > MAX_FUNCTIONS {
            return Err(PciError::TooManyFunctions(functions.len()));
        }
        let requests = bar_requests(&functions);
        let mut slots = vec![Slot { function: Arc::new(HostBridge::new()), msix: None, config: Mutex::default() }];
        for ((function, msix), device) in functions.into_iter().zip(1..) {
            msix.connect(&interrupts, function.msix_vectors())
                .map_err(|source| PciError::Interrupts { device, source })?;
            slots.push(Slot { function, msix: Some(msix), config: Mutex::default() });
        }
        let decoder = RwLock::new(Decoder::new(layout.clone(), Arc::new(memory_slots)));
        let bus = Self { slots, interrupts, decoder };
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

    fn slot(&self, address: ConfigAddress) -> Option<&Slot> {
        self.slots.get(usize::from(address.device)).filter(|_| address.function == 0)
    }

    /// Reads config space; where no function is, all ones.
    pub fn config_read(&self, address: ConfigAddress, data: &mut [u8]) {
        match self.slot(address) {
            Some(slot) => slot.function.config_read(address.offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes config space, and carries out what follows.
    pub fn config_write(&self, address: ConfigAddress, data: &[u8]) {
        if let Some(slot) = self.slot(address) {
            let _in_order = lock(&slot.config);
            let effects = slot.function.config_write(address.offset, data);
            self.carry_out(address.device, effects);
        }
    }

    /// Reads memory space; where no BAR is, all ones.
    pub fn memory_read(&self, address: u64, data: &mut [u8]) -> ExitKind {
        let target = self.decoder_read().find(address, data.len());
        match &target {
            Some(Target { function, bar, offset, .. }) => function.bar_read(*bar, *offset, data),
            None => data.fill(0xff),
        }
        exit_kind(target.as_ref())
    }

    /// Writes memory space, and carries out what follows.
    pub fn memory_write(&self, address: u64, data: &[u8]) -> ExitKind {
        // Not under the lock: an effect may change what decodes.
        let target = self.decoder_read().find(address, data.len());
        if let Some(Target { device, function, bar, offset, .. }) = &target {
            let effects = function.bar_write(*bar, *offset, data);
            if !effects.is_empty() {
                // Effects of BAR writes say where to look, not what is there, so their order does not matter.
                self.carry_out(*device, effects);
            }
        }
        exit_kind(target.as_ref())
    }

    fn carry_out(&self, device: u8, effects: Vec<Effect>) {
        let Some(slot) = self.slots.get(usize::from(device)) else {
            return;
        };
        for effect in effects {
            log::trace!("00:{device:02x}.0: {effect:?}");
            match effect {
                Effect::BarMoved { bar, address } => {
                    self.decoder_write().move_bar(device, &slot.function, bar, address);
                }
                Effect::MsixChanged { vector } => self.update_messages(slot, vector..vector.saturating_add(1)),
                Effect::MsixControlChanged => self.update_messages(slot, 0..slot.function.msix_vectors()),
                Effect::MsixSend { vector } => {
                    if let Some(msix) = &slot.msix {
                        ersatz_device_model::interrupt::InterruptSink::signal(msix.as_ref(), vector);
                    }
                }
                Effect::Reset => {
                    self.decoder_write().remove_device(device);
                    self.update_messages(slot, 0..slot.function.msix_vectors());
                }
            }
        }
    }

    /// Has KVM send the messages that the function says it sends now.
    fn update_messages(&self, slot: &Slot, vectors: std::ops::Range<u16>) {
        if let Some(msix) = &slot.msix {
            self.interrupts.route(msix, vectors, |vector| slot.function.msix_message(vector));
        }
    }

    fn decoder_read(&self) -> RwLockReadGuard<'_, Decoder> {
        self.decoder.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn decoder_write(&self) -> RwLockWriteGuard<'_, Decoder> {
        self.decoder.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn exit_kind(target: Option<&Target>) -> ExitKind {
    match target {
        None => ExitKind::Unclaimed,
        Some(Target { direct: true, .. }) => ExitKind::MappedBar,
        Some(_) => ExitKind::Bar,
    }
}

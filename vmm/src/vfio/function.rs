// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device of this machine as a PCI function on the guest's bus.
//!
//! Interrupts do not pass through this process: the device's messages signal the eventfds of the guest's vectors, which KVM listens
//! to. A vector that the guest masks keeps what is signalled ([`InterruptSink::event`]); the device is told nothing of it.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ersatz_device_model::bus::{BarInfo, BarMapping, Doorbell, Effect, MsixMessage, PciFunction};
use ersatz_device_model::interrupt::InterruptSink;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::EventFd;

use super::bar;
use super::config;
use super::hardware::{Hardware, MessageKind, Region};
use super::msix::Content;
use super::registers::{COMMAND, Controls, Registers, Written};

/// A device that is handed to the guest.
pub struct Function {
    /// What the log calls it.
    name: String,
    hardware: Box<dyn Hardware>,
    interrupts: Arc<dyn InterruptSink>,
    /// Signalled by the host: it wants the device back, or the device has failed.
    notice: Arc<EventFd>,
    state: Mutex<State>,
}

struct State {
    registers: Registers,
    /// How the device sends messages now.
    connected: Option<(MessageKind, u16)>,
}

impl Function {
    /// Makes a function of an opened device, which is reset. `notice` is signalled when the guest must do without it.
    pub fn new(
        name: String,
        hardware: Box<dyn Hardware>,
        interrupts: Arc<dyn InterruptSink>,
        notice: Arc<EventFd>,
    ) -> Self {
        hardware.reset();
        let mut device = vec![0xff; config::SIZE];
        let length = usize::try_from(hardware.size(Region::Config)).map_or(config::SIZE, |size| size.min(config::SIZE));
        hardware.read(Region::Config, 0, &mut device[..length]);
        device[length..].fill(0);
        let registers = Registers::take(&device, |bar| hardware.size(Region::Bar(bar)));
        if registers.vectors() == 0 {
            log::warn!("{name} has neither MSI nor MSI-X, so the guest gets no interrupts of it");
        }
        let function =
            Self { name, hardware, interrupts, notice, state: Mutex::new(State { registers, connected: None }) };
        function.set_master(&mut function.state(), false);
        function
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the device decode its BARs, and be bus master or not.
    fn set_master(&self, state: &mut State, master: bool) {
        let bits = state.registers.set_device_master(master);
        let mut command = [0; 2];
        self.hardware.read(Region::Config, COMMAND.into(), &mut command);
        command[0] = command[0] & !Registers::owned_command_bits() | bits;
        self.hardware.write(Region::Config, COMMAND.into(), &command);
    }

    /// Has the device send messages in the way that the registers say.
    fn connect(&self, state: &mut State, messages: Option<(MessageKind, u16)>) {
        if let Some((kind, _)) = std::mem::replace(&mut state.connected, messages) {
            self.hardware.disconnect(kind);
        }
        let Some((kind, vectors)) = messages else { return };
        let events: Vec<&EventFd> = (0..vectors).map_while(|vector| self.interrupts.event(vector)).collect();
        if events.len() < usize::from(vectors) {
            log::error!("{}: {} of {vectors} vectors are connected", self.name, events.len());
        }
        for event in &events {
            // What was signalled before is not about the interrupts that the guest asks for now.
            let _ = event.read();
        }
        self.hardware.connect(kind, &events);
    }

    /// Resets the device and the registers.
    fn reset_all(&self, state: &mut State) -> Vec<Effect> {
        self.connect(state, None);
        self.hardware.reset();
        state.registers.reset();
        self.set_master(state, false);
        vec![Effect::Reset]
    }

    /// Carries out what a write changed; returns what is left to the bus.
    fn apply(&self, state: &mut State, before: &Controls) -> Vec<Effect> {
        let after = state.registers.controls();
        if before.master != after.master {
            self.set_master(state, after.master);
        }
        if state.connected != after.messages {
            self.connect(state, after.messages);
        }
        let addresses = before.addresses.iter().zip(&after.addresses);
        let mut effects: Vec<_> = (state.registers.bars().iter().zip(addresses))
            .filter(|(_, (before, after))| before != after)
            .map(|(info, (_, &address))| Effect::BarMoved { bar: info.bar, address })
            .collect();
        if (before.messages, &before.message_controls) != (after.messages, &after.message_controls) {
            effects.push(Effect::MsixControlChanged);
        }
        effects
    }

    /// The pending bits of eight vectors: what is signalled while the guest masks them.
    fn pending(&self, registers: &Registers, first: u16) -> u8 {
        let is_pending = |vector: u16| {
            registers.message(vector).is_none() && self.interrupts.event(vector).is_some_and(is_signalled)
        };
        (0..8).filter(|bit| is_pending(first.saturating_add(*bit))).fold(0, |bits, bit| bits | 1 << bit)
    }
}

/// Whether an eventfd is signalled, which it stays.
fn is_signalled(event: &EventFd) -> bool {
    // SAFETY: `event` keeps the descriptor open while this runs.
    let descriptor = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], Some(&now)), Ok(1))
}

impl PciFunction for Function {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        let state = self.state();
        if !state.registers.is_owned(offset, data.len()) {
            self.hardware.read(Region::Config, offset.into(), data);
        }
        state.registers.overlay(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Vec<Effect> {
        let mut state = self.state();
        let before = state.registers.controls();
        match state.registers.write(offset, data) {
            Written::Reset => self.reset_all(&mut state),
            Written::Device(writes) => {
                for (at, bytes) in writes {
                    self.hardware.write(Region::Config, at.into(), &bytes);
                }
                self.apply(&mut state, &before)
            }
        }
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        let state = self.state();
        let msix = state.registers.msix();
        let content = |at: u64| msix.and_then(|msix| Some((msix, msix.content(bar, at)?)));
        let end = offset.saturating_add(data.len() as u64);
        if !(offset..end).all(|at| content(at).is_some()) {
            self.hardware.read(Region::Bar(bar), offset, data);
        }
        for (at, byte) in (offset..end).zip(data) {
            match content(at) {
                Some((msix, Content::Table)) => *byte = msix.table_byte(at),
                Some((_, Content::Pending(first))) => *byte = self.pending(&state.registers, first),
                None => {}
            }
        }
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Vec<Effect> {
        let mut state = self.state();
        let end = offset.saturating_add(data.len() as u64);
        let msix = state.registers.msix();
        let is_device = |at: u64| msix.is_none_or(|msix| msix.content(bar, at).is_none());
        if (offset..end).all(is_device) {
            self.hardware.write(Region::Bar(bar), offset, data);
            return Vec::new();
        }
        // Nobody writes to both in one access, but a guest that wants to see what happens.
        for (at, byte) in (offset..end).zip(data.chunks(1)).filter(|(at, _)| is_device(*at)) {
            self.hardware.write(Region::Bar(bar), at, byte);
        }
        let changed = state.registers.msix_mut().map(|msix| msix.write(bar, offset, data)).unwrap_or_default();
        changed.map(|vector| Effect::MsixChanged { vector }).collect()
    }

    fn bars(&self) -> Vec<BarInfo> {
        self.state().registers.bars().to_vec()
    }

    fn mappings(&self) -> Vec<BarMapping> {
        let state = self.state();
        let has = |bar: u8| state.registers.bars().iter().any(|info| info.bar == bar);
        let mut mappings = Vec::new();
        for area in self.hardware.mappable().into_iter().filter(|area| has(area.bar)) {
            let places = state.registers.msix().into_iter().flat_map(|msix| msix.places());
            let holes: Vec<_> = places.filter(|place| place.bar == area.bar).map(|place| place.range.clone()).collect();
            for part in bar::outside(area.range.clone(), &holes) {
                mappings.push(BarMapping {
                    bar: area.bar,
                    offset: part.start,
                    length: part.end - part.start,
                    file: Arc::clone(&area.file),
                    file_offset: area.file_offset + (part.start - area.range.start),
                });
            }
        }
        mappings
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        Vec::new()
    }

    fn msix_vectors(&self) -> u16 {
        self.state().registers.vectors()
    }

    fn msix_message(&self, vector: u16) -> Option<MsixMessage> {
        self.state().registers.message(vector)
    }

    fn reset(&self) -> Vec<Effect> {
        self.reset_all(&mut self.state())
    }

    fn event(&self) -> Option<Arc<EventFd>> {
        Some(Arc::clone(&self.notice))
    }

    fn take_effects(&self) -> Vec<Effect> {
        if self.notice.read().is_err() {
            return Vec::new();
        }
        log::error!(
            "{} is taken from the guest: this machine's kernel wants it back, or the device reported an error that it cannot recover \
             from (see this machine's kernel log)",
            self.name
        );
        vec![Effect::Gone]
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.reset_all(&mut self.state());
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! BAR0: which register an access means, and what it does.
//!
//! The map itself is in `ersatz-abi`. What [`decode`] finds no register for, like an access that
//! the register does not permit, is a bad access. No access waits for an engine.

mod decode;

use ersatz_abi::counter::Counter;
use ersatz_abi::pci::{BAR_REGISTERS, MSIX_VECTORS, VECTOR_ERROR};
use ersatz_abi::regs::{self, Access, ChannelControl, Configuration, Control, Register, Status};

use crate::channel::{Channel, ResetScope, Setup, Switched};
use crate::device::Device;
use crate::sync::Mutex;
use crate::trace::Event;
use decode::{Part, Target, locate};

/// The value of a 64-bit register as its low half was read, kept for the high half.
#[derive(Clone, Copy, Debug, Default)]
struct Latch {
    offset: u64,
    value: u64,
    valid: bool,
}

/// The state of the register file itself.
#[derive(Debug, Default)]
pub(crate) struct Registers {
    read: Mutex<Latch>,
    mark_low: Mutex<u64>,
}

impl Registers {
    /// Back to the state after reset.
    pub(crate) fn reset(&self) {
        *self.read.lock() = Latch::default();
        *self.mark_low.lock() = 0;
    }

    /// Reads `data.len()` bytes at `offset`.
    pub(crate) fn read(&self, device: &Device, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some((target, part)) = locate(offset, data.len(), device.channel_count()) else {
            return device.bad_access(BAR_REGISTERS, offset, data.len(), false);
        };
        if target.access() == Access::WriteOnly {
            return;
        }
        let value = match part {
            Part::Whole => value_of(device, target),
            Part::Low => {
                let value = value_of(device, target);
                *self.read.lock() = Latch { offset, value, valid: true };
                value
            }
            Part::High => {
                let latch = std::mem::take(&mut *self.read.lock());
                if latch.valid && latch.offset + 4 == offset { latch.value } else { value_of(device, target) }
            }
        };
        for (byte, source) in data.iter_mut().zip(part.get(value).to_le_bytes()) {
            *byte = source;
        }
    }

    /// Writes `data` at `offset`.
    pub(crate) fn write(&self, device: &Device, offset: u64, data: &[u8]) {
        let accepted = locate(offset, data.len(), device.channel_count())
            .filter(|(target, _)| target.access() != Access::ReadOnly)
            // A doorbell may be rung at any time: by eventfd it could not be refused either.
            .filter(|(target, _)| matches!(target, Target::Doorbell(_)) || !device.is_resetting())
            .is_some_and(|(target, part)| {
                let mut bytes = [0; 8];
                bytes[..data.len()].copy_from_slice(data);
                let value = u64::from_le_bytes(bytes);
                let accepted = self.store(device, target, part, value);
                if accepted && !matches!(target, Target::Doorbell(_)) {
                    let offset = u32::try_from(offset).unwrap_or(u32::MAX);
                    device.ports.tracer.emit(Event::RegisterWrite { offset, value, channel: target.channel() });
                }
                accepted
            });
        if !accepted {
            device.bad_access(BAR_REGISTERS, offset, data.len(), true);
        }
    }

    /// Whether the register took the value.
    fn store(&self, device: &Device, target: Target, part: Part, value: u64) -> bool {
        match target {
            Target::Doorbell(channel) => {
                device.ring(channel);
                true
            }
            Target::Device(register) if register.offset == regs::MARK.offset => {
                self.mark(device, part, value);
                true
            }
            Target::Device(register) if register.offset == regs::CONTROL.offset => control(device, value),
            Target::Channel(number, register) => {
                let Some(channel) = device.channels.get(usize::from(number)) else { return false };
                if register.offset == regs::CHANNEL_CONTROL.offset {
                    channel_control(device, number, channel, value)
                } else {
                    channel.set_up(|setup| change_setup(setup, register, part, value))
                }
            }
            Target::Device(_) | Target::Counter(_) => false,
        }
    }

    /// Halves make up one mark, complete with the high one.
    fn mark(&self, device: &Device, part: Part, value: u64) {
        let mut low = self.mark_low.lock();
        let whole = part.put(*low, value);
        if part == Part::Low {
            *low = whole;
        } else {
            *low = 0;
            device.ports.tracer.emit(Event::Mark { value: whole });
        }
    }
}

fn change_setup(setup: &mut Setup, register: &Register, part: Part, value: u64) {
    let low = (value & u64::from(u32::MAX)) as u32;
    match register.offset {
        offset if offset == regs::RING_BASE.offset => setup.ring_base = part.put(setup.ring_base, value),
        offset if offset == regs::CONTROL_BLOCK.offset => setup.control_block = part.put(setup.control_block, value),
        offset if offset == regs::RING_ORDER.offset => setup.ring_order = low,
        _ => setup.vector = low,
    }
}

fn control(device: &Device, value: u64) -> bool {
    let Ok(raw) = u32::try_from(value) else { return false };
    let control = Control(raw);
    if control.0 & Control::RESERVED != 0 {
        return false;
    }
    if control.reset() {
        device.request_reset();
    }
    true
}

fn channel_control(device: &Device, number: u8, channel: &Channel, value: u64) -> bool {
    let Ok(raw) = u32::try_from(value) else { return false };
    let control = ChannelControl(raw);
    if control.0 & ChannelControl::RESERVED != 0 {
        return false;
    }
    if control.reset() {
        channel.request_reset(ResetScope::Channel);
        device.kick(number);
        return true;
    }
    if channel.is_resetting() {
        return false;
    }
    match channel.switch(control.enable(), |switched| trace_switched(device, number, switched)) {
        Switched::Enabled(_) | Switched::Stopping => device.kick(number),
        Switched::Refused(_, vector) => {
            device.counters.add(Counter::ChannelErrors, 1);
            device.raise(vector.unwrap_or(VECTOR_ERROR), Some(number));
        }
        Switched::Unchanged => {}
    }
    true
}

fn trace_switched(device: &Device, number: u8, switched: &Switched) {
    match switched {
        Switched::Enabled(setup) => device.ports.tracer.emit(Event::ChannelEnabled {
            channel: number,
            ring: setup.ring.address(0),
            control_block: setup.control_block,
            commands: setup.ring.commands().into(),
            vector: setup.vector,
        }),
        Switched::Refused(fault, _) => device.ports.tracer.emit(Event::ChannelError {
            channel: number,
            error: fault.code,
            position: 0,
            entry: fault.entry,
            address: fault.address,
        }),
        Switched::Stopping | Switched::Unchanged => {}
    }
}

fn value_of(device: &Device, target: Target) -> u64 {
    match target {
        Target::Device(register) => device_value(device, register),
        Target::Channel(channel, register) => {
            device.channels.get(usize::from(channel)).map_or(0, |channel| channel_value(channel, register))
        }
        Target::Counter(counter) => device.counters.get(counter),
        Target::Doorbell(_) => 0,
    }
}

fn device_value(device: &Device, register: &Register) -> u64 {
    match register.offset {
        offset if offset == regs::ID.offset => regs::DEVICE_MAGIC.into(),
        offset if offset == regs::VERSION.offset => ersatz_abi::ABI_VERSION.into(),
        offset if offset == regs::CONFIGURATION.offset => Configuration(0)
            .with_channels(device.channel_count().into())
            .with_copy_engines(device.engine_count().into())
            .with_vectors(MSIX_VECTORS.into())
            .0
            .into(),
        offset if offset == regs::STATUS.offset => Status(0)
            .with_channel_error(device.channels.iter().any(Channel::is_in_error))
            .with_bad_access(device.had_bad_access())
            .with_resetting(device.is_resetting())
            .0
            .into(),
        offset if offset == regs::VRAM_SIZE.offset => device.vram.size(),
        offset if offset == regs::CONTROL.offset => Control(0).with_reset(device.is_resetting()).0.into(),
        offset if offset == regs::TIMESTAMP.offset => device.ports.clock.now(),
        _ => 0,
    }
}

fn channel_value(channel: &Channel, register: &Register) -> u64 {
    let now = channel.snapshot();
    match register.offset {
        offset if offset == regs::RING_BASE.offset => now.setup.ring_base,
        offset if offset == regs::CONTROL_BLOCK.offset => now.setup.control_block,
        offset if offset == regs::RING_ORDER.offset => now.setup.ring_order.into(),
        offset if offset == regs::VECTOR.offset => now.setup.vector.into(),
        offset if offset == regs::CHANNEL_CONTROL.offset => {
            ChannelControl(0).with_enable(now.enable).with_reset(now.resetting).0.into()
        }
        offset if offset == regs::CHANNEL_STATUS.offset => now.status.0.into(),
        offset if offset == regs::ERROR_POSITION.offset => now.position,
        offset if offset == regs::ERROR_ADDRESS.offset => now.address,
        offset if offset == regs::GET.offset => now.get.into(),
        _ => 0,
    }
}

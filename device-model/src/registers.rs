// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! BAR0: which register an access means, and what it does.
//!
//! The map itself is in `ersatz-abi`. What [`decode`] finds no register for, like an access that
//! the register does not permit, is a bad access. No access waits for an engine's work, at
//! most for the record of a fault that is being written. Each block of registers has a module, with a
//! `value` to read one and a `store` that says whether the register took what was written.

mod channel;
mod decode;
mod device;
mod fault;
mod low_half;
mod mmu;
mod notification;

use ersatz_abi::pci::BAR_REGISTERS;
use ersatz_abi::regs::Access;

use crate::device::Device;
use crate::sync::Mutex;
use crate::trace::Event;
use decode::{Part, Target, locate};
use device::LowHalves;

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
    written: LowHalves,
}

impl Registers {
    /// Back to the state after reset.
    pub(crate) fn reset(&self) {
        *self.read.lock() = Latch::default();
        self.written.reset();
    }

    /// Reads `data.len()` bytes at `offset`.
    pub(crate) fn read(&self, device: &Device, offset: u64, data: &mut [u8]) {
        let Some((target, part)) = locate(offset, data.len(), device.channel_count()) else {
            data.fill(0);
            return device.bad_access(BAR_REGISTERS, offset, data.len(), false);
        };
        if target.access() == Access::WriteOnly {
            data.fill(0);
            return;
        }
        let latched = if part == Part::High { self.take_latched(offset) } else { None };
        // One place that reads a register, so that it is compiled into this function.
        let value = latched.unwrap_or_else(|| value_of(device, target));
        if part == Part::Low {
            *self.read.lock() = Latch { offset, value, valid: true };
        }
        // All of `data`: a part has its length.
        for (byte, source) in data.iter_mut().zip(part.get(value).to_le_bytes()) {
            *byte = source;
        }
    }

    /// Returns the value whose low half was read last, if the high half at `offset` belongs to it.
    fn take_latched(&self, offset: u64) -> Option<u64> {
        let latch = std::mem::take(&mut *self.read.lock());
        (latch.valid && latch.offset + 4 == offset).then_some(latch.value)
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
            Target::Device(register) => device::store(device, &self.written, register, part, value),
            Target::Channel(number, register) => channel::store(device, number, register, part, value),
            Target::AddressSpace(asid, register) => mmu::store_space(device, asid, register, part, value),
            Target::Notification(ring, register) => notification::store_ring(device, ring, register, part, value),
            Target::Counter(_) => false,
        }
    }
}

#[inline]
fn value_of(device: &Device, target: Target) -> u64 {
    match target {
        Target::Device(register) => device::value(device, register),
        Target::Channel(channel, register) => {
            device.channels.get(usize::from(channel)).map_or(0, |channel| channel::value(channel, register))
        }
        Target::AddressSpace(asid, register) => mmu::space_value(device, asid, register),
        Target::Notification(ring, register) => notification::ring_value(device, ring, register),
        Target::Counter(counter) => device.counters.get(counter),
        Target::Doorbell(_) => 0,
    }
}

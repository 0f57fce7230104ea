// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of the device as a whole.

use ersatz_abi::pci::MSIX_VECTORS;
use ersatz_abi::regs::{self, Configuration, Control, Peers, Register, Status};

use super::decode::Part;
use super::low_half::LowHalf;
use super::{fault, mmu, notification};
use crate::channel::Channel;
use crate::device::Device;
use crate::trace::Event;

/// The low halves of registers that do something when they are written.
#[derive(Debug, Default)]
pub(super) struct LowHalves {
    mark: LowHalf,
    access_counter_clear: LowHalf,
}

impl LowHalves {
    /// Back to the state after reset.
    pub(super) fn reset(&self) {
        self.mark.reset();
        self.access_counter_clear.reset();
    }
}

/// Writes a register.
pub(super) fn store(device: &Device, halves: &LowHalves, register: &Register, part: Part, value: u64) -> bool {
    match register.offset {
        offset if offset == regs::MARK.offset => {
            if let Some(value) = halves.mark.complete(part, value) {
                device.ports.tracer.emit(Event::Mark { value });
            }
            true
        }
        offset if offset == regs::CONTROL.offset => control(device, value),
        _ => fault::store(device, register, value)
            .or_else(|| mmu::store(device, register, part, value))
            .or_else(|| notification::store(device, &halves.access_counter_clear, register, part, value))
            .unwrap_or(false),
    }
}

/// What a register reads as.
pub(super) fn value(device: &Device, register: &Register) -> u64 {
    match register.offset {
        offset if offset == regs::ID.offset => regs::DEVICE_MAGIC.into(),
        offset if offset == regs::VERSION.offset => ersatz_abi::ABI_VERSION.into(),
        offset if offset == regs::CONFIGURATION.offset => Configuration(0)
            .with_channels(device.channel_count().into())
            .with_copy_engines(device.copy_engine_count().into())
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
        offset if offset == regs::PEERS.offset => Peers(0)
            .with_linked(device.link.peers().into())
            .with_own(device.link.number().unwrap_or(0).into())
            .with_plugged(device.link.number().is_some())
            .0
            .into(),
        offset if offset == regs::TIMESTAMP.offset => device.ports.clock.now(),
        _ => fault::value(device, register)
            .or_else(|| mmu::value(device, register))
            .or_else(|| notification::value(device, register))
            .unwrap_or(0),
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

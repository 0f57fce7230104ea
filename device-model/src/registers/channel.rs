// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of a channel.

use ersatz_abi::counter::Counter;
use ersatz_abi::pci::VECTOR_ERROR;
use ersatz_abi::regs::{self, ChannelControl, Register};

use super::decode::Part;
use crate::channel::{Channel, ResetScope, Setup, Switched};
use crate::device::Device;
use crate::trace::Event;

/// Writes a register of channel `number`.
pub(super) fn store(device: &Device, number: u8, register: &Register, part: Part, value: u64) -> bool {
    let Some(channel) = device.channels.get(usize::from(number)) else { return false };
    if register.offset == regs::CHANNEL_CONTROL.offset {
        control(device, number, channel, value)
    } else {
        channel.set_up(|setup| change_setup(setup, register, part, value))
    }
}

/// What a register of a channel reads as.
pub(super) fn value(channel: &Channel, register: &Register) -> u64 {
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
        offset if offset == regs::ENGINE.offset => now.setup.engine.into(),
        offset if offset == regs::ASID.offset => now.setup.asid.into(),
        offset if offset == regs::PRIORITY.offset => now.setup.priority.into(),
        _ => 0,
    }
}

fn change_setup(setup: &mut Setup, register: &Register, part: Part, value: u64) {
    let low = (value & u64::from(u32::MAX)) as u32;
    match register.offset {
        offset if offset == regs::RING_BASE.offset => setup.ring_base = part.put(setup.ring_base, value),
        offset if offset == regs::CONTROL_BLOCK.offset => setup.control_block = part.put(setup.control_block, value),
        offset if offset == regs::RING_ORDER.offset => setup.ring_order = low,
        offset if offset == regs::VECTOR.offset => setup.vector = low,
        offset if offset == regs::ENGINE.offset => setup.engine = low,
        offset if offset == regs::ASID.offset => setup.asid = low,
        _ => setup.priority = low,
    }
}

fn control(device: &Device, number: u8, channel: &Channel, value: u64) -> bool {
    let Ok(raw) = u32::try_from(value) else { return false };
    let control = ChannelControl(raw);
    if control.0 & ChannelControl::RESERVED != 0 {
        return false;
    }
    if control.reset() {
        let tell = || device.ports.tracer.emit(Event::ChannelReset { channel: number });
        if channel.request_reset(ResetScope::Channel, tell) {
            device.channel_was_reset();
        }
        return true;
    }
    if channel.is_resetting() {
        return false;
    }
    match channel.switch(control.enable(), device.engine_count(), |switched| carry_out(device, number, switched)) {
        Switched::Enabled(_) => device.kick(number),
        Switched::Refused(_, vector) => {
            device.unless_reset(|| {
                device.counters.add(Counter::ChannelErrors, 1);
                device.raise(vector.unwrap_or(VECTOR_ERROR), Some(number));
            });
        }
        Switched::Stopped | Switched::Stopping | Switched::Unchanged => {}
    }
    true
}

/// What must have been done before anybody sees the channel enabled.
fn carry_out(device: &Device, number: u8, switched: &Switched) {
    match switched {
        Switched::Enabled(setup) => {
            device.bind(number, setup.engine);
            device.ports.tracer.emit(Event::ChannelEnabled {
                channel: number,
                ring: setup.ring.address(0),
                control_block: setup.control_block,
                commands: setup.ring.commands().into(),
                vector: setup.vector,
            });
        }
        Switched::Refused(fault, _) => device.ports.tracer.emit(Event::ChannelError {
            channel: number,
            error: fault.code,
            position: 0,
            entry: fault.entry,
            address: fault.address,
        }),
        Switched::Stopped => device.ports.tracer.emit(Event::ChannelDisabled { channel: number }),
        Switched::Stopping | Switched::Unchanged => {}
    }
}

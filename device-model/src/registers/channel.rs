// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of a channel.

use ersatz_abi::counter::Counter;
use ersatz_abi::pci::VECTOR_ERROR;
use ersatz_abi::regs::{ChannelControl, ChannelRegister};

use super::decode::Part;
use crate::channel::{Channel, ChannelSwitched, ResetScope};
use crate::device::Device;
use crate::interrupt::InterruptCause;
use crate::trace::Event;

/// Writes a register of channel `number`.
pub(super) fn store(device: &Device, number: u8, register: ChannelRegister, part: Part, value: u64) -> bool {
    let Some(channel) = device.channels.get(usize::from(number)) else { return false };
    let low = (value & u64::from(u32::MAX)) as u32;
    match register {
        ChannelRegister::RingBase => channel.set_up(|setup| setup.ring_base = part.put(setup.ring_base, value)),
        ChannelRegister::ControlBlock => {
            channel.set_up(|setup| setup.control_block = part.put(setup.control_block, value))
        }
        ChannelRegister::RingOrder => channel.set_up(|setup| setup.ring_order = low),
        ChannelRegister::Vector => channel.set_up(|setup| setup.vector = low),
        ChannelRegister::Engine => channel.set_up(|setup| setup.engine = low),
        ChannelRegister::Asid => channel.set_up(|setup| setup.asid = low),
        ChannelRegister::Priority => channel.set_up(|setup| setup.priority = low),
        ChannelRegister::Control => control(device, number, channel, value),
        ChannelRegister::Status
        | ChannelRegister::ErrorPosition
        | ChannelRegister::ErrorAddress
        | ChannelRegister::Get => false,
    }
}

/// What a register of a channel reads as.
pub(super) fn value(channel: &Channel, register: ChannelRegister) -> u64 {
    let now = channel.snapshot();
    match register {
        ChannelRegister::RingBase => now.setup.ring_base,
        ChannelRegister::ControlBlock => now.setup.control_block,
        ChannelRegister::RingOrder => now.setup.ring_order.into(),
        ChannelRegister::Vector => now.setup.vector.into(),
        ChannelRegister::Control => ChannelControl(0).with_enable(now.enable).with_reset(now.resetting).0.into(),
        ChannelRegister::Status => now.status.0.into(),
        ChannelRegister::ErrorPosition => now.position,
        ChannelRegister::ErrorAddress => now.address,
        ChannelRegister::Get => now.get.into(),
        ChannelRegister::Engine => now.setup.engine.into(),
        ChannelRegister::Asid => now.setup.asid.into(),
        ChannelRegister::Priority => now.setup.priority.into(),
    }
}

fn control(device: &Device, number: u8, channel: &Channel, value: u64) -> bool {
    let Ok(raw) = u32::try_from(value) else { return false };
    let control = ChannelControl(raw);
    if control.0 & ChannelControl::RESERVED != 0 {
        return false;
    }
    if control.reset() {
        if channel.request_reset(ResetScope::Channel, |_| device.report_channel_reset(number)) {
            device.channel_was_reset();
        }
        return true;
    }
    if channel.is_resetting() {
        return false;
    }
    match channel.switch(control.enable(), device.engine_count(), |switched| carry_out(device, number, switched)) {
        ChannelSwitched::Enabled(_) => device.kick(number),
        ChannelSwitched::Refused(_, vector) => {
            device.unless_reset(|| {
                device.counters.add(Counter::ChannelErrors, 1);
                device.raise(vector.unwrap_or(VECTOR_ERROR), InterruptCause::ChannelError(number));
            });
        }
        ChannelSwitched::Stopped | ChannelSwitched::Stopping | ChannelSwitched::Unchanged => {}
    }
    true
}

/// Does what must be done before another thread sees the channel enabled.
fn carry_out(device: &Device, number: u8, switched: &ChannelSwitched) {
    match switched {
        ChannelSwitched::Enabled(setup) => {
            device.bind(number, setup.engine);
            device.ports.tracer.emit(Event::ChannelEnabled {
                channel: number,
                ring: setup.ring.address(0),
                control_block: setup.control_block,
                commands: setup.ring.commands().into(),
                vector: setup.vector,
            });
        }
        ChannelSwitched::Refused(fault, _) => device.ports.tracer.emit(Event::ChannelError {
            channel: number,
            error: fault.code,
            position: 0,
            entry: fault.entry,
            address: fault.address,
        }),
        ChannelSwitched::Stopped => device.ports.tracer.emit(Event::ChannelDisabled { channel: number }),
        ChannelSwitched::Stopping | ChannelSwitched::Unchanged => {}
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of the device as a whole.

use ersatz_abi::pci::MSIX_VECTORS;
use ersatz_abi::regs::{
    Configuration, Control, DEVICE_MAGIC, DeviceRegister, HAND_OVER_BYTES, HandOver, Peers, Status,
};

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
    poison: LowHalf,
    poison_clear: LowHalf,
    hand_over: LowHalf,
    demand_answer: LowHalf,
}

impl LowHalves {
    /// Back to the state after reset.
    pub(super) fn reset(&self) {
        self.mark.reset();
        self.access_counter_clear.reset();
        self.poison.reset();
        self.poison_clear.reset();
        self.hand_over.reset();
        self.demand_answer.reset();
    }
}

/// Writes a register.
pub(super) fn store(device: &Device, halves: &LowHalves, register: DeviceRegister, part: Part, value: u64) -> bool {
    match register {
        DeviceRegister::Mark => {
            if let Some(value) = halves.mark.complete(part, value) {
                device.ports.tracer.emit(Event::Mark { value });
            }
            true
        }
        DeviceRegister::Control => control(device, value),
        DeviceRegister::InvalidateAddress => {
            device.mmu.set_window(|window| window.address = part.put(window.address, value));
            true
        }
        DeviceRegister::InvalidateLength => {
            device.mmu.set_window(|window| window.length = part.put(window.length, value));
            true
        }
        DeviceRegister::Invalidate => mmu::invalidate(device, value),
        DeviceRegister::Poison => halves.poison.complete(part, value).is_none_or(|offset| device.poison(offset)),
        DeviceRegister::PoisonClear => {
            halves.poison_clear.complete(part, value).is_none_or(|offset| device.clear_poison(offset))
        }
        DeviceRegister::Poisoned => {
            let mut from = device.poisoned_from.lock();
            *from = part.put(*from, value);
            true
        }
        DeviceRegister::HandOver => {
            halves.hand_over.complete(part, value).is_none_or(|value| device.hand_over(HandOver(value)))
        }
        DeviceRegister::DemandAnswer => {
            halves.demand_answer.complete(part, value).is_none_or(|number| device.answer_demand(number))
        }
        DeviceRegister::HandedOver => {
            let mut from = device.handed_over_from.lock();
            *from = part.put(*from, value);
            true
        }
        DeviceRegister::FaultReplay => fault::replay(device, value),
        DeviceRegister::FaultCancel => fault::cancel(device, value),
        DeviceRegister::AccessCounterControl => notification::control_access_counters(device, value),
        DeviceRegister::AccessCounterClear => {
            let region = halves.access_counter_clear.complete(part, value);
            region.is_none_or(|region| device.access_counters.clear(region))
        }
        DeviceRegister::Id
        | DeviceRegister::Version
        | DeviceRegister::Configuration
        | DeviceRegister::Status
        | DeviceRegister::VramSize
        | DeviceRegister::Timestamp
        | DeviceRegister::MmuConfiguration
        | DeviceRegister::Peers
        | DeviceRegister::InvalidateRequested
        | DeviceRegister::InvalidateAcknowledged
        | DeviceRegister::Demand
        | DeviceRegister::DemandOffset
        | DeviceRegister::DemandLength
        | DeviceRegister::DemandBytes
        | DeviceRegister::DemandDeadline
        | DeviceRegister::HandedOverEnd
        | DeviceRegister::FaultedChannels => false,
    }
}

/// What a register reads as.
#[inline]
pub(super) fn value(device: &Device, register: DeviceRegister) -> u64 {
    match register {
        DeviceRegister::Id => DEVICE_MAGIC.into(),
        DeviceRegister::Version => ersatz_abi::ABI_VERSION.into(),
        DeviceRegister::Configuration => Configuration(0)
            .with_channels(device.channel_count().into())
            .with_copy_engines(device.copy_engine_count().into())
            .with_vectors(MSIX_VECTORS.into())
            .0
            .into(),
        DeviceRegister::Status => Status(0)
            .with_channel_error(device.channels.iter().any(Channel::is_in_error))
            .with_bad_access(device.had_bad_access())
            .with_resetting(device.is_resetting())
            .0
            .into(),
        DeviceRegister::VramSize => device.vram.size(),
        DeviceRegister::Control => Control(0).with_reset(device.is_resetting()).0.into(),
        DeviceRegister::Timestamp => device.ports.clock.now(),
        DeviceRegister::MmuConfiguration => mmu::configuration(device).0.into(),
        DeviceRegister::Peers => Peers(0)
            .with_linked(device.link.peers().into())
            .with_own(device.link.number().unwrap_or(0).into())
            .with_plugged(device.link.number().is_some())
            .0
            .into(),
        DeviceRegister::InvalidateAddress => device.mmu.window().address,
        DeviceRegister::InvalidateLength => device.mmu.window().length,
        DeviceRegister::InvalidateRequested => device.mmu.window().requested,
        DeviceRegister::InvalidateAcknowledged => device.mmu.acknowledged(),
        DeviceRegister::FaultedChannels => fault::faulted_channels(device),
        DeviceRegister::AccessCounterControl => device.access_counters.control().0.into(),
        DeviceRegister::Poisoned => device.first_poisoned().unwrap_or(u64::MAX),
        DeviceRegister::Demand => device.of_demand(|demand| demand.number),
        DeviceRegister::DemandOffset => device.of_demand(|demand| demand.within.start * HAND_OVER_BYTES),
        DeviceRegister::DemandLength => {
            device.of_demand(|demand| (demand.within.end - demand.within.start) * HAND_OVER_BYTES)
        }
        DeviceRegister::DemandBytes => device.of_demand(|demand| demand.left() * HAND_OVER_BYTES),
        DeviceRegister::DemandDeadline => device.of_demand(|demand| demand.deadline),
        DeviceRegister::HandedOver => device.first_handed_over().map_or(u64::MAX, |run| run.start),
        DeviceRegister::HandedOverEnd => device.first_handed_over().map_or(u64::MAX, |run| run.end),
        DeviceRegister::Mark
        | DeviceRegister::HandOver
        | DeviceRegister::DemandAnswer
        | DeviceRegister::Poison
        | DeviceRegister::PoisonClear
        | DeviceRegister::Invalidate
        | DeviceRegister::FaultReplay
        | DeviceRegister::FaultCancel
        | DeviceRegister::AccessCounterClear => 0,
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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of the notification rings, and those of the access counters.

use ersatz_abi::access_counter::AccessCounterControl;
use ersatz_abi::notification::{NotificationControl, NotificationStatus};
use ersatz_abi::regs::NotificationRegister;

use super::decode::{Part, RingName};
use crate::device::Device;
use crate::interrupt::InterruptCause;
use crate::notification::NotificationRing;

fn ring(device: &Device, name: RingName) -> &NotificationRing {
    match name {
        RingName::Faults => &device.faults.ring,
        RingName::AccessCounters => &device.access_counters.ring,
    }
}

/// Why the device interrupts when the ring has records.
fn cause(name: RingName) -> InterruptCause {
    match name {
        RingName::Faults => InterruptCause::FaultBuffer,
        RingName::AccessCounters => InterruptCause::AccessCounters,
    }
}

/// Writes a register of a ring.
pub(super) fn store_ring(
    device: &Device,
    name: RingName,
    register: NotificationRegister,
    part: Part,
    value: u64,
) -> bool {
    let ring = ring(device, name);
    let low = (value & u64::from(u32::MAX)) as u32;
    match register {
        NotificationRegister::Base => ring.set_up(|setup| setup.base = part.put(setup.base, value)),
        NotificationRegister::Order => ring.set_up(|setup| setup.order = low),
        NotificationRegister::Vector => ring.set_up(|setup| setup.vector = low),
        NotificationRegister::Control => {
            let control = NotificationControl(low);
            control.0 & NotificationControl::RESERVED == 0 && ring.switch(control.enable())
        }
        NotificationRegister::Status => {
            let bits = NotificationStatus(low);
            let is_known = bits.0 & NotificationStatus::RESERVED == 0;
            if is_known {
                ring.clear_status(bits);
            }
            is_known
        }
        NotificationRegister::Get => {
            let acknowledged = ring.acknowledge(low);
            if let Some(vector) = acknowledged.and_then(|acknowledged| acknowledged.interrupt) {
                device.unless_reset(|| device.raise(vector, cause(name)));
            }
            acknowledged.is_some()
        }
        NotificationRegister::Put => false,
    }
}

/// What a register of a ring reads as.
pub(super) fn ring_value(device: &Device, name: RingName, register: NotificationRegister) -> u64 {
    let now = ring(device, name).snapshot();
    match register {
        NotificationRegister::Base => now.setup.base,
        NotificationRegister::Order => now.setup.order.into(),
        NotificationRegister::Vector => now.setup.vector.into(),
        NotificationRegister::Control => now.control.0.into(),
        NotificationRegister::Status => now.status.0.into(),
        NotificationRegister::Get => now.get.into(),
        NotificationRegister::Put => now.put.into(),
    }
}

/// Writes the control register of the access counters. Returns whether it accepts the value.
pub(super) fn control_access_counters(device: &Device, value: u64) -> bool {
    u32::try_from(value).is_ok_and(|value| device.access_counters.set_control(AccessCounterControl(value)))
}

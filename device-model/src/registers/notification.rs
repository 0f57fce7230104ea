// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of the notification rings, and those of the access counters.

use ersatz_abi::access_counter::AccessCounterControl;
use ersatz_abi::notification::{NotificationControl, NotificationStatus};
use ersatz_abi::regs::{self, Register};

use super::decode::{Part, RingName};
use super::low_half::LowHalf;
use crate::device::Device;
use crate::notification::NotificationRing;

fn ring(device: &Device, name: RingName) -> &NotificationRing {
    match name {
        RingName::Faults => &device.faults.ring,
        RingName::AccessCounters => &device.access_counters.ring,
    }
}

/// Writes a register of a ring.
pub(super) fn store_ring(device: &Device, name: RingName, register: &Register, part: Part, value: u64) -> bool {
    let ring = ring(device, name);
    if register.offset == regs::NOTIFICATION_BASE.offset {
        return ring.set_up(|setup| setup.base = part.put(setup.base, value));
    }
    let Ok(value) = u32::try_from(value) else { return false };
    match register.offset {
        offset if offset == regs::NOTIFICATION_ORDER.offset => ring.set_up(|setup| setup.order = value),
        offset if offset == regs::NOTIFICATION_VECTOR.offset => ring.set_up(|setup| setup.vector = value),
        offset if offset == regs::NOTIFICATION_CONTROL.offset => {
            let control = NotificationControl(value);
            control.0 & NotificationControl::RESERVED == 0 && ring.switch(control.enable())
        }
        offset if offset == regs::NOTIFICATION_STATUS.offset => {
            let bits = NotificationStatus(value);
            let is_known = bits.0 & NotificationStatus::RESERVED == 0;
            if is_known {
                ring.clear_status(bits);
            }
            is_known
        }
        offset if offset == regs::NOTIFICATION_GET.offset => {
            let acknowledged = ring.acknowledge(value);
            if let Some(vector) = acknowledged.and_then(|acknowledged| acknowledged.interrupt) {
                device.unless_reset(|| device.raise(vector, None));
            }
            acknowledged.is_some()
        }
        _ => false,
    }
}

/// What a register of a ring reads as.
pub(super) fn ring_value(device: &Device, name: RingName, register: &Register) -> u64 {
    let now = ring(device, name).snapshot();
    match register.offset {
        offset if offset == regs::NOTIFICATION_BASE.offset => now.setup.base,
        offset if offset == regs::NOTIFICATION_ORDER.offset => now.setup.order.into(),
        offset if offset == regs::NOTIFICATION_VECTOR.offset => now.setup.vector.into(),
        offset if offset == regs::NOTIFICATION_CONTROL.offset => now.control.0.into(),
        offset if offset == regs::NOTIFICATION_STATUS.offset => now.status.0.into(),
        offset if offset == regs::NOTIFICATION_GET.offset => now.get.into(),
        offset if offset == regs::NOTIFICATION_PUT.offset => now.put.into(),
        _ => 0,
    }
}

/// Writes a device register of the access counters; `None` if it is not one. `clear_low` keeps the low half of what is to be
/// cleared until the high one comes.
pub(super) fn store(device: &Device, clear_low: &LowHalf, register: &Register, part: Part, value: u64) -> Option<bool> {
    let counters = &device.access_counters;
    match register.offset {
        offset if offset == regs::ACCESS_COUNTER_CONTROL.offset => {
            Some(u32::try_from(value).is_ok_and(|value| counters.set_control(AccessCounterControl(value))))
        }
        offset if offset == regs::ACCESS_COUNTER_CLEAR.offset => {
            Some(clear_low.complete(part, value).is_none_or(|region| counters.clear(region)))
        }
        _ => None,
    }
}

/// What a device register of the access counters reads as; `None` if it is not one.
pub(super) fn value(device: &Device, register: &Register) -> Option<u64> {
    let is_control = register.offset == regs::ACCESS_COUNTER_CONTROL.offset;
    is_control.then(|| device.access_counters.control().0.into())
}

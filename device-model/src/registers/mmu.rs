// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of the address spaces, and those by which translations are invalidated.

use ersatz_abi::mmu::{ADDRESS_SPACES, InvalidateTarget};
use ersatz_abi::regs::{self, MmuConfiguration, Register};

use super::decode::Part;
use crate::device::Device;
use crate::fabric::FABRIC_PORTS;

/// Writes a register of an address space.
pub(super) fn store_space(device: &Device, asid: u8, register: &Register, part: Part, value: u64) -> bool {
    if register.offset == regs::ADDRESS_SPACE_ROOT.offset {
        return device.mmu.spaces.set_root(asid, |root| part.put(root, value));
    }
    u32::try_from(value).is_ok_and(|value| device.mmu.set_control(asid, value))
}

/// What a register of an address space reads as.
pub(super) fn space_value(device: &Device, asid: u8, register: &Register) -> u64 {
    let space = device.mmu.spaces.get(asid);
    if register.offset == regs::ADDRESS_SPACE_ROOT.offset { space.root.0 } else { space.control.0.into() }
}

/// Writes a device register of the MMU; `None` if it is not one.
pub(super) fn store(device: &Device, register: &Register, part: Part, value: u64) -> Option<bool> {
    let mmu = &device.mmu;
    match register.offset {
        offset if offset == regs::INVALIDATE_ADDRESS.offset => {
            mmu.set_window(|window| window.address = part.put(window.address, value));
        }
        offset if offset == regs::INVALIDATE_LENGTH.offset => {
            mmu.set_window(|window| window.length = part.put(window.length, value));
        }
        offset if offset == regs::INVALIDATE.offset => {
            return Some(device.unless_reset(|| mmu.request_by_register(InvalidateTarget(value))).unwrap_or(true));
        }
        _ => return None,
    }
    Some(true)
}

/// What a device register of the MMU reads as; `None` if it is not one.
pub(super) fn value(device: &Device, register: &Register) -> Option<u64> {
    let mmu = &device.mmu;
    Some(match register.offset {
        offset if offset == regs::MMU_CONFIGURATION.offset => {
            let compute_engines = device.engine_count() - device.copy_engine_count();
            MmuConfiguration(0)
                .with_address_spaces(ADDRESS_SPACES)
                .with_compute_engines(compute_engines.into())
                .with_peers(FABRIC_PORTS.into())
                .0
                .into()
        }
        offset if offset == regs::INVALIDATE_ADDRESS.offset => mmu.window().address,
        offset if offset == regs::INVALIDATE_LENGTH.offset => mmu.window().length,
        offset if offset == regs::INVALIDATE_REQUESTED.offset => mmu.window().requested,
        offset if offset == regs::INVALIDATE_ACKNOWLEDGED.offset => mmu.acknowledged(),
        _ => return None,
    })
}

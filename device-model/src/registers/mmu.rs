// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of the address spaces, and those by which translations are invalidated.

use ersatz_abi::mmu::{ADDRESS_SPACES, InvalidateTarget};
use ersatz_abi::regs::{AddressSpaceRegister, MmuConfiguration};

use super::decode::Part;
use crate::device::Device;
use crate::fabric::FABRIC_PORTS;

/// Writes a register of an address space.
pub(super) fn store_space(device: &Device, asid: u8, register: AddressSpaceRegister, part: Part, value: u64) -> bool {
    match register {
        AddressSpaceRegister::Root => device.mmu.spaces.set_root(asid, |root| part.put(root, value)),
        AddressSpaceRegister::Control => u32::try_from(value).is_ok_and(|value| device.mmu.set_control(asid, value)),
    }
}

/// What a register of an address space reads as.
pub(super) fn space_value(device: &Device, asid: u8, register: AddressSpaceRegister) -> u64 {
    let space = device.mmu.spaces.get(asid);
    match register {
        AddressSpaceRegister::Root => space.root.0,
        AddressSpaceRegister::Control => space.control.0.into(),
    }
}

/// Starts an invalidation. Returns whether the target is valid.
pub(super) fn invalidate(device: &Device, value: u64) -> bool {
    device.unless_reset(|| device.mmu.request_by_register(InvalidateTarget(value))).unwrap_or(true)
}

/// What the device has for virtual memory.
pub(super) fn configuration(device: &Device) -> MmuConfiguration {
    let compute_engines = device.engine_count() - device.copy_engine_count();
    MmuConfiguration(0)
        .with_address_spaces(ADDRESS_SPACES)
        .with_compute_engines(compute_engines.into())
        .with_peers(FABRIC_PORTS.into())
}

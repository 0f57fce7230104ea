// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A host whose processor is emulated by QEMU, and what is known of it.
//!
//! When such a host's memory map changes, QEMU interrupts the code that it translates a moment later, which in guest mode can deliver an interrupt
//! twice (`docs/qemu-bugs/injected-twice.md`). Whoever changes the map keeps vCPUs out of guest mode for [`SETTLE`] from then on.

use std::arch::x86_64::__cpuid;
use std::time::Duration;

/// How long after a change of its memory map QEMU may interrupt translated code, with room to spare: by its source, it lets go of the old map some 60 ms
/// later.
pub const SETTLE: Duration = Duration::from_millis(150);

/// Leaf 1 ECX: there is a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// First leaf of CPUID that is a hypervisor's.
const HYPERVISOR_LEAF: u32 = 0x4000_0000;
/// What QEMU's emulated processor has there, in EBX, ECX and EDX.
const QEMU_TCG: [u8; 12] = *b"TCGTCGTCGTCG";

/// Whether this host's processor is emulated by QEMU, as it says itself.
pub fn is_emulated() -> bool {
    if __cpuid(1).ecx & HYPERVISOR == 0 {
        return false;
    }
    let leaf = __cpuid(HYPERVISOR_LEAF);
    [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat() == QEMU_TCG
}

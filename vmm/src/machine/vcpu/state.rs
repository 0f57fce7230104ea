// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where a vCPU is.

use std::fmt;

/// Where a vCPU was when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuState {
    /// Number of the vCPU.
    pub vcpu: u8,
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Flags; bit 9 is clear while interrupts are off.
    pub rflags: u64,
    /// Page table base.
    pub cr3: u64,
    /// Privilege level, 0 (kernel) to 3 (user).
    pub cpl: u8,
}

impl fmt::Display for VcpuState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.cpl == 0 { "kernel" } else { "user" };
        let interrupts = if self.rflags & 0x200 == 0 { "off" } else { "on" };
        write!(
            f,
            "vCPU {}: rip {:#018x} ({mode}), rsp {:#018x}, cr3 {:#x}, interrupts {interrupts}",
            self.vcpu, self.rip, self.rsp, self.cr3
        )
    }
}

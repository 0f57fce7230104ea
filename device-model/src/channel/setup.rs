// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a driver sets up before it enables a channel, and what of it can be checked without touching memory.

use ersatz_abi::channel::{Priority, RING_ORDER_MAX, RING_ORDER_MIN, SHARED_ALIGNMENT};
use ersatz_abi::command::COMMAND_BYTES;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::pci::MSIX_VECTORS;
use ersatz_abi::regs::{ASID, CONTROL_BLOCK, ENGINE, PRIORITY, RING_BASE, RING_ORDER, Register, VECTOR};

use super::ring::Ring;

/// The registers a driver sets while the channel is disabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) ring_base: u64,
    pub(crate) control_block: u64,
    pub(crate) ring_order: u32,
    pub(crate) vector: u32,
    pub(crate) engine: u32,
    pub(crate) asid: u32,
    pub(crate) priority: u32,
}

/// A setup that can work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckedSetup {
    pub(crate) ring: Ring,
    pub(crate) control_block: u64,
    pub(crate) vector: u16,
    pub(crate) engine: u8,
    pub(crate) asid: u8,
    pub(crate) priority: Priority,
}

impl Setup {
    /// Checks, for a device with `engines` engines, what can be checked without touching memory. The entry of an error is the offset of
    /// the register with a value that cannot work, the address that of the part that is wrong.
    pub(super) fn check(&self, engines: u8) -> Result<CheckedSetup, ChannelFailure> {
        let bad =
            |register: Register, address| ChannelFailure { code: ErrorCode::BadSetup, entry: register.offset, address };
        if !(RING_ORDER_MIN..=RING_ORDER_MAX).contains(&self.ring_order) {
            return Err(bad(RING_ORDER, 0));
        }
        let commands = 1 << self.ring_order;
        if !is_shared_range(self.ring_base, u64::from(commands) * COMMAND_BYTES) {
            return Err(bad(RING_BASE, self.ring_base));
        }
        if !is_shared_range(self.control_block, SHARED_ALIGNMENT) {
            return Err(bad(CONTROL_BLOCK, self.control_block));
        }
        let vector = self.usable_vector().ok_or_else(|| bad(VECTOR, 0))?;
        let small = |value: u32, register| u8::try_from(value).map_err(|_| bad(register, 0));
        let engine = small(self.engine, ENGINE)?;
        if engine >= engines {
            return Err(bad(ENGINE, 0));
        }
        let priority = Priority::from_raw(small(self.priority, PRIORITY)?).ok_or_else(|| bad(PRIORITY, 0))?;
        Ok(CheckedSetup {
            ring: Ring::new(self.ring_base, commands),
            control_block: self.control_block,
            vector,
            engine,
            asid: small(self.asid, ASID)?,
            priority,
        })
    }

    pub(super) fn usable_vector(&self) -> Option<u16> {
        u16::try_from(self.vector).ok().filter(|vector| *vector < MSIX_VECTORS)
    }
}

/// Aligned, and not wrapping around the end of the address space.
fn is_shared_range(address: u64, length: u64) -> bool {
    address % SHARED_ALIGNMENT == 0 && address.checked_add(length).is_some()
}

/// Why a channel stops with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChannelFailure {
    pub(crate) code: ErrorCode,
    /// List entry, 0 if the command did not get that far; of a bad setup the offset of a register.
    pub(crate) entry: u32,
    /// The address that was refused, 0 if none was.
    pub(crate) address: u64,
}

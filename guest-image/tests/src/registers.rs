// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! BAR0 of a device from outside, by sysfs: registers, counters and doorbells.

use ersatz_abi::counter::Counter;
use ersatz_abi::pci::REGISTERS_BAR_SIZE;
use ersatz_abi::regs::{self, Register};

use crate::region::Region;

/// The registers of a function.
#[derive(Debug)]
pub struct Registers {
    mapping: Region,
}

impl Registers {
    /// Those that `mapping` maps, which is all of BAR0.
    ///
    /// # Panics
    ///
    /// As all functions here, if a register is not in the mapping, or is accessed by another width than its own.
    pub fn new(mapping: Region) -> Self {
        Self { mapping }
    }

    /// Reads a register of 32 bits.
    pub fn read32(&self, register: Register) -> u32 {
        assert_eq!(register.width, 4, "the width of {}", register.name);
        self.read32_at(register.offset)
    }

    /// Reads a register of 64 bits.
    pub fn read64(&self, register: Register) -> u64 {
        assert_eq!(register.width, 8, "the width of {}", register.name);
        self.read64_at(register.offset)
    }

    /// Writes a register of 32 bits.
    pub fn write32(&self, register: Register, value: u32) {
        assert_eq!(register.width, 4, "the width of {}", register.name);
        self.write32_at(register.offset, value);
    }

    /// Writes a register of 64 bits.
    pub fn write64(&self, register: Register, value: u64) {
        assert_eq!(register.width, 8, "the width of {}", register.name);
        let place = self.mapping.pointer(aligned::<u64>(register.offset)).cast::<u64>();
        // SAFETY: aligned and inside the BAR, which is mapped as long as `self` lives. What the device then does to memory is
        // for the caller to get right, who gives it addresses of memory that it owns.
        unsafe { place.write_volatile(value) }
    }

    /// The offsets in VRAM of all pages that the device takes for poisoned.
    pub fn poisoned(&self) -> Vec<u64> {
        let mut found = Vec::new();
        loop {
            self.write64(regs::POISONED, found.last().map_or(0, |last| last + regs::POISON_BYTES));
            match self.read64(regs::POISONED) {
                u64::MAX => return found,
                offset => found.push(offset),
            }
        }
    }

    /// Makes all pages well.
    pub fn clear_poison(&self) {
        self.poisoned().into_iter().for_each(|offset| self.write64(regs::POISON_CLEAR, offset));
    }

    /// Rings a channel's doorbell.
    pub fn ring_doorbell(&self, channel: u32) {
        self.write32_at(regs::doorbell(channel).expect("there are so many channels"), 0);
    }

    /// Reads a counter.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.read64_at(regs::COUNTER_BASE + 8 * u32::from(counter as u8))
    }

    /// Reads 32 bits, be they a register or not.
    pub fn read32_at(&self, offset: u32) -> u32 {
        let place = self.mapping.pointer(aligned::<u32>(offset)).cast::<u32>();
        // SAFETY: aligned and inside the BAR, which is mapped as long as `self` lives; all of it may be read at any time.
        unsafe { place.read_volatile() }
    }

    /// Writes 32 bits, be they a register or not.
    pub fn write32_at(&self, offset: u32, value: u32) {
        let place = self.mapping.pointer(aligned::<u32>(offset)).cast::<u32>();
        // SAFETY: as for `write64`.
        unsafe { place.write_volatile(value) }
    }

    fn read64_at(&self, offset: u32) -> u64 {
        let place = self.mapping.pointer(aligned::<u64>(offset)).cast::<u64>();
        // SAFETY: as for `read32_at`.
        unsafe { place.read_volatile() }
    }
}

/// The offset of a naturally aligned number in the BAR.
fn aligned<T>(offset: u32) -> usize {
    let fits = u64::from(offset) + size_of::<T>() as u64 <= REGISTERS_BAR_SIZE;
    assert!(fits && offset as usize % size_of::<T>() == 0, "no register can be at offset {offset:#x}");
    offset as usize
}

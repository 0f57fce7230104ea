// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The Resizable BAR capability: software reads which sizes a BAR may have and writes which one it is to have.
//!
//! Sizes are powers of two from 1 MiB to 128 TiB. The capability register has one bit a size; the control register's size field
//! has the base-2 logarithm of the size in MiB.

use super::config::ConfigSpace;

/// The capability's extended id.
pub const ID: u16 = 0x15;
const VERSION: u32 = 1;

/// The register that says which sizes there are.
const SIZES: u16 = 4;
/// The register that says and sets the size.
const CONTROL: u16 = 8;
/// Bit of the smallest size, 1 MiB, in the register of sizes.
const FIRST_SIZE: u32 = 4;
/// Base-2 logarithm of the smallest size.
const FIRST_ORDER: u32 = 20;
/// Control: how many BARs are resizable; only the first control register has it.
const ONE_BAR: u32 = 1 << 5;
/// Control: the size field.
const SIZE_SHIFT: u32 = 8;
const SIZE_MASK: u32 = 0b11_1111 << SIZE_SHIFT;

/// A BAR that software may resize, and the least and the most it can make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResizableBar {
    /// Index of the BAR.
    pub bar: u8,
    /// Smallest size in bytes, a power of two from 1 MiB on.
    pub smallest: u64,
    /// Largest size in bytes, a power of two up to 128 TiB.
    pub largest: u64,
}

impl ResizableBar {
    /// Whether the BAR may have this size.
    pub fn supports(&self, size: u64) -> bool {
        size.is_power_of_two() && (self.smallest..=self.largest).contains(&size)
    }

    /// Defines the capability at `at`, with the BAR of this size after reset.
    pub(super) fn define(&self, config: &mut ConfigSpace, at: u16, next: u16, size: u64) {
        let header = u32::from(ID) | VERSION << 16 | u32::from(next) << 20;
        config.define(at, header.to_le_bytes(), [0; 4]);
        let sizes = (self.smallest.ilog2()..=self.largest.ilog2()).map(|order| order - FIRST_ORDER + FIRST_SIZE);
        let sizes = sizes.fold(0_u32, |bits, bit| bits | 1 << bit);
        config.define(at + SIZES, sizes.to_le_bytes(), [0; 4]);
        let control = u32::from(self.bar) | ONE_BAR | size_field(size);
        config.define(at + CONTROL, control.to_le_bytes(), SIZE_MASK.to_le_bytes());
    }

    /// The size that the control register asks for; `None` if the BAR cannot have it.
    pub(super) fn asked_for(&self, config: &ConfigSpace, at: u16) -> Option<u64> {
        let order = (config.dword(at + CONTROL) & SIZE_MASK) >> SIZE_SHIFT;
        1_u64.checked_shl(order + FIRST_ORDER).filter(|size| self.supports(*size))
    }

    /// Sets the size in the control register.
    pub(super) fn tell(&self, config: &mut ConfigSpace, at: u16, size: u64) {
        let control = config.dword(at + CONTROL) & !SIZE_MASK | size_field(size);
        config.set(at + CONTROL, control.to_le_bytes());
    }
}

fn size_field(size: u64) -> u32 {
    (size.ilog2().saturating_sub(FIRST_ORDER)) << SIZE_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAR: ResizableBar = ResizableBar { bar: 2, smallest: 2 << 20, largest: 1 << 40 };
    const AT: u16 = 0x200;

    fn space() -> ConfigSpace {
        let mut config = ConfigSpace::new();
        BAR.define(&mut config, AT, 0, 256 << 20);
        config
    }

    #[test]
    fn the_capability_says_what_can_be_had() {
        let config = space();
        assert_eq!(config.dword(AT), 0x0001_0015);
        assert_eq!(config.dword(AT + 4), 0x01ff_ffe0, "2 MiB to 1 TiB");
        assert_eq!(config.dword(AT + 8), 8 << 8 | 1 << 5 | 2, "256 MiB");
        assert_eq!(BAR.asked_for(&config, AT), Some(256 << 20));
    }

    #[test]
    fn only_the_size_can_be_written() {
        let mut config = space();
        config.write(AT, &[0xff; 12]);
        assert_eq!((config.dword(AT), config.dword(AT + 4)), (0x0001_0015, 0x01ff_ffe0));
        assert_eq!(config.dword(AT + 8), 0x3f << 8 | 1 << 5 | 2);
        assert_eq!(BAR.asked_for(&config, AT), None);
        BAR.tell(&mut config, AT, 2 << 20);
        assert_eq!(config.dword(AT + 8), 1 << 8 | 1 << 5 | 2);
    }

    #[test]
    fn sizes_out_of_range_cannot_be_asked_for() {
        let mut config = space();
        for order in 0_u8..64 {
            config.write(AT + 9, &[order]);
            let expected = (1..=20).contains(&order).then(|| 1_u64 << (order + 20));
            assert_eq!(BAR.asked_for(&config, AT), expected, "{order}");
        }
        assert!(!BAR.supports(3 << 20) && !BAR.supports(0));
    }
}

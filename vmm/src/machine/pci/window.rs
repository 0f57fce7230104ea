// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The memory windows of a bridge: address ranges, and the registers that hold them.
//!
//! Registers hold the address bits from 20 upwards of the first and the last byte, so windows are whole MiB. A base above
//! its limit closes the window.

use std::ops::Range;

/// Windows are multiples of this, in address and size.
pub const GRANULE: u64 = 1 << 20;
/// The bits of a 16-bit base or limit register that are address bits (31:20).
pub const ADDRESS_BITS: u16 = 0xfff0;

/// The address ranges that a bridge forwards to its secondary bus. An empty range is a closed window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeWindows {
    /// The window for BARs of any kind, below 4 GiB.
    pub memory: Range<u64>,
    /// The window for prefetchable BARs, with 64-bit addresses.
    pub prefetchable: Range<u64>,
}

impl BridgeWindows {
    /// Whether the bridge forwards accesses to all of these addresses: they are in one of its windows.
    pub fn forwards(&self, range: &Range<u64>) -> bool {
        [&self.memory, &self.prefetchable]
            .into_iter()
            .any(|window| window.start <= range.start && range.start < range.end && range.end <= window.end)
    }
}

/// The base and limit registers of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowRegisters {
    /// Bits 31:20 of the first byte, in bits 15:4.
    pub base: u16,
    /// Bits 31:20 of the last byte, in bits 15:4.
    pub limit: u16,
    /// Bits 63:32 of the first byte; zero where a window has no such register.
    pub base_upper: u32,
    /// Bits 63:32 of the last byte; zero where a window has no such register.
    pub limit_upper: u32,
}

impl WindowRegisters {
    /// A closed window.
    pub const CLOSED: Self = Self { base: ADDRESS_BITS, limit: 0, base_upper: 0, limit_upper: 0 };

    /// The registers of a window, which consists of whole MiB.
    pub fn of(window: &Range<u64>) -> Self {
        if window.is_empty() {
            return Self::CLOSED;
        }
        let (base, base_upper) = split(window.start);
        let (limit, limit_upper) = split(window.end - GRANULE);
        Self { base, limit, base_upper, limit_upper }
    }

    /// The window that these registers describe. Of a window up to the end of the 64-bit address space the last byte is
    /// missing.
    pub fn range(self) -> Range<u64> {
        let first = join(self.base, self.base_upper);
        let last = join(self.limit, self.limit_upper) | (GRANULE - 1);
        if first > last { 0..0 } else { first..last.saturating_add(1) }
    }
}

/// An address as register contents: bits 31:20, and bits 63:32.
fn split(address: u64) -> (u16, u32) {
    ((address >> 16) as u16 & ADDRESS_BITS, (address >> 32) as u32)
}

fn join(register: u16, upper: u32) -> u64 {
    u64::from(upper) << 32 | u64::from(register & ADDRESS_BITS) << 16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_window_is_in_its_registers() {
        let registers = WindowRegisters::of(&(0x123_c010_0000..0x124_0000_0000));
        assert_eq!(registers, WindowRegisters { base: 0xc010, limit: 0xfff0, base_upper: 0x123, limit_upper: 0x123 });
        assert!(WindowRegisters::CLOSED.range().is_empty());
        assert_eq!(WindowRegisters { base: 0, limit: 0, base_upper: 0, limit_upper: 0 }.range(), 0..GRANULE);
    }

    #[test]
    fn a_bar_must_be_in_one_window() {
        let windows = BridgeWindows { memory: 0x1000..0x3000, prefetchable: 0x3000..0x5000 };
        assert!(windows.forwards(&(0x1000..0x3000)) && windows.forwards(&(0x4000..0x4010)));
        assert!(!windows.forwards(&(0x2000..0x4000)), "half in each");
        assert!(!windows.forwards(&(0x0..0x2000)) && !BridgeWindows::default().forwards(&(0..1)));
    }

    proptest! {
        #[test]
        fn windows_survive_their_registers(start in 0u64..1 << 43, length in 0u64..1 << 30) {
            let window = start * GRANULE..start.saturating_add(length).min((1 << 44) - 1) * GRANULE;
            let range = WindowRegisters::of(&window).range();
            prop_assert!(range == window || (range.is_empty() && window.is_empty()));
        }

        #[test]
        fn whatever_the_registers_hold_is_a_range(base: u16, limit: u16, base_upper: u32, limit_upper: u32, probe: u64) {
            let range = WindowRegisters { base, limit, base_upper, limit_upper }.range();
            prop_assert!(range.is_empty() || range.start % GRANULE == 0);
            let megabyte = |register: u16, upper: u32| u64::from(upper) << 12 | u64::from(register >> 4);
            let inside = (megabyte(base, base_upper)..=megabyte(limit, limit_upper)).contains(&(probe >> 20));
            prop_assert!(probe == u64::MAX || range.contains(&probe) == inside);
        }
    }
}

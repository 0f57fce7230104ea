// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Base address registers: how they are sized, and where they decode.

use super::config::ConfigSpace;
use crate::bus::BarInfo;

/// Offset of BAR 0 in config space.
const FIRST_BAR: u16 = 0x10;
/// Type field: decodes anywhere in 64 bits, and takes the next register too.
const TYPE_64BIT: u32 = 0b100;
/// Reads have no side effects.
const PREFETCHABLE: u32 = 0b1000;
/// The low bits of a memory BAR, which are no address.
const ATTRIBUTES: u64 = 0b1111;

fn register(bar: u8) -> u16 {
    FIRST_BAR + u16::from(bar) * 4
}

/// Defines a BAR's registers. Only the address bits from its size upwards are writable, which is how software finds
/// out the size.
pub fn define(config: &mut ConfigSpace, info: &BarInfo) {
    let mut attributes = 0;
    if info.is_64bit {
        attributes |= TYPE_64BIT;
    }
    if info.prefetchable {
        attributes |= PREFETCHABLE;
    }
    let writable = !(info.size - 1) & !ATTRIBUTES;
    let initial = u64::from(attributes);
    if info.is_64bit {
        config.define(register(info.bar), initial.to_le_bytes(), writable.to_le_bytes());
    } else {
        let [a, b, c, d, ..] = writable.to_le_bytes();
        config.define(register(info.bar), attributes.to_le_bytes(), [a, b, c, d]);
    }
}

/// Gives a defined BAR another size: address bits below it become zero, and those from it on writable.
pub fn resize(config: &mut ConfigSpace, info: &BarInfo) {
    let address: [u8; 8] = config.get(register(info.bar));
    define(config, info);
    config.write(register(info.bar), if info.is_64bit { &address } else { &address[..4] });
}

/// Where a BAR would decode, were decoding on: `None` for address zero (it was not placed) and at the very top of the
/// address space, where writing all ones to find out the size leaves it.
pub fn address(config: &ConfigSpace, info: &BarInfo) -> Option<u64> {
    let (raw, limit) = if info.is_64bit {
        (u64::from_le_bytes(config.get(register(info.bar))), u64::MAX)
    } else {
        (u64::from(config.dword(register(info.bar))), u64::from(u32::MAX))
    };
    let address = raw & !ATTRIBUTES;
    let last = address.checked_add(info.size - 1)?;
    (address != 0 && last < limit).then_some(address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MEMORY: BarInfo = BarInfo { bar: 0, size: 0, is_64bit: false, prefetchable: false };

    fn space(info: &BarInfo) -> ConfigSpace {
        let mut config = ConfigSpace::new();
        define(&mut config, info);
        config
    }

    /// What software does to find out a BAR's size: all ones in, the lowest bit that stuck is the size.
    fn size_found(config: &mut ConfigSpace, info: &BarInfo) -> u64 {
        config.write(register(info.bar), &[0xff; 4]);
        let mut mask = u64::from(config.dword(register(info.bar)) & !0xf) | u64::from(u32::MAX) << 32;
        if info.is_64bit {
            config.write(register(info.bar) + 4, &[0xff; 4]);
            mask = u64::from(config.dword(register(info.bar) + 4)) << 32 | (mask & u64::from(u32::MAX));
        }
        mask.wrapping_neg()
    }

    #[test]
    fn attributes_show_in_the_low_bits() {
        let both = BarInfo { bar: 2, size: 1 << 40, is_64bit: true, prefetchable: true };
        assert_eq!(space(&both).dword(0x18), 0b1100);
        assert_eq!(space(&BarInfo { size: 4096, ..MEMORY }).dword(0x10), 0);
    }

    #[test]
    fn zero_and_all_ones_are_nowhere() {
        for info in [BarInfo { size: 4096, ..MEMORY }, BarInfo { bar: 2, size: 1 << 21, is_64bit: true, ..MEMORY }] {
            let mut config = space(&info);
            assert_eq!(address(&config, &info), None);
            config.write(register(info.bar), if info.is_64bit { &[0xff; 8] } else { &[0xff; 4] });
            assert_eq!(address(&config, &info), None);
        }
    }

    #[test]
    fn a_resized_bar_keeps_the_address_bits_it_still_has() {
        let mut info = BarInfo { bar: 2, size: 2 << 20, is_64bit: true, prefetchable: true };
        let mut config = space(&info);
        config.write(0x18, &0x12_3450_0000_0000_u64.to_le_bytes());
        config.write(0x18, &0x12_3460_0000_u64.to_le_bytes());
        info.size = 1 << 30;
        resize(&mut config, &info);
        assert_eq!(u64::from_le_bytes(config.get(0x18)), 0x12_0000_0000 | 0b1100);
        assert_eq!(size_found(&mut config, &info), 1 << 30);
        let low = BarInfo { size: 1 << 20, ..MEMORY };
        let mut config = space(&low);
        config.write(0x10, &0xfef0_0000_u32.to_le_bytes());
        resize(&mut config, &BarInfo { size: 1 << 24, ..MEMORY });
        assert_eq!((config.dword(0x10), config.dword(0x14)), (0xfe00_0000, 0));
    }

    proptest! {
        #[test]
        fn sizing_finds_the_size(order in 4_u32..=40, is_64bit in any::<bool>(), prefetchable in any::<bool>()) {
            let order = if is_64bit { order } else { order.min(31) };
            let info = BarInfo { bar: 2, size: 1 << order, is_64bit, prefetchable };
            let mut config = space(&info);
            let before = config.dword(register(2)) & 0xf;
            prop_assert_eq!(size_found(&mut config, &info), info.size);
            prop_assert_eq!(config.dword(register(2)) & 0xf, before);
        }

        #[test]
        fn an_address_is_cut_to_the_alignment(order in 12_u32..=40, raw in any::<u64>()) {
            let info = BarInfo { bar: 4, size: 1 << order, is_64bit: true, prefetchable: true };
            let mut config = space(&info);
            for (at, byte) in (0x20..).zip(raw.to_le_bytes()) {
                config.write(at, &[byte]);
            }
            let base = raw & !(info.size - 1);
            let expected = (base != 0 && base < info.size.wrapping_neg()).then_some(base);
            prop_assert_eq!(address(&config, &info), expected);
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The BAR registers, which are the VMM's, and the parts of BARs that the guest reaches without the VMM.

use std::ops::Range;

use ersatz_device_model::bus::BarInfo;

use super::config::ConfigSpace;

/// BARs of a function.
pub const BARS: u8 = 6;
/// Config space offset of BAR0.
const BAR0: u16 = 0x10;
/// Bytes of a BAR register.
const REGISTER: u16 = 4;
/// Register of the expansion ROM, which the guest does not get.
const ROM: u16 = 0x30;
/// The type of a BAR, in the low bits of its register: an I/O BAR; 64 bits; prefetchable.
const IO: u8 = 1;
const TYPE_64BIT: u8 = 0b100;
const PREFETCHABLE: u8 = 0b1000;
/// The bits of a memory BAR that are no address.
const TYPE_BITS: u32 = 0xf;
/// Smallest memory BAR in bytes.
const SMALLEST: u64 = 16;
/// Mappings are whole pages.
const PAGE: u64 = 4096;

/// Takes the BAR registers from the device; returns the BARs that the guest gets. `device` is what the device has in config space,
/// `size` the size of each BAR in bytes.
pub fn take_registers(config: &mut ConfigSpace, device: &[u8], size: impl Fn(u8) -> u64) -> Vec<BarInfo> {
    let mut infos = Vec::new();
    config.take(ROM, &[0; REGISTER as usize], &[0; REGISTER as usize]);
    let mut bar = 0;
    while bar < BARS {
        let kind = device.get(usize::from(register(bar))).copied().unwrap_or(0);
        let is_64bit = kind & IO == 0 && kind & TYPE_64BIT != 0 && bar + 1 < BARS;
        let size = size(bar);
        let registers = if is_64bit { 2 } else { 1 };
        let is_there = kind & IO == 0 && size.is_power_of_two() && size >= SMALLEST;
        // A BAR of 32 bits cannot be larger than its address space.
        if is_there && (is_64bit || size <= 1 << 31) {
            let writable = (!(size - 1)).to_le_bytes();
            let value = u64::from(kind & TYPE_BITS as u8).to_le_bytes();
            let length = usize::from(REGISTER) * registers;
            config.take(register(bar), &value[..length], &writable[..length]);
            infos.push(BarInfo { bar, size, is_64bit, prefetchable: kind & PREFETCHABLE != 0 });
        } else {
            config.take(register(bar), &[0; 8][..usize::from(REGISTER) * registers], &[0; 8]);
        }
        bar += if is_64bit { 2 } else { 1 };
    }
    infos
}

fn register(bar: u8) -> u16 {
    BAR0 + REGISTER * u16::from(bar)
}

/// The address in a BAR's registers.
pub fn address(config: &ConfigSpace, info: &BarInfo) -> u64 {
    let low = config.dword(register(info.bar)) & !TYPE_BITS;
    let high = if info.is_64bit { config.dword(register(info.bar) + REGISTER) } else { 0 };
    u64::from(high) << 32 | u64::from(low)
}

/// The parts of `area` outside of `holes`, in whole pages: what of a BAR the guest reaches by itself. Accesses to the pages that a
/// hole touches come to the VMM.
pub fn outside(area: Range<u64>, holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let (start, end) = (area.start.next_multiple_of(PAGE), area.end / PAGE * PAGE);
    let mut holes: Vec<_> = holes.iter().filter(|hole| !hole.is_empty()).cloned().collect();
    holes.sort_by_key(|hole| hole.start);
    let mut parts = Vec::new();
    let mut at = start;
    for hole in holes {
        let (first, last) = (hole.start / PAGE * PAGE, hole.end.div_ceil(PAGE).saturating_mul(PAGE));
        if at < first.min(end) {
            parts.push(at..first.min(end));
        }
        at = at.max(last);
    }
    if at < end {
        parts.push(at..end);
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(kinds: [u8; 6], sizes: [u64; 6]) -> (ConfigSpace, Vec<BarInfo>) {
        let mut device = vec![0; 256];
        for (bar, kind) in kinds.into_iter().enumerate() {
            device[0x10 + 4 * bar] = kind;
        }
        let mut config = ConfigSpace::default();
        let infos = take_registers(&mut config, &device, |bar| sizes[usize::from(bar)]);
        (config, infos)
    }

    #[test]
    fn registers_are_sized_by_writing_ones() {
        let (mut config, infos) = taken([0, 0, 0x0c, 0, 1, 0], [0x8000, 0, 1 << 32, 0, 32, 0]);
        let bar = |bar, size, high| BarInfo { bar, size, is_64bit: high, prefetchable: high };
        assert_eq!(infos, [bar(0, 0x8000, false), bar(2, 1 << 32, true)]);
        assert!(config.write(0x10, &[0xff; 0x18]).is_empty() && config.write(0x30, &[0xff; 4]).is_empty());
        let registers = [0xffff_8000, 0, 0xc, 0xffff_ffff, 0, 0];
        for (register, value) in (0x10..).step_by(4).zip(registers) {
            assert_eq!(config.dword(register), value, "{register:#x}");
        }
        config.write(0x18, &0x12_0000_000cu64.to_le_bytes());
        assert_eq!(address(&config, &infos[1]), 0x12_0000_0000);
        assert_eq!(address(&config, &infos[0]), 0xffff_8000);
    }

    #[test]
    fn bars_that_cannot_be_are_not_there() {
        let (_, infos) = taken([0, 0, 0, 0, 0, 4], [3, 8, 1 << 32, 0, 0, 1 << 20]);
        assert!(infos.iter().all(|info| info.bar == 5 && !info.is_64bit), "{infos:?}");
    }

    #[test]
    fn pages_of_tables_are_trapped() {
        let outside = |area, holes: &[(u64, u64)]| -> Vec<_> {
            let holes: Vec<_> = holes.iter().map(|&(start, end)| start..end).collect();
            outside(area, &holes).iter().map(|part| (part.start, part.end)).collect()
        };
        assert_eq!(outside(0..0x4000, &[(0x2100, 0x2200), (0x3ff8, 0x4000)]), [(0, 0x2000)]);
        assert_eq!(outside(0..0x4000, &[(0x1000, 0x1010)]), [(0, 0x1000), (0x2000, 0x4000)]);
        assert_eq!(outside(0x800..0x3800, &[]), [(0x1000, 0x3000)], "whole pages");
        assert_eq!(outside(0..0x100, &[]), []);
    }

    proptest! {
        #[test]
        fn what_is_mapped_touches_no_page_of_a_hole(
            start in 0u64..0x8000,
            length in 0u64..0x8000,
            holes in prop::collection::vec((0u64..0x10000, 0u64..0x3000), 0..4),
        ) {
            let holes: Vec<_> = holes.into_iter().map(|(start, length)| start..start + length).collect();
            let parts = outside(start..start + length, &holes);
            for page in (0..0x20).map(|page| page * PAGE..(page + 1) * PAGE) {
                let inside = start <= page.start && page.end <= start + length;
                let free = holes.iter().all(|hole| hole.is_empty() || hole.end <= page.start || page.end <= hole.start);
                let mapped = parts.iter().any(|part| part.start <= page.start && page.end <= part.end);
                prop_assert_eq!(mapped, inside && free);
            }
            prop_assert!(parts.iter().all(|part| part.start < part.end));
        }
    }
}

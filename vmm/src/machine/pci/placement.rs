// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the BARs are when the guest starts. Linux keeps what firmware chose, if it is in the root bridge's windows.
//!
//! Large prefetchable BARs go above 4 GiB: below, Linux may find their memory type changed by MTRRs, and there is no
//! room. Larger BARs come first, so that natural alignment costs the least.

use std::cmp::Reverse;
use std::ops::Range;

use ersatz_abi::pci::VRAM_MAX;
use ersatz_device_model::bus::BarInfo;
use ersatz_device_model::fabric::FABRIC_PORTS;

use super::PciError;
use super::slot::{ConnectedFunction, device};
use crate::machine::layout::{Layout, WINDOW_32};

/// One BAR of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarRequest {
    /// Number of the function's device.
    pub device: u8,
    /// The BAR.
    pub info: BarInfo,
}

/// Where a BAR is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Number of the function's device.
    pub device: u8,
    /// The BAR.
    pub info: BarInfo,
    /// Guest physical address, a multiple of the BAR's size.
    pub address: u64,
}

/// The BARs of functions that are to be in the first slots.
pub fn bar_requests(functions: &[ConnectedFunction]) -> Vec<BarRequest> {
    let numbered = functions.iter().zip((0..).map(device));
    numbered
        .flat_map(|(connected, device)| {
            connected.function.bars().into_iter().map(move |info| BarRequest { device, info })
        })
        .collect()
}

/// The layout with the 64-bit window that suits these BARs best, and those of functions to come: half of the address space
/// that has room for a fabric full of the largest GPUs, or the smallest window that has room for these BARs. If they fit into
/// none it is the largest, in which placing them says so.
pub fn choose_window(layout: Layout, bars: &[BarRequest]) -> Layout {
    let large = |bar: &&BarRequest| bar.info.is_64bit && bar.info.prefetchable;
    let to_come = usize::from(FABRIC_PORTS).saturating_sub(bars.iter().filter(large).count());
    let info = BarInfo { bar: 0, size: VRAM_MAX, is_64bit: true, prefetchable: true };
    let all: Vec<_> = bars.iter().copied().chain(vec![BarRequest { device: 0, info }; to_come]).collect();
    let spacious = layout.by_half().find(|layout| place(layout, &all).is_ok());
    spacious.or_else(|| layout.by_window().find(|layout| place(layout, bars).is_ok())).unwrap_or(layout)
}

/// Places all BARs.
///
/// # Errors
///
/// [`PciError::NoRoom`] if a BAR does not fit into its window, [`PciError::BarSize`] if it has a size no BAR can have.
pub fn place(layout: &Layout, bars: &[BarRequest]) -> Result<Vec<Placement>, PciError> {
    let (high, low): (Vec<_>, Vec<_>) = bars.iter().partition(|bar| bar.info.is_64bit && bar.info.prefetchable);
    let mut placements = fill(layout, &WINDOW_32, low)?;
    placements.extend(fill(layout, &layout.window_64, high)?);
    Ok(placements)
}

fn fill(layout: &Layout, window: &Range<u64>, mut bars: Vec<BarRequest>) -> Result<Vec<Placement>, PciError> {
    bars.sort_by_key(|bar| Reverse(bar.info.size));
    let mut next = window.start;
    bars.into_iter()
        .map(|BarRequest { device, info }| {
            if !info.size.is_power_of_two() || info.size < 16 {
                return Err(PciError::BarSize { device, bar: info.bar, size: info.size });
            }
            let address = next.checked_next_multiple_of(info.size);
            let end = address.and_then(|address| address.checked_add(info.size));
            match (address, end) {
                (Some(address), Some(end)) if end <= window.end => {
                    next = end;
                    Ok(Placement { device, info, address })
                }
                _ => Err(PciError::NoRoom {
                    device,
                    bar: info.bar,
                    size: info.size,
                    window: window.clone(),
                    bits: layout.physical_bits,
                }),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vram(device: u8, size: u64) -> BarRequest {
        let info = BarInfo { bar: 2, size, is_64bit: true, prefetchable: true };
        BarRequest { device, info }
    }

    fn registers(device: u8, size: u64) -> BarRequest {
        let info = BarInfo { bar: 0, size, is_64bit: false, prefetchable: false };
        BarRequest { device, info }
    }

    #[test]
    fn the_largest_bar_comes_first() {
        let layout = Layout::new(1 << 30, 46).unwrap();
        let bars = [vram(1, 16 << 30), vram(2, 1 << 40), registers(1, 512 << 10)];
        let placements = place(&layout, &bars).unwrap();
        let address =
            |device, bar| placements.iter().find(|p| p.device == device && p.info.bar == bar).unwrap().address;
        assert_eq!(address(2, 2), 1 << 40);
        assert_eq!(address(1, 2), 2 << 40);
        assert_eq!(address(1, 0), WINDOW_32.start);
    }

    #[test]
    fn half_of_the_address_space_stays_free_if_it_can() {
        let window = |bits, bars: &[BarRequest]| choose_window(Layout::new(1 << 30, bits).unwrap(), bars).window_64;
        let low = 4 << 30;
        assert_eq!(window(46, &[vram(1, 1 << 40), vram(2, 1 << 40)]), low..1 << 45);
        assert_eq!(window(41, &[vram(1, 1 << 40)]), 1 << 40..1 << 41);
        assert_eq!(window(40, &[vram(1, 1 << 39), vram(2, 1 << 38)]), low..1 << 40);
        assert_eq!(window(40, &[vram(1, 1 << 40)]), low..1 << 40, "for the error to come");
        assert_eq!(window(40, &[]), low..1 << 39);
    }

    #[test]
    fn there_is_room_for_gpus_to_come() {
        let window = |bits, bars: &[BarRequest]| choose_window(Layout::new(1 << 30, bits).unwrap(), bars).window_64;
        let (low, big) = (4 << 30, vram(1, 1 << 40));
        assert_eq!(window(46, &[]), low..1 << 45);
        assert_eq!(window(44, &[]), 1 << 43..1 << 44, "eight of 1 TiB fit into the upper half alone");
        assert_eq!(window(44, &[big; 8]), 1 << 43..1 << 44);
        assert_eq!(window(43, &[big; 3]), low..1 << 42, "there is room for smaller ones");
    }

    #[test]
    fn says_what_has_no_room() {
        let layout = Layout::new(1 << 30, 40).unwrap();
        let error = place(&layout, &[vram(1, 1 << 40)]).unwrap_err();
        assert!(error.to_string().contains("40-bit"), "{error}");
        assert!(place(&layout, &[vram(1, 1 << 39)]).is_ok());
        assert!(matches!(place(&layout, &[registers(1, 0)]), Err(PciError::BarSize { .. })));
        assert!(matches!(place(&layout, &[registers(1, 48)]), Err(PciError::BarSize { .. })));
    }

    proptest! {
        #[test]
        fn no_two_bars_overlap(
            memory in 1u64..64,
            bits in 38u8..=52,
            vram_orders in prop::collection::vec(21u32..=40, 0..8),
            register_orders in prop::collection::vec(4u32..=26, 0..8),
        ) {
            let layout = Layout::new(memory << 30, bits).unwrap();
            let bars: Vec<_> = vram_orders.iter().map(|order| vram(0, 1 << order))
                .chain(register_orders.iter().map(|order| registers(0, 1 << order)))
                .collect();
            if let Ok(placements) = place(&layout, &bars) {
                prop_assert_eq!(placements.len(), bars.len());
                for (index, bar) in placements.iter().enumerate() {
                    let range = bar.address..bar.address + bar.info.size;
                    prop_assert_eq!(bar.address % bar.info.size, 0);
                    prop_assert!(layout.is_pci(&range));
                    prop_assert_eq!(bar.info.is_64bit, bar.address >= 1 << 32);
                    for other in &placements[index + 1..] {
                        prop_assert!(other.address >= range.end || other.address + other.info.size <= range.start);
                    }
                }
            }
        }
    }
}

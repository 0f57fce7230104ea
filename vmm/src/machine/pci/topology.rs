// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The topology that the guest finds: bus numbers, windows of the root ports, addresses of BARs. Linux keeps what firmware
//! chose, if it is in the host bridge's windows.
//!
//! Large prefetchable BARs go above 4 GiB: below, Linux may find their memory type changed by MTRRs, and there is no
//! room. Each port gets windows that have room for a GPU, also if its slot is empty: Linux does not enlarge them for a
//! function that comes later.

use std::ops::Range;

use ersatz_abi::pci::VRAM_MAX;
use ersatz_device_model::bus::BarInfo;
use ersatz_device_model::fabric::FABRIC_PORTS;

use super::error::PciError;
use super::placement::{Block, PlacedBlock, fit};
use super::root_port::BusNumbers;
use super::slot::MAX_SLOTS;
use super::window::{BridgeWindows, GRANULE};
use crate::machine::layout::{Layout, WINDOW_32};

/// The slots that every machine has: as many as a fabric links GPUs.
pub const MIN_SLOTS: usize = FABRIC_PORTS as usize;
/// The most room for non-prefetchable BARs that a port gets if its function does not need more.
const SHARE_32: u64 = 16 << 20;
/// The least room for prefetchable BARs for which more than half of a window is shared out.
const SPARE_64: u64 = 1 << 30;

/// What is behind one root port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// Bus numbers of the port.
    pub buses: BusNumbers,
    /// Windows of the port.
    pub windows: BridgeWindows,
    /// The BARs of the function in the slot, each with its address.
    pub bars: Vec<(BarInfo, u64)>,
}

/// The plan of the machine's PCI Express hierarchy when the guest starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The address space, with the window for 64-bit BARs that suits.
    pub layout: Layout,
    /// The root ports, by the number of their slots. That of slot *n* is device *n* + 1 on bus 0.
    pub ports: Vec<PortPlan>,
}

/// Device number of a slot's root port on bus 0.
pub fn port_device(slot: u8) -> u8 {
    slot + 1
}

/// The bus behind a slot's root port when the guest starts.
fn boot_bus(slot: u8) -> u8 {
    slot + 1
}

/// Bus, device and function number, when the guest starts, of the function in a slot.
pub fn boot_requester_id(slot: u8) -> u16 {
    u16::from(boot_bus(slot)) << 8
}

impl Topology {
    /// Plans the topology of at least `slots` slots, for functions with these BARs in the first ones.
    ///
    /// The 64-bit window of the host bridge is half of the address space if that has room for the largest GPUs in all slots;
    /// otherwise it is the smallest that has room for these functions, and what is left is shared among the slots.
    ///
    /// # Errors
    ///
    /// [`PciError`] if there are too many functions, a BAR has a size that no BAR can have, or there is no room.
    pub fn plan(layout: &Layout, functions: &[Vec<BarInfo>], slots: usize) -> Result<Self, PciError> {
        if functions.len() > MAX_SLOTS {
            return Err(PciError::TooManyFunctions(functions.len()));
        }
        for (slot, info) in (0..).zip(functions).flat_map(|(slot, bars)| bars.iter().map(move |info| (slot, info))) {
            if !info.size.is_power_of_two() || info.size < 16 {
                return Err(PciError::BarSize { slot, bar: info.bar, size: info.size });
            }
        }
        let slots = functions.len().max(slots).min(MAX_SLOTS);
        let is_high = |info: &BarInfo| info.is_64bit && info.prefetchable;
        let pick = |high: bool| -> Vec<Vec<BarInfo>> {
            let pick = |bars: &Vec<BarInfo>| bars.iter().copied().filter(|info| is_high(info) == high).collect();
            let mut picked: Vec<_> = functions.iter().map(pick).collect();
            picked.resize(slots, Vec::new());
            picked
        };
        let no_room = |bars: &[Vec<BarInfo>], slot: usize, window: &Range<u64>| {
            let largest = bars[slot].iter().max_by_key(|info| info.size);
            let (bar, size) = largest.map_or((0, 0), |info| (info.bar, info.size));
            let window = window.clone();
            PciError::NoRoom { slot: slot as u8, bar, size, window, bits: layout.physical_bits }
        };
        let low = pick(false);
        let low = share_out(&WINDOW_32, &low, SHARE_32, GRANULE).map_err(|slot| no_room(&low, slot, &WINDOW_32))?;
        let high = pick(true);
        let (layout, high) = place_high(layout, &high).map_err(|slot| no_room(&high, slot, &layout.window_64))?;
        let ports = (0..).zip(low).zip(high).map(|((slot, low), high)| port_plan(slot, low, high)).collect();
        Ok(Self { layout, ports })
    }

    /// The last bus number.
    pub fn last_bus(&self) -> u8 {
        self.ports.iter().map(|port| port.buses.subordinate).max().unwrap_or(0)
    }
}

fn port_plan(slot: u8, low: PlacedBlock, high: PlacedBlock) -> PortPlan {
    let bus = boot_bus(slot);
    PortPlan {
        buses: BusNumbers { primary: 0, secondary: bus, subordinate: bus },
        windows: BridgeWindows { memory: low.window, prefetchable: high.window },
        bars: low.bars.into_iter().chain(high.bars).collect(),
    }
}

/// Chooses the 64-bit window of the host bridge, and places blocks in it; the error is a block that fits into none.
fn place_high(layout: &Layout, bars: &[Vec<BarInfo>]) -> Result<(Layout, Vec<PlacedBlock>), usize> {
    for layout in layout.by_half() {
        if let Ok(placed) = fit(&layout.window_64, &blocks(bars, VRAM_MAX)) {
            return Ok((layout, placed));
        }
    }
    let smallest = layout.by_window().find(|layout| fit(&layout.window_64, &blocks(bars, 0)).is_ok());
    let layout = smallest.unwrap_or_else(|| layout.clone());
    let placed = share_out(&layout.window_64, bars, VRAM_MAX, SPARE_64)?;
    Ok((layout, placed))
}

fn blocks(bars: &[Vec<BarInfo>], share: u64) -> Vec<Block> {
    bars.iter().map(|bars| Block { bars: bars.clone(), share }).collect()
}

/// Places blocks in a window of the host bridge, each with the same share if its BARs do not need more: the largest up to
/// `most` with which all fit into the first half, so that there is room for what the guest moves; or if that is less than
/// `spare`, into all of it.
fn share_out(window: &Range<u64>, bars: &[Vec<BarInfo>], most: u64, spare: u64) -> Result<Vec<PlacedBlock>, usize> {
    let half = window.start..window.start + (window.end - window.start) / 2;
    let shares = |least: u64| (least.ilog2()..=most.ilog2()).rev().map(|order| 1 << order);
    let in_half = shares(spare).find_map(|share| fit(&half, &blocks(bars, share)).ok());
    let in_all = || shares(GRANULE).find_map(|share| fit(window, &blocks(bars, share)).ok());
    in_half.or_else(in_all).map_or_else(|| fit(window, &blocks(bars, 0)), Ok)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOW: u64 = 4 << 30;

    fn vram(size: u64) -> BarInfo {
        BarInfo { bar: 2, size, is_64bit: true, prefetchable: true }
    }

    fn registers(size: u64) -> BarInfo {
        BarInfo { bar: 0, size, is_64bit: false, prefetchable: false }
    }

    fn plan(bits: u8, functions: &[&[BarInfo]]) -> Result<Topology, PciError> {
        let functions: Vec<_> = functions.iter().map(|bars| bars.to_vec()).collect();
        Topology::plan(&Layout::new(1 << 30, bits).unwrap(), &functions, MIN_SLOTS)
    }

    fn window(bits: u8, sizes: &[u64]) -> Range<u64> {
        let functions: Vec<_> = sizes.iter().map(|size| vec![vram(*size)]).collect();
        Topology::plan(&Layout::new(1 << 30, bits).unwrap(), &functions, MIN_SLOTS).unwrap().layout.window_64
    }

    #[test]
    fn every_slot_has_room_for_the_largest_gpu() {
        for (bits, window) in [(46, LOW..1 << 45), (44, 1 << 43..1 << 44)] {
            for functions in [&[][..], &[&[vram(16 << 30), registers(512 << 10)][..]; 3]] {
                let topology = plan(bits, functions).unwrap();
                assert_eq!(topology.layout.window_64, window);
                assert_eq!(topology.ports.len(), 8);
                for port in &topology.ports {
                    let BridgeWindows { memory, prefetchable } = &port.windows;
                    assert_eq!((prefetchable.end - prefetchable.start, prefetchable.start % (1 << 40)), (1 << 40, 0));
                    assert_eq!(memory.end - memory.start, SHARE_32);
                }
            }
        }
    }

    #[test]
    fn on_a_small_address_space_what_there_is_is_shared() {
        let shares = |functions: &[&[BarInfo]]| -> Vec<_> {
            let ports = plan(40, functions).unwrap().ports;
            ports.iter().map(|port| (port.windows.prefetchable.end - port.windows.prefetchable.start) >> 30).collect()
        };
        assert_eq!(shares(&[]), [16; 8], "half of half of the address space");
        assert_eq!(shares(&[&[vram(128 << 30)]]), [128, 16, 16, 16, 16, 16, 16, 16]);
        assert_eq!(shares(&[&[vram(256 << 30)]]), [256, 32, 32, 32, 32, 32, 32, 32]);
        assert_eq!(shares(&[&[vram(512 << 30)]]), [512, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn half_of_the_address_space_stays_free_if_it_can() {
        assert_eq!(window(46, &[1 << 40, 1 << 40]), LOW..1 << 45);
        assert_eq!(window(41, &[1 << 40]), 1 << 40..1 << 41);
        assert_eq!(window(40, &[1 << 39, 1 << 38]), LOW..1 << 40);
        assert_eq!(window(40, &[]), LOW..1 << 39);
        assert_eq!(window(43, &[1 << 40; 3]), LOW..1 << 42, "there is room for smaller ones");
    }

    #[test]
    fn ports_have_a_bus_each() {
        let topology = plan(46, &[&[registers(4096)][..]; 31]).unwrap();
        assert_eq!(topology.last_bus(), 31);
        for (port, bus) in topology.ports.iter().zip(1..) {
            assert_eq!(port.buses, BusNumbers { primary: 0, secondary: bus, subordinate: bus });
        }
        assert_eq!((plan(46, &[]).unwrap().last_bus(), boot_requester_id(30)), (8, 0x1f00));
    }

    #[test]
    fn says_what_has_no_room() {
        let error = plan(40, &[&[], &[registers(16), vram(1 << 40)]]).unwrap_err();
        assert!(error.to_string().contains("40-bit") && error.to_string().contains("slot 1"), "{error}");
        assert!(matches!(plan(40, &[&[registers(0)]]), Err(PciError::BarSize { slot: 0, bar: 0, size: 0 })));
        assert!(matches!(plan(40, &[&[], &[registers(48)]]), Err(PciError::BarSize { slot: 1, .. })));
        assert!(matches!(plan(40, &[&[registers(1 << 30)]]), Err(PciError::NoRoom { bar: 0, .. })));
        assert!(matches!(plan(40, &[&[][..]; 32]), Err(PciError::TooManyFunctions(32))));
    }

    proptest! {
        #[test]
        fn windows_are_apart_and_in_those_of_the_host_bridge(
            memory in 1u64..64,
            bits in 38u8..=52,
            functions in prop::collection::vec((21u32..=40, 4u32..=26), 0..=31),
        ) {
            let layout = Layout::new(memory << 30, bits).unwrap();
            let functions: Vec<_> = functions
                .iter()
                .map(|(vram_order, register_order)| vec![vram(1 << vram_order), registers(1 << register_order)])
                .collect();
            let Ok(topology) = Topology::plan(&layout, &functions, MIN_SLOTS) else { return Ok(()) };
            let mut windows = Vec::new();
            for (port, bars) in topology.ports.iter().zip(functions.iter().map(Vec::len).chain([0; MAX_SLOTS])) {
                prop_assert_eq!(port.bars.len(), bars);
                for window in [&port.windows.memory, &port.windows.prefetchable] {
                    prop_assert!(window.is_empty() || topology.layout.is_pci(window));
                    windows.push(window.clone());
                }
                for (info, address) in &port.bars {
                    let window = if info.is_64bit { &port.windows.prefetchable } else { &port.windows.memory };
                    prop_assert!(window.start <= *address && address + info.size <= window.end);
                    prop_assert_eq!(address % info.size, 0);
                    prop_assert_eq!(info.is_64bit, *address >= 1 << 32);
                }
            }
            windows.retain(|window| !window.is_empty());
            windows.sort_by_key(|window| window.start);
            prop_assert!(windows.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which addresses the functions' BARs decode now.
//!
//! The guest may put a BAR anywhere, also onto another one or onto RAM. Outside of the host bridge's windows, and of those of
//! the root port that it is behind, a BAR decodes nothing.
//! Of BARs that overlap the one that was there first wins, and when it leaves, the next takes its place.

use std::ops::Range;
use std::sync::Arc;

use ersatz_device_model::bus::PciFunction;
use ersatz_guest_image::error_chain::chain;

use super::attachment::{Attachment, MemorySlots};
use super::window::BridgeWindows;
use crate::machine::layout::Layout;

/// A BAR that decodes.
struct Decoded {
    /// `None` while it is not reachable, or another BAR is in its place. Dropped before the function: mappings of hardware's
    /// memory keep the hardware in use.
    attachment: Option<Attachment>,
    slot: u8,
    bar: u8,
    range: Range<u64>,
    function: Arc<dyn PciFunction>,
    /// Parts, as offsets in the BAR, that KVM is to serve.
    direct: Vec<Range<u64>>,
    /// The root port forwards accesses to it.
    reachable: bool,
}

/// What an access reaches.
pub struct Target {
    /// The function's slot.
    pub slot: u8,
    /// The function.
    pub function: Arc<dyn PciFunction>,
    /// Index of the BAR.
    pub bar: u8,
    /// Offset in the BAR.
    pub offset: u64,
    /// KVM was to serve this access by itself.
    pub direct: bool,
}

/// All BARs that decode, in the order in which they came.
pub struct Decoder {
    layout: Layout,
    memory_slots: Arc<MemorySlots>,
    /// What the root port of each slot forwards now.
    windows: Vec<BridgeWindows>,
    bars: Vec<Decoded>,
}

impl Decoder {
    /// No BAR decodes, and no root port forwards anything.
    pub fn new(layout: Layout, memory_slots: Arc<MemorySlots>, slots: usize) -> Self {
        Self { layout, memory_slots, windows: vec![BridgeWindows::default(); slots], bars: Vec::new() }
    }

    /// What an access of `length` bytes reaches; `None` if nothing, or if it is only partly in a BAR.
    pub fn find(&self, address: u64, length: usize) -> Option<Target> {
        let end = address.checked_add(length as u64)?;
        let bar = self
            .bars
            .iter()
            .find(|bar| bar.attachment.is_some() && bar.range.contains(&address) && end <= bar.range.end)?;
        let offset = address - bar.range.start;
        Some(Target {
            slot: bar.slot,
            function: Arc::clone(&bar.function),
            bar: bar.bar,
            offset,
            direct: bar.direct.iter().any(|part| part.contains(&offset)),
        })
    }

    /// Has a BAR decode at another address, or nowhere.
    pub fn move_bar(&mut self, slot: u8, function: &Arc<dyn PciFunction>, bar: u8, address: Option<u64>) {
        self.bars.retain(|decoded| decoded.slot != slot || decoded.bar != bar);
        if let Some(decoded) = address.and_then(|address| self.decode(slot, function, bar, address)) {
            self.bars.push(decoded);
        }
        self.attach();
    }

    /// Has no BAR of a slot's function decode any more.
    pub fn remove_function(&mut self, slot: u8) {
        self.bars.retain(|decoded| decoded.slot != slot);
        self.attach();
    }

    /// Has the root port of a slot forward accesses to these addresses, and no others.
    pub fn set_windows(&mut self, slot: u8, windows: BridgeWindows) {
        let Some(known) = self.windows.get_mut(usize::from(slot)) else {
            return;
        };
        if *known == windows {
            return;
        }
        *known = windows;
        for bar in self.bars.iter_mut().filter(|bar| bar.slot == slot) {
            bar.reachable = known.forwards(&bar.range);
            if !bar.reachable {
                bar.attachment = None;
            }
        }
        self.attach();
    }

    /// Has the parts of a BAR that KVM serves be those that its function has now.
    pub fn refresh_bar(&mut self, slot: u8, bar: u8) {
        for decoded in self.bars.iter_mut().filter(|decoded| decoded.slot == slot && decoded.bar == bar) {
            decoded.direct = direct_parts(decoded.function.as_ref(), bar);
            decoded.attachment = None;
        }
        self.attach();
    }

    /// A BAR at an address, not attached yet.
    fn decode(&self, slot: u8, function: &Arc<dyn PciFunction>, bar: u8, address: u64) -> Option<Decoded> {
        let size = function.bars().iter().find(|info| info.bar == bar)?.size;
        let range = address..address.checked_add(size)?;
        if !self.layout.is_pci(&range) {
            log::info!("the guest puts BAR{bar} of PCI slot {slot} at {range:#x?}, outside of the PCI windows");
            return None;
        }
        let direct = direct_parts(function.as_ref(), bar);
        let reachable = self.windows.get(usize::from(slot)).is_some_and(|windows| windows.forwards(&range));
        Some(Decoded { slot, bar, range, function: Arc::clone(function), direct, reachable, attachment: None })
    }

    /// Attaches each BAR that no other one is in the way of.
    fn attach(&mut self) {
        for index in 0..self.bars.len() {
            let Decoded { ref range, ref attachment, reachable, .. } = self.bars[index];
            let (range, attached) = (range.clone(), attachment.is_some());
            let overlaps = |other: &Decoded| other.range.start < range.end && range.start < other.range.end;
            if attached || !reachable || self.bars.iter().any(|other| other.attachment.is_some() && overlaps(other)) {
                continue;
            }
            let decoded = &mut self.bars[index];
            let mut mappings = decoded.function.mappings();
            mappings.retain(|mapping| mapping.bar == decoded.bar);
            let mut doorbells = decoded.function.doorbells();
            doorbells.retain(|doorbell| doorbell.bar == decoded.bar);
            let (attachment, errors) = Attachment::new(&self.memory_slots, &range, &mappings, &doorbells);
            for error in errors {
                let (bar, slot) = (decoded.bar, decoded.slot);
                log::error!("BAR{bar} of PCI slot {slot}: {}", chain(&error));
            }
            decoded.attachment = Some(attachment);
        }
    }
}

/// The parts of a BAR, as offsets in it, that KVM is to serve.
fn direct_parts(function: &dyn PciFunction, bar: u8) -> Vec<Range<u64>> {
    let mappings = function.mappings().into_iter().map(|part| (part.bar, part.offset, part.length));
    let doorbells = function.doorbells().into_iter().map(|part| (part.bar, part.offset, part.width.into()));
    mappings
        .chain(doorbells)
        .filter(|part| part.0 == bar)
        .map(|(_, offset, length)| offset..offset.saturating_add(length))
        .collect()
}

#[cfg(test)]
mod tests {
    use ersatz_device_model::bus::{BarInfo, BarMapping, Doorbell, Effect, MsixMessage};
    use kvm_ioctls::Kvm;
    use proptest::prelude::*;

    use super::*;
    use crate::machine::layout::WINDOW_32;

    /// A function with a register BAR and memory, both without anything behind them.
    struct Bars;

    const SIZES: [u64; 2] = [64 << 10, 4 << 20];

    impl PciFunction for Bars {
        fn config_read(&self, _: u16, _: &mut [u8]) {}

        fn config_write(&self, _: u16, _: &[u8]) -> Vec<Effect> {
            Vec::new()
        }

        fn bar_read(&self, _: u8, _: u64, _: &mut [u8]) {}

        fn bar_write(&self, _: u8, _: u64, _: &[u8]) -> Vec<Effect> {
            Vec::new()
        }

        fn bars(&self) -> Vec<BarInfo> {
            let bar = |bar: u8| BarInfo { bar, size: SIZES[usize::from(bar)], is_64bit: false, prefetchable: false };
            vec![bar(0), bar(1)]
        }

        fn mappings(&self) -> Vec<BarMapping> {
            Vec::new()
        }

        fn doorbells(&self) -> Vec<Doorbell> {
            Vec::new()
        }

        fn msix_vectors(&self) -> u16 {
            0
        }

        fn msix_message(&self, _: u16) -> Option<MsixMessage> {
            None
        }

        fn reset(&self) -> Vec<Effect> {
            Vec::new()
        }
    }

    /// Slots 1 to 4; their root ports forward all that the host bridge does.
    fn decoder() -> Decoder {
        let vm = Kvm::new().expect("these tests need /dev/kvm").create_vm().unwrap();
        let layout = Layout::new(1 << 30, 40).unwrap();
        let windows = BridgeWindows { memory: WINDOW_32, prefetchable: layout.window_64.clone() };
        let mut decoder = Decoder::new(layout, Arc::new(MemorySlots::new(Arc::new(vm), 0, Arc::default())), 5);
        for slot in 1..5 {
            decoder.set_windows(slot, windows.clone());
        }
        decoder
    }

    #[test]
    fn a_bar_decodes_while_its_root_port_forwards_to_it() {
        let function: Arc<dyn PciFunction> = Arc::new(Bars);
        let mut decoder = decoder();
        let address = WINDOW_32.start + (4 << 20);
        decoder.move_bar(1, &function, 1, Some(address));
        let second = Arc::clone(&function);
        decoder.move_bar(2, &second, 1, Some(address));
        let owner = |decoder: &Decoder| decoder.find(address, 4).map(|target| target.slot);
        assert_eq!(owner(&decoder), Some(1));
        let open = |memory| BridgeWindows { memory, prefetchable: 0..0 };
        decoder.set_windows(1, open(address..address + (3 << 20)));
        assert_eq!(owner(&decoder), Some(2), "part of the BAR is not enough");
        decoder.set_windows(1, open(address..address + (4 << 20)));
        assert_eq!(owner(&decoder), Some(2), "the other was there first");
        decoder.set_windows(2, BridgeWindows::default());
        assert_eq!(owner(&decoder), Some(1));
        decoder.set_windows(1, BridgeWindows::default());
        assert_eq!(owner(&decoder), None);
        decoder.move_bar(1, &function, 1, Some(address + (8 << 20)));
        decoder.set_windows(1, open(WINDOW_32));
        assert_eq!(decoder.find(address + (8 << 20), 4).map(|target| target.slot), Some(1), "it moved meanwhile");
        decoder.set_windows(99, open(WINDOW_32)); // no such port
    }

    /// Addresses that are likely to be in each other's way, and ones from everywhere.
    fn address() -> impl Strategy<Value = Option<u64>> {
        let near = (0u64..256).prop_map(|step| Some(WINDOW_32.start + (step << 16)));
        let edge = (0u64..8).prop_map(|step| Some(WINDOW_32.end - (step << 16)));
        prop_oneof![4 => near, 1 => edge, 1 => any::<u64>().prop_map(Some), 1 => Just(None)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn wherever_bars_go_each_address_has_one_owner(
            moves in prop::collection::vec((1u8..5, 0u8..2, address()), 0..40),
            probe: u64,
        ) {
            let function: Arc<dyn PciFunction> = Arc::new(Bars);
            let mut decoder = decoder();
            for (slot, bar, address) in moves {
                decoder.move_bar(slot, &function, bar, address);
                let overlap = |a: &Decoded, b: &Decoded| a.range.start < b.range.end && b.range.start < a.range.end;
                for (index, bar) in decoder.bars.iter().enumerate() {
                    prop_assert!(decoder.layout.is_pci(&bar.range));
                    let rival = decoder.bars.iter().enumerate().any(|(other, rival)| {
                        other != index && rival.attachment.is_some() && overlap(bar, rival)
                    });
                    prop_assert_eq!(bar.attachment.is_some(), !rival, "it is there unless another one is");
                    if bar.attachment.is_some() {
                        let target = decoder.find(bar.range.end - 4, 4).unwrap();
                        prop_assert_eq!((target.slot, target.bar), (bar.slot, bar.bar));
                        prop_assert_eq!(target.offset, SIZES[usize::from(bar.bar)] - 4);
                        prop_assert!(!target.direct);
                        prop_assert!(decoder.find(bar.range.end - 4, 8).is_none(), "an access that leaves the BAR");
                    }
                }
            }
            if let Some(target) = decoder.find(probe, 8) {
                prop_assert!(target.offset + 8 <= SIZES[usize::from(target.bar)]);
            }
            for slot in 1..5 {
                decoder.remove_function(slot);
            }
            prop_assert!(decoder.bars.is_empty());
        }
    }
}

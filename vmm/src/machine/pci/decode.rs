// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which addresses the functions' BARs decode now.
//!
//! The guest may put a BAR anywhere, also onto another one or onto RAM. Outside of the windows a BAR decodes nothing.
//! Of BARs that overlap the one that was there first wins, and when it leaves, the next takes its place.

use std::ops::Range;
use std::sync::Arc;

use ersatz_device_model::bus::PciFunction;

use super::attachment::{Attachment, MemorySlots};
use crate::machine::layout::Layout;

/// A BAR that decodes.
struct Decoded {
    device: u8,
    bar: u8,
    range: Range<u64>,
    function: Arc<dyn PciFunction>,
    /// Parts, as offsets in the BAR, that KVM is to serve.
    direct: Vec<Range<u64>>,
    /// `None` while another BAR is in its place.
    attachment: Option<Attachment>,
}

/// What an access reaches.
pub struct Target {
    /// Number of the function's device.
    pub device: u8,
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
    slots: Arc<MemorySlots>,
    bars: Vec<Decoded>,
}

impl Decoder {
    /// No BAR decodes.
    pub fn new(layout: Layout, slots: Arc<MemorySlots>) -> Self {
        Self { layout, slots, bars: Vec::new() }
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
            device: bar.device,
            function: Arc::clone(&bar.function),
            bar: bar.bar,
            offset,
            direct: bar.direct.iter().any(|part| part.contains(&offset)),
        })
    }

    /// Has a BAR decode at another address, or nowhere.
    pub fn move_bar(&mut self, device: u8, function: &Arc<dyn PciFunction>, bar: u8, address: Option<u64>) {
        self.bars.retain(|decoded| decoded.device != device || decoded.bar != bar);
        if let Some(decoded) = address.and_then(|address| self.decode(device, function, bar, address)) {
            self.bars.push(decoded);
        }
        self.attach();
    }

    /// Has no BAR of a device decode any more.
    pub fn remove_device(&mut self, device: u8) {
        self.bars.retain(|decoded| decoded.device != device);
        self.attach();
    }

    /// A BAR at an address, not attached yet.
    fn decode(&self, device: u8, function: &Arc<dyn PciFunction>, bar: u8, address: u64) -> Option<Decoded> {
        let size = function.bars().iter().find(|info| info.bar == bar)?.size;
        let range = address..address.checked_add(size)?;
        if !self.layout.is_pci(&range) {
            log::info!("the guest puts BAR{bar} of 00:{device:02x}.0 at {range:#x?}, outside of the PCI windows");
            return None;
        }
        let mappings = function.mappings().into_iter().map(|part| (part.bar, part.offset, part.length));
        let doorbells = function.doorbells().into_iter().map(|part| (part.bar, part.offset, part.width.into()));
        let direct = mappings
            .chain(doorbells)
            .filter(|part| part.0 == bar)
            .map(|(_, offset, length)| offset..offset.saturating_add(length))
            .collect();
        Some(Decoded { device, bar, range, function: Arc::clone(function), direct, attachment: None })
    }

    /// Attaches each BAR that no other one is in the way of.
    fn attach(&mut self) {
        for index in 0..self.bars.len() {
            let (range, attached) = (self.bars[index].range.clone(), self.bars[index].attachment.is_some());
            let overlaps = |other: &Decoded| other.range.start < range.end && range.start < other.range.end;
            if attached || self.bars.iter().any(|other| other.attachment.is_some() && overlaps(other)) {
                continue;
            }
            let decoded = &mut self.bars[index];
            let mut mappings = decoded.function.mappings();
            mappings.retain(|mapping| mapping.bar == decoded.bar);
            let mut doorbells = decoded.function.doorbells();
            doorbells.retain(|doorbell| doorbell.bar == decoded.bar);
            let (attachment, errors) = Attachment::new(&self.slots, &range, &mappings, &doorbells);
            for error in errors {
                let (bar, device) = (decoded.bar, decoded.device);
                log::error!("BAR{bar} of 00:{device:02x}.0: {}", crate::machine::error::chain(&error));
            }
            decoded.attachment = Some(attachment);
        }
    }
}

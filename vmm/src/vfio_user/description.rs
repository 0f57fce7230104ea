// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a PCI function looks like in VFIO's terms: regions and interrupts.

use std::fs::File;
use std::sync::Arc;

use ersatz_device_model::bus::{BarMapping, PciFunction};
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_EVENTFD, VFIO_PCI_BAR5_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_ERR_IRQ_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS, VFIO_PCI_REQ_IRQ_INDEX,
    VFIO_REGION_INFO_CAP_SPARSE_MMAP, VFIO_REGION_INFO_FLAG_CAPS, VFIO_REGION_INFO_FLAG_MMAP,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE,
};
use vfio_user::IrqInfo;

/// Size of a PCIe function's config space in bytes.
pub const CONFIG_SPACE_BYTES: u64 = 4096;

/// Size of `struct vfio_region_info`.
const REGION_INFO_BYTES: u32 = 32;
/// Size of the capability that names one area that may be mapped.
const SPARSE_MMAP_BYTES: u32 = 32;

/// What the function looks like; fixed for a session.
#[derive(Debug)]
pub struct Description {
    /// The regions, by index: the BARs, no ROM, config space, no VGA.
    pub regions: Vec<Region>,
    /// The interrupts, by index: MSI-X, and the two by which VFIO reports errors and asks for a device back; neither
    /// INTx nor MSI.
    pub interrupts: Vec<IrqInfo>,
}

/// One region.
#[derive(Debug)]
pub struct Region {
    /// Its index.
    pub index: u32,
    /// Size in bytes; 0 if there is no such region.
    pub size: u64,
    /// The part that the client may map. It maps region offset plus area offset of the one file it gets, so there is
    /// room for one mapping only.
    mapping: Option<BarMapping>,
}

impl Description {
    /// Describes a function as it is now.
    pub fn of(function: &dyn PciFunction) -> Self {
        let (bars, mappings) = (function.bars(), function.mappings());
        let region = |index| {
            let size = match index {
                VFIO_PCI_CONFIG_REGION_INDEX => CONFIG_SPACE_BYTES,
                0..=VFIO_PCI_BAR5_REGION_INDEX => {
                    bars.iter().find(|bar| u32::from(bar.bar) == index).map_or(0, |bar| bar.size)
                }
                _ => 0,
            };
            let of_this = |mapping: &&BarMapping| {
                u32::from(mapping.bar) == index && size != 0 && mapping.file_offset >= mapping.offset
            };
            Region { index, size, mapping: mappings.iter().find(of_this).cloned() }
        };
        let interrupt = |index| {
            let count = match index {
                VFIO_PCI_MSIX_IRQ_INDEX => u32::from(function.msix_vectors()),
                VFIO_PCI_ERR_IRQ_INDEX | VFIO_PCI_REQ_IRQ_INDEX => 1,
                _ => 0,
            };
            IrqInfo { index, flags: if count > 0 { VFIO_IRQ_INFO_EVENTFD } else { 0 }, count }
        };
        Self {
            regions: (0..VFIO_PCI_NUM_REGIONS).map(region).collect(),
            interrupts: (0..VFIO_PCI_NUM_IRQS).map(interrupt).collect(),
        }
    }
}

impl Region {
    /// The file of the part that may be mapped.
    pub fn file(&self) -> Option<Arc<File>> {
        self.mapping.as_ref().map(|mapping| mapping.file.clone())
    }

    /// The body of the reply to GET_REGION_INFO for a client that has `argsz` bytes of room, and whether it says what may be
    /// mapped, so that the file must come along. (Clients look at the file only if there is a list of areas.)
    pub fn encode(&self, argsz: u32) -> (Vec<u8>, bool) {
        let mut flags = if self.size > 0 { VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE } else { 0 };
        let (mut size, mut capability_offset, mut file_offset) = (REGION_INFO_BYTES, 0, 0);
        if let Some(mapping) = &self.mapping {
            flags |= VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS;
            size += SPARSE_MMAP_BYTES;
            capability_offset = REGION_INFO_BYTES;
            file_offset = mapping.file_offset - mapping.offset;
        }
        let mut bytes = Vec::with_capacity(size as usize);
        for word in [size, flags, self.index, capability_offset] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(self.size.to_ne_bytes());
        bytes.extend(file_offset.to_ne_bytes());
        match &self.mapping {
            Some(mapping) if argsz >= size => {
                // Capability and version 1, no next one; one area, reserved; the area.
                for word in [VFIO_REGION_INFO_CAP_SPARSE_MMAP | 1 << 16, 0, 1, 0] {
                    bytes.extend(word.to_ne_bytes());
                }
                bytes.extend(mapping.offset.to_ne_bytes());
                bytes.extend(mapping.length.to_ne_bytes());
                (bytes, true)
            }
            _ => (bytes, false),
        }
    }
}

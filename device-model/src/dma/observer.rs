// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Observers of the memory that a device can reach: the trace, or another IOMMU that maps the same memory.

use std::sync::Arc;

use vm_memory::{FileOffset, MmapRegion};

/// What the device may do with a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapAccess {
    /// Only reads.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// A region of guest memory that is mapped for DMA.
#[derive(Clone, Copy, Debug)]
pub struct MappedRegion<'a> {
    /// First bus address.
    pub address: u64,
    /// What the device may do with it.
    pub access: MapAccess,
    /// The memory behind it, as this process has mapped it.
    pub memory: &'a Arc<MmapRegion>,
}

impl<'a> MappedRegion<'a> {
    /// Number of bytes.
    pub fn length(&self) -> u64 {
        self.memory.size() as u64
    }

    /// The file behind the memory and where in it the region begins, if there is one.
    pub fn file(&self) -> Option<&'a FileOffset> {
        self.memory.file_offset()
    }
}

/// An observer of the maps of a [`DmaSpace`](super::DmaSpace).
///
/// Called with the maps locked, so that observers see every change, in its order; must not call into the space, nor into a
/// device that uses it.
pub trait MapObserver: Send + Sync {
    /// A region is mapped: it was there when the observer was added, or the device can reach it from when this has returned.
    fn mapped(&self, region: &MappedRegion<'_>);

    /// `length` bytes from bus address `address` on are unmapped; `regions` are those that were there. No access of the device to
    /// them is under way or will begin. Their memory stays mapped in this process until this has returned.
    fn unmapped(&self, address: u64, length: u64, regions: &[MappedRegion<'_>]);
}

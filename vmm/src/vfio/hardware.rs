// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a function needs of an opened device.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

/// A part of a device that is read and written by offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// A BAR, by its index.
    Bar(u8),
    /// Config space.
    Config,
}

/// How a device sends messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// MSI.
    Msi,
    /// MSI-X.
    Msix,
}

/// Part of a BAR that can be mapped.
#[derive(Clone, Debug)]
pub struct MappableArea {
    /// Index of the BAR.
    pub bar: u8,
    /// Offset in the BAR; whole pages.
    pub range: Range<u64>,
    /// What to map.
    pub file: Arc<File>,
    /// Where in it the area is.
    pub file_offset: u64,
}

/// An opened device.
pub trait Hardware: Send + Sync {
    /// Reads a region. Bytes that cannot be read stay as they are.
    fn read(&self, region: Region, offset: u64, data: &mut [u8]);

    /// Writes a region. Bytes that cannot be written are dropped.
    fn write(&self, region: Region, offset: u64, data: &[u8]);

    /// Bytes of a region; 0 if the device does not have it.
    fn size(&self, region: Region) -> u64;

    /// The parts of its BARs that can be mapped, those with an MSI-X table included.
    fn mappable(&self) -> Vec<MappableArea>;

    /// Has the device signal `events`, one per vector from the first on, instead of sending messages.
    fn connect(&self, kind: MessageKind, events: &[&EventFd]);

    /// Ends that.
    fn disconnect(&self, kind: MessageKind);

    /// Resets the device.
    fn reset(&self);
}

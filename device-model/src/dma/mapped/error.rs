// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why maps are refused.

use std::io;

use thiserror::Error;
use vm_memory::mmap::MmapRegionError;

use super::{MAP_ALIGNMENT, MAX_MAPS};

/// Why the maps were not changed.
#[derive(Debug, Error)]
pub enum MapError {
    /// Nothing to map.
    #[error("a DMA map at {0:#x} has no length")]
    Empty(u64),
    /// A number is not a multiple of [`MAP_ALIGNMENT`].
    #[error("{what} {value:#x} of a DMA map is not a multiple of {MAP_ALIGNMENT}")]
    Unaligned {
        /// Which number.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// The range leaves the 64-bit address space or what this process can map.
    #[error("a DMA map of {length:#x} bytes at {address:#x} is too large")]
    TooLarge {
        /// First bus address.
        address: u64,
        /// Length in bytes.
        length: u64,
    },
    /// Part of the range is mapped.
    #[error("a DMA map of {length:#x} bytes at {address:#x} overlaps the one at {other:#x}; unmap that one first")]
    Overlap {
        /// First bus address.
        address: u64,
        /// Length in bytes.
        length: u64,
        /// First bus address of the map that is there.
        other: u64,
    },
    /// The file ends before the map would.
    #[error("a DMA map needs {needed:#x} bytes of a file of {size:#x}")]
    BeyondFile {
        /// End of the map in the file.
        needed: u64,
        /// Size of the file.
        size: u64,
    },
    /// The descriptor is of something that has no size of its own.
    #[error("a DMA map at {0:#x} is not backed by a plain file or memfd")]
    NotAFile(u64),
    /// [`MAX_MAPS`] is reached.
    #[error("there are {MAX_MAPS} DMA maps already")]
    TooMany,
    /// The range to unmap covers a map in part.
    #[error("unmapping {length:#x} bytes at {address:#x} would cut the map at {other:#x} in two")]
    Partial {
        /// First bus address to unmap.
        address: u64,
        /// Length in bytes.
        length: u64,
        /// First bus address of the map that would be cut.
        other: u64,
    },
    /// The file's size could not be read.
    #[error("cannot read the size of the file behind a DMA map")]
    Stat(#[source] io::Error),
    /// `mmap` refused.
    #[error("cannot map {length:#x} bytes for DMA at {address:#x}")]
    Mmap {
        /// First bus address.
        address: u64,
        /// Length in bytes.
        length: u64,
        /// What `mmap` said.
        #[source]
        source: MmapRegionError,
    },
}

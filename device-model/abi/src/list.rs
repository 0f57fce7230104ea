// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! The lists that the commands of a copy engine point to: scatter lists of pages anywhere.
//!
//! A list is an array of four-word entries in guest memory; entries of any lengths may be mixed.

pub use super::location::{Aperture, Location};

/// Size of a list entry in bytes, and the alignment of a list.
pub const LIST_ENTRY_BYTES: u64 = 32;
/// Most entries one list may have.
pub const MAX_LIST_ENTRIES: u32 = 65_536;
/// Most bytes one list entry may cover: a PMD-sized folio.
pub const MAX_ENTRY_BYTES: u32 = 2 << 20;
/// Addresses and lengths in a list entry are multiples of this many bytes.
pub const ENTRY_ALIGNMENT: u64 = 8;

/// A list in guest memory: 1 to [`MAX_LIST_ENTRIES`] entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    /// Bus address, a multiple of [`LIST_ENTRY_BYTES`].
    pub address: u64,
    /// Number of entries.
    pub count: u32,
}

/// Why a list cannot be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListError {
    /// The count is zero or above [`MAX_LIST_ENTRIES`].
    Count,
    /// The list is not aligned, or would wrap around the end of the address space.
    Address,
}

impl List {
    /// The list with this address and count.
    ///
    /// # Errors
    ///
    /// Whatever [`ListError`] lists.
    pub const fn new(address: u64, count: u64) -> Result<Self, ListError> {
        if count == 0 || count > MAX_LIST_ENTRIES as u64 {
            return Err(ListError::Count);
        }
        if address % LIST_ENTRY_BYTES != 0 || address.checked_add(count * LIST_ENTRY_BYTES).is_none() {
            return Err(ListError::Address);
        }
        Ok(Self { address, count: count as u32 })
    }
}

bitfield! {
    /// Word 2 of a list entry.
    pub struct EntryShape(u64) {
        /// Length in bytes.
        length / with_length: 31..=0 as field;
        /// [`Aperture`] of the source.
        raw_source / with_raw_source: 35..=32 as field;
        /// [`Aperture`] of the destination.
        raw_destination / with_raw_destination: 39..=36 as field;
        /// Which peer the source is in; zero unless its aperture is [`Aperture::Peer`].
        source_peer / with_source_peer: 43..=40 as field;
        /// Which peer the destination is in; zero unless its aperture is [`Aperture::Peer`].
        destination_peer / with_destination_peer: 47..=44 as field;
    }
}

/// One entry of a list: words `source`, `destination`, shape, `tag`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// Where to read; ignored, but still valid, for [`Opcode::Fill`](super::command::Opcode::Fill).
    pub source: Location,
    /// Where to write.
    pub destination: Location,
    /// How many bytes: 1 to [`MAX_ENTRY_BYTES`], a multiple of [`ENTRY_ALIGNMENT`].
    pub length: u32,
    /// The driver's own number for this entry, for the trace; by custom the virtual address of the page.
    pub tag: u64,
}

/// Why four words are not a list entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// A reserved bit is set.
    Reserved,
    /// An aperture is not a known number, or the number of the peer is too large.
    Aperture,
    /// An address or the length is not a multiple of [`ENTRY_ALIGNMENT`].
    Alignment,
    /// The length is zero or above [`MAX_ENTRY_BYTES`], or an address would wrap around.
    Length,
}

impl ListEntry {
    /// The four words that stand for this entry (to be stored little-endian).
    pub const fn encode(self) -> [u64; 4] {
        let shape = EntryShape(0)
            .with_length(self.length as u64)
            .with_raw_source(self.source.aperture as u64)
            .with_raw_destination(self.destination.aperture as u64)
            .with_source_peer(self.source.peer as u64)
            .with_destination_peer(self.destination.peer as u64);
        [self.source.address, self.destination.address, shape.0, self.tag]
    }

    /// The entry that these words stand for.
    ///
    /// # Errors
    ///
    /// Whatever [`EntryError`] lists. Whether the addresses lead anywhere is for the device to find out.
    #[inline]
    pub const fn decode(words: &[u64; 4]) -> Result<Self, EntryError> {
        let shape = EntryShape(words[2]);
        if shape.0 & EntryShape::RESERVED != 0 {
            return Err(EntryError::Reserved);
        }
        let (Some(source), Some(destination)) = (
            Location::from_raw(shape.raw_source(), shape.source_peer(), words[0]),
            Location::from_raw(shape.raw_destination(), shape.destination_peer(), words[1]),
        ) else {
            return Err(EntryError::Aperture);
        };
        if (words[0] | words[1] | shape.length()) % ENTRY_ALIGNMENT != 0 {
            return Err(EntryError::Alignment);
        }
        let length = shape.length();
        if length == 0
            || length > MAX_ENTRY_BYTES as u64
            || words[0].checked_add(length).is_none()
            || words[1].checked_add(length).is_none()
        {
            return Err(EntryError::Length);
        }
        Ok(Self { source, destination, length: length as u32, tag: words[3] })
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The payload of a record: where the places of an event's fields are.

use super::kind::Kind;

/// Channel or engine of an event that belongs to none.
pub const NONE: u8 = 0xff;

/// The payload of a record as it stands in the file, understood or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// A [`Kind`], unless a newer writer knows more kinds.
    pub kind: u8,
    /// Depends on the kind.
    pub detail: u8,
    /// Depend on the kind.
    pub flags: u8,
    /// Why the driver asked for this.
    pub cause: u8,
    /// How it went: an `ersatz_abi::error::ErrorCode`, or why a notification was lost.
    pub status: u8,
    /// The channel, or [`NONE`].
    pub channel: u8,
    /// The engine, or [`NONE`].
    pub engine: u8,
    /// The device.
    pub device: u8,
    /// The address, or the source.
    pub address: u64,
    /// The destination, where there are two.
    pub second: u64,
    /// Length in bytes, or a count.
    pub length: u64,
    /// Fence value, fault number, vector, or whatever identifies.
    pub id: u64,
    /// The driver's own number: a tag, or the address space.
    pub tag: u64,
}

impl Fields {
    /// All zero, but for the kind and for "no channel, no engine".
    #[inline]
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind: kind.number(),
            detail: 0,
            flags: 0,
            cause: 0,
            status: 0,
            channel: NONE,
            engine: NONE,
            device: 0,
            address: 0,
            second: 0,
            length: 0,
            id: 0,
            tag: 0,
        }
    }
}

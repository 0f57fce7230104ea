// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The first page of a trace log: what wrote it, and how far it got.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic: `ERSZTRC` and a zero byte |
//! | 8 | 4 | format version ([`VERSION`]) |
//! | 12 | 4 | size of this header ([`HEADER_BYTES`]) |
//! | 16 | 4 | size of a record (64) |
//! | 20 | 4 | device number |
//! | 24 | 8 | capacity in records |
//! | 32 | 8 | size of VRAM in bytes |
//! | 40 | 4 | channels |
//! | 44 | 4 | copy engines |
//! | 48 | 8 | time of day, in nanoseconds since 1970 UTC, at which the device clock was zero |
//! | 56 | 4 | process id of the writer |
//! | 60 | 4 | ABI version of the device |
//! | 128 | 8 | slots claimed |
//! | 192 | 8 | events dropped for want of a slot |
//! | 256 | 8 | 1 once the writer has closed the log in good order |
//!
//! The three words from 128 on change while the log is written, each on a cache line of its own.

use thiserror::Error;

use super::record::RECORD_BYTES;

/// The first bytes of every trace log.
pub const MAGIC: [u8; 8] = *b"ERSZTRC\0";
/// Version of the format; rises when an old reader would misread.
pub const VERSION: u32 = 1;
/// Size of the header in bytes.
pub const HEADER_BYTES: usize = 4096;
/// Most records a log may have room for: 256 GiB of them.
pub const MAX_CAPACITY: u64 = 1 << 32;

/// Offset of the number of slots claimed.
pub(super) const CLAIMED: usize = 128;
/// Offset of the number of events dropped.
pub(super) const DROPPED: usize = 192;
/// Offset of the word that says the log was closed.
pub(super) const CLOSED: usize = 256;

/// Which device a log belongs to: the part of the header that never changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Number of the device on its machine.
    pub device: u8,
    /// Size of VRAM in bytes.
    pub vram: u64,
    /// Number of channels.
    pub channels: u32,
    /// Number of copy engines.
    pub copy_engines: u32,
}

/// The header of a log, as it was when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The device.
    pub identity: Identity,
    /// Room in the log, in records.
    pub capacity: u64,
    /// Time of day in nanoseconds since 1970 UTC at which the device clock was zero.
    pub epoch: u64,
    /// Process id of the writer.
    pub process: u32,
    /// ABI version of the device.
    pub abi_version: u32,
    /// Slots claimed: events that happened.
    pub claimed: u64,
    /// Events that found no slot.
    pub dropped: u64,
    /// Whether the writer closed the log in good order.
    pub closed: bool,
}

/// Why a page is not the header of a trace log that this version reads.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The magic is missing.
    #[error("it does not begin as a trace log does (is it one? `ersatz run --trace FILE` writes them)")]
    Magic,
    /// Another version of the format.
    #[error("it has version {0} of the format and this tool reads version {VERSION}; use the tool that wrote it")]
    Version(u32),
    /// Sizes that no writer of this version uses.
    #[error(
        "its header says {header} bytes of header and {record} bytes a record, not {HEADER_BYTES} and {RECORD_BYTES}: it is damaged"
    )]
    Layout {
        /// Size of the header.
        header: u32,
        /// Size of a record.
        record: u32,
    },
    /// A capacity beyond [`MAX_CAPACITY`], or none.
    #[error("its header says it has room for {0} records, which no writer makes: it is damaged")]
    Capacity(u64),
}

fn u32_at(page: &[u8; HEADER_BYTES], offset: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&page[offset..offset + 4]);
    u32::from_le_bytes(bytes)
}

fn u64_at(page: &[u8; HEADER_BYTES], offset: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&page[offset..offset + 8]);
    u64::from_le_bytes(bytes)
}

impl Header {
    /// How many events have a slot in the log.
    pub const fn kept(&self) -> u64 {
        let kept = self.claimed.saturating_sub(self.dropped);
        if kept < self.capacity { kept } else { self.capacity }
    }

    /// The page that stands for this header.
    pub fn encode(&self) -> Box<[u8; HEADER_BYTES]> {
        let mut page = Box::new([0; HEADER_BYTES]);
        let mut put = |offset: usize, bytes: &[u8]| page[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &(HEADER_BYTES as u32).to_le_bytes());
        put(16, &(RECORD_BYTES as u32).to_le_bytes());
        put(20, &u32::from(self.identity.device).to_le_bytes());
        put(24, &self.capacity.to_le_bytes());
        put(32, &self.identity.vram.to_le_bytes());
        put(40, &self.identity.channels.to_le_bytes());
        put(44, &self.identity.copy_engines.to_le_bytes());
        put(48, &self.epoch.to_le_bytes());
        put(56, &self.process.to_le_bytes());
        put(60, &self.abi_version.to_le_bytes());
        put(CLAIMED, &self.claimed.to_le_bytes());
        put(DROPPED, &self.dropped.to_le_bytes());
        put(CLOSED, &u64::from(self.closed).to_le_bytes());
        page
    }

    /// The header that this page stands for.
    ///
    /// # Errors
    ///
    /// Whatever [`HeaderError`] lists; nothing in the page is trusted.
    pub fn decode(page: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        if page[..8] != MAGIC {
            return Err(HeaderError::Magic);
        }
        let version = u32_at(page, 8);
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let (header, record) = (u32_at(page, 12), u32_at(page, 16));
        if header != HEADER_BYTES as u32 || record != RECORD_BYTES as u32 {
            return Err(HeaderError::Layout { header, record });
        }
        let capacity = u64_at(page, 24);
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(HeaderError::Capacity(capacity));
        }
        Ok(Self {
            identity: Identity {
                // The records say it again; a number that is no device's is shown as the largest.
                device: u8::try_from(u32_at(page, 20)).unwrap_or(u8::MAX),
                vram: u64_at(page, 32),
                channels: u32_at(page, 40),
                copy_engines: u32_at(page, 44),
            },
            capacity,
            epoch: u64_at(page, 48),
            process: u32_at(page, 56),
            abi_version: u32_at(page, 60),
            claimed: u64_at(page, CLAIMED),
            dropped: u64_at(page, DROPPED),
            closed: u64_at(page, CLOSED) == 1,
        })
    }
}

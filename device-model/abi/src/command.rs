// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! The commands of a channel's ring, and the lists they point to.
//!
//! A command is eight 64-bit words. Most name a *list* in guest memory: `count` entries of four words, each one
//! piece of work of at most [`MAX_ENTRY_BYTES`]. Encoding and decoding are here, once, for both sides.
//!
//! | word | bits | meaning |
//! |---|---|---|
//! | 0 | 7:0 | opcode ([`Opcode`]) |
//! | 0 | 8 | write the fence value when done |
//! | 0 | 9 | raise the channel's interrupt when done |
//! | 0 | 23:16 | cause ([`Cause`]): why the driver wants this; goes to trace and counters, changes nothing |
//! | 0 | 63:32 | count: entries of the list |
//! | 1 | 63:0 | fence value; zero unless bit 8 is set |
//! | 2 | 63:0 | bus address of the list, 32-byte aligned |
//! | 3 | 63:0 | fill pattern (`Fill`) |
//! | 4 | 63:0 | tag: the driver's own number for this command, for the trace |
//!
//! All other bits are reserved and must be zero.

/// Size of a command in bytes.
pub const COMMAND_BYTES: u64 = 64;
/// Size of a list entry in bytes, and the alignment of a list.
pub const LIST_ENTRY_BYTES: u64 = 32;
/// Most entries one list may have.
pub const MAX_LIST_ENTRIES: u32 = 65_536;
/// Most bytes one list entry may cover: a PMD-sized folio.
pub const MAX_ENTRY_BYTES: u32 = 2 << 20;
/// Addresses and lengths in a list entry are multiples of this many bytes.
pub const ENTRY_ALIGNMENT: u64 = 8;

closed_enum! {
    /// What a command does.
    pub enum Opcode(u8) {
        /// Nothing, but its fence and interrupt.
        Nop = 0 => "nop",
        /// For each entry: copies from source to destination. The two must not overlap.
        Copy = 1 => "copy",
        /// For each entry: fills the destination with the command's 64-bit pattern; there is no source.
        Fill = 2 => "fill",
        /// For each entry: writes the CRC-32C of the source, as a 64-bit number, to the destination.
        Digest = 3 => "digest",
    }
}

closed_enum! {
    /// Why the driver sent a command. Accounting only.
    pub enum Cause(u8) {
        /// None of the others.
        Other = 0 => "other",
        /// User space asked for memory to move to the device.
        MigrateToDevice = 1 => "migrate-to-device",
        /// User space asked for memory to move back to the system.
        MigrateToSystem = 2 => "migrate-to-system",
        /// A CPU touched a page that was on the device.
        CpuFault = 3 => "cpu-fault",
        /// VRAM was needed for something else.
        Evict = 4 => "evict",
        /// The driver is leaving the device.
        Unbind = 5 => "unbind",
        /// A test looks at memory through the device.
        Inspect = 6 => "inspect",
    }
}

closed_enum! {
    /// Which memory an address in a list entry is in.
    pub enum Aperture(u8) {
        /// The device's own: an offset in VRAM.
        Vram = 0 => "vram",
        /// The system's: a bus address.
        System = 1 => "system",
    }
}

bitfield! {
    /// Word 0 of a command.
    pub struct Header(u64) {
        /// An [`Opcode`].
        raw_opcode / with_raw_opcode: 7..=0 as field;
        /// Write the fence value when done.
        fence / with_fence: 8..=8 as flag;
        /// Raise the channel's interrupt when done.
        interrupt / with_interrupt: 9..=9 as flag;
        /// A [`Cause`].
        raw_cause / with_raw_cause: 23..=16 as field;
        /// Entries of the list.
        count / with_count: 63..=32 as field;
    }
}

/// One decoded command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// What to do.
    pub operation: Operation,
    /// Why.
    pub cause: Cause,
    /// The value to write to the control block's fence when done; must be above the one there.
    pub fence: Option<u64>,
    /// Whether to raise the channel's interrupt when done.
    pub interrupt: bool,
    /// The driver's own number for this command.
    pub tag: u64,
}

/// The operation of a [`Command`], with what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Opcode::Nop`].
    Nop,
    /// [`Opcode::Copy`].
    Copy(List),
    /// [`Opcode::Fill`].
    Fill(List, u64),
    /// [`Opcode::Digest`].
    Digest(List),
}

/// A list in guest memory: 1 to [`MAX_LIST_ENTRIES`] entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    /// Bus address, a multiple of [`LIST_ENTRY_BYTES`].
    pub address: u64,
    /// Number of entries.
    pub count: u32,
}

/// Why eight words are not a command. The device reports these as
/// [`ErrorCode`](super::error::ErrorCode)s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// Opcode or cause is no known number.
    Unknown,
    /// A reserved bit is set, or a word this opcode does not use is not zero.
    Reserved,
    /// The count is zero or above [`MAX_LIST_ENTRIES`].
    Count,
    /// The list is not aligned, or would wrap around the end of the address space.
    ListAddress,
}

impl Operation {
    /// The opcode that stands for this operation.
    pub const fn opcode(self) -> Opcode {
        match self {
            Self::Nop => Opcode::Nop,
            Self::Copy(_) => Opcode::Copy,
            Self::Fill(..) => Opcode::Fill,
            Self::Digest(_) => Opcode::Digest,
        }
    }
}

impl Command {
    /// The eight words that stand for this command (to be stored little-endian).
    pub const fn encode(self) -> [u64; 8] {
        let (list, pattern) = match self.operation {
            Operation::Nop => (List { address: 0, count: 0 }, 0),
            Operation::Copy(list) | Operation::Digest(list) => (list, 0),
            Operation::Fill(list, pattern) => (list, pattern),
        };
        let header = Header(0)
            .with_raw_opcode(self.operation.opcode() as u64)
            .with_fence(self.fence.is_some())
            .with_interrupt(self.interrupt)
            .with_raw_cause(self.cause as u64)
            .with_count(list.count as u64);
        let fence = match self.fence {
            Some(value) => value,
            None => 0,
        };
        [header.0, fence, list.address, pattern, self.tag, 0, 0, 0]
    }

    /// The command that these words stand for.
    ///
    /// # Errors
    ///
    /// Whatever [`CommandError`] lists; nothing about the words is trusted.
    pub const fn decode(words: &[u64; 8]) -> Result<Self, CommandError> {
        let header = Header(words[0]);
        if header.0 & Header::RESERVED != 0 || (words[5] | words[6] | words[7]) != 0 {
            return Err(CommandError::Reserved);
        }
        let (Some(opcode), Some(cause)) =
            (Opcode::from_raw(header.raw_opcode() as u8), Cause::from_raw(header.raw_cause() as u8))
        else {
            return Err(CommandError::Unknown);
        };
        if !header.fence() && words[1] != 0 {
            return Err(CommandError::Reserved);
        }
        if !matches!(opcode, Opcode::Fill) && words[3] != 0 {
            return Err(CommandError::Reserved);
        }
        let operation = if matches!(opcode, Opcode::Nop) {
            if header.count() != 0 || words[2] != 0 {
                return Err(CommandError::Reserved);
            }
            Operation::Nop
        } else {
            let list = match List::new(words[2], header.count()) {
                Ok(list) => list,
                Err(error) => return Err(error),
            };
            match opcode {
                Opcode::Fill => Operation::Fill(list, words[3]),
                Opcode::Digest => Operation::Digest(list),
                _ => Operation::Copy(list),
            }
        };
        let fence = if header.fence() { Some(words[1]) } else { None };
        Ok(Self { operation, cause, fence, interrupt: header.interrupt(), tag: words[4] })
    }
}

impl List {
    const fn new(address: u64, count: u64) -> Result<Self, CommandError> {
        if count == 0 || count > MAX_LIST_ENTRIES as u64 {
            return Err(CommandError::Count);
        }
        if address % LIST_ENTRY_BYTES != 0 || address.checked_add(count * LIST_ENTRY_BYTES).is_none() {
            return Err(CommandError::ListAddress);
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
    }
}

/// An address in an aperture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Which memory.
    pub aperture: Aperture,
    /// Where in it: bytes.
    pub address: u64,
}

/// One entry of a list: words `source`, `destination`, shape, `tag`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// Where to read; ignored, but still valid, for [`Opcode::Fill`].
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
    /// An aperture is no known number.
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
            .with_raw_destination(self.destination.aperture as u64);
        [self.source.address, self.destination.address, shape.0, self.tag]
    }

    /// The entry that these words stand for.
    ///
    /// # Errors
    ///
    /// Whatever [`EntryError`] lists. Whether the addresses lead anywhere is for the device to find out.
    pub const fn decode(words: &[u64; 4]) -> Result<Self, EntryError> {
        let shape = EntryShape(words[2]);
        if shape.0 & EntryShape::RESERVED != 0 {
            return Err(EntryError::Reserved);
        }
        let (Some(source), Some(destination)) =
            (Aperture::from_raw(shape.raw_source() as u8), Aperture::from_raw(shape.raw_destination() as u8))
        else {
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
        Ok(Self {
            source: Location { aperture: source, address: words[0] },
            destination: Location { aperture: destination, address: words[1] },
            length: length as u32,
            tag: words[3],
        })
    }
}

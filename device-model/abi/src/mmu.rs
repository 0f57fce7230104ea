// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! Address spaces: page tables, and what invalidates the translations that engines cache of them.
//!
//! A table is 512 eight-byte entries, 4 KiB aligned, in VRAM or in system memory. The level of a table counts from the pages:
//! an entry of level 0 maps 4 KiB, one of level 1 maps 2 MiB. A 48-bit address space has its root at level 3, a
//! 57-bit one at level 4. A 64 KiB page is sixteen level-0 entries that all say the same.

pub use super::location::MAX_PEERS;
use super::location::{Aperture, Location};

/// Number of address spaces.
pub const ADDRESS_SPACES: u32 = 256;
/// Entries of a table.
pub const TABLE_ENTRIES: u64 = 512;
/// Size of a table in bytes, and its alignment.
pub const TABLE_BYTES: u64 = 4096;
/// Level of the root table of a 48-bit address space.
pub const ROOT_LEVEL_48: u8 = 3;
/// Level of the root table of a 57-bit address space.
pub const ROOT_LEVEL_57: u8 = 4;

closed_enum! {
    /// The sizes of pages.
    pub enum PageSize(u8) {
        /// 4 KiB: one entry of level 0.
        Small = 0 => "4K",
        /// 64 KiB: sixteen entries of level 0 that say the same.
        Big = 1 => "64K",
        /// 2 MiB: an entry of level 1.
        Huge = 2 => "2M",
    }
}

impl PageSize {
    /// Base-2 logarithm of the size in bytes.
    pub const fn order(self) -> u32 {
        match self {
            Self::Small => 12,
            Self::Big => 16,
            Self::Huge => 21,
        }
    }

    /// Size in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.order()
    }
}

bitfield! {
    /// A page table entry, a directory entry, or the root of an address space. With `valid` clear the other bits mean nothing.
    pub struct PageTableEntry(u64) {
        /// The entry leads somewhere.
        valid / with_valid: 0..=0 as flag;
        /// Pages: may be written.
        write / with_write: 1..=1 as flag;
        /// Pages: may be the target of atomics; these need `write`, too.
        atomic / with_atomic: 2..=2 as flag;
        /// It maps a page; clear: it points to the table of the next level.
        leaf / with_leaf: 3..=3 as flag;
        /// Pages, level 0: it is one of the sixteen that map 64 KiB.
        big / with_big: 4..=4 as flag;
        /// Pages: set by the device when it caches a translation, if the address space asks for it.
        accessed / with_accessed: 5..=5 as flag;
        /// Pages: set by the device before it first writes through a translation, if the address space asks for it.
        dirty / with_dirty: 6..=6 as flag;
        /// [`Aperture`] of the page or table; a table is in VRAM or in system memory.
        raw_aperture / with_raw_aperture: 9..=8 as field;
        /// Address of the page or table, divided by 4 KiB; aligned to the size of the page.
        frame / with_frame: 51..=12 as field;
        /// Pages: which peer they are in; zero unless the aperture is [`Aperture::Peer`].
        peer / with_peer: 54..=52 as field;
    }
}

/// A page, as an entry maps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where it begins.
    pub location: Location,
    /// How large it is.
    pub size: PageSize,
    /// It may be written.
    pub write: bool,
    /// It may be the target of atomics.
    pub atomic: bool,
}

/// What an entry says to a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is mapped here.
    NotPresent,
    /// Go on in the table there, one level down.
    Table(Location),
    /// This is the page.
    Page(Page),
}

/// Why an entry says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// A reserved bit, a page at a level that has none, no page at level 0, or a misaligned page.
    Malformed,
    /// An aperture that this entry cannot have, or a peer there cannot be.
    Aperture,
}

impl PageTableEntry {
    /// The entry that points to a table.
    pub const fn table(location: Location) -> Self {
        Self(0).with_valid(true).with_place(location)
    }

    /// The entry (each of sixteen for a 64 KiB page) that maps a page.
    pub const fn page(page: Page) -> Self {
        Self(0)
            .with_valid(true)
            .with_leaf(true)
            .with_big(matches!(page.size, PageSize::Big))
            .with_write(page.write)
            .with_atomic(page.atomic)
            .with_place(page.location)
    }

    const fn with_place(self, location: Location) -> Self {
        self.with_raw_aperture(location.aperture as u64)
            .with_frame(location.address >> 12)
            .with_peer(location.peer as u64)
    }

    /// What this entry says in a table of `level`. A root is an entry of the level above its table.
    ///
    /// # Errors
    ///
    /// Whatever [`TableError`] lists.
    pub const fn decode(self, level: u8) -> Result<Step, TableError> {
        if !self.valid() {
            return Ok(Step::NotPresent);
        }
        if self.0 & Self::RESERVED != 0 {
            return Err(TableError::Malformed);
        }
        let address = self.frame() << 12;
        let location = match Aperture::from_raw(self.raw_aperture() as u8) {
            Some(Aperture::Vram) if self.peer() == 0 => Location::vram(address),
            Some(Aperture::System) if self.peer() == 0 => Location::system(address),
            Some(Aperture::Peer) if self.leaf() => Location::peer(self.peer() as u8, address),
            _ => return Err(TableError::Aperture),
        };
        if !self.leaf() {
            let page_bits = self.write() || self.atomic() || self.big() || self.accessed() || self.dirty();
            return if level == 0 || page_bits { Err(TableError::Malformed) } else { Ok(Step::Table(location)) };
        }
        let size = match (level, self.big()) {
            (0, false) => PageSize::Small,
            (0, true) => PageSize::Big,
            (1, false) => PageSize::Huge,
            _ => return Err(TableError::Malformed),
        };
        if address % size.bytes() != 0 {
            return Err(TableError::Malformed);
        }
        Ok(Step::Page(Page { location, size, write: self.write(), atomic: self.atomic() }))
    }
}

/// Which entry of a table of `level` a virtual address goes through.
pub const fn table_index(address: u64, level: u8) -> u64 {
    (address >> (12 + 9 * level as u32)) % TABLE_ENTRIES
}

/// Width in bits of the virtual addresses of a space whose root table is of `level`.
pub const fn address_bits(level: u8) -> u32 {
    12 + 9 * (level as u32 + 1)
}

bitfield! {
    /// Value of [`ADDRESS_SPACE_CONTROL`](super::regs::ADDRESS_SPACE_CONTROL).
    pub struct AddressSpaceControl(u32) {
        /// Translations may be made. Clearing it leaves those that are cached: invalidate.
        enable / with_enable: 0..=0 as flag;
        /// Virtual addresses have 57 bits, the root is of level 4; clear: 48 bits, level 3.
        five_levels / with_five_levels: 1..=1 as flag;
        /// The device sets the accessed and dirty bits of entries.
        track / with_track: 2..=2 as flag;
        /// Faults go to the fault buffer and the channel waits; clear: they stop the channel with an error.
        replayable / with_replayable: 3..=3 as flag;
    }
}

impl AddressSpaceControl {
    /// The level of the root table.
    pub const fn root_level(self) -> u8 {
        if self.five_levels() {
            ROOT_LEVEL_57
        } else {
            ROOT_LEVEL_48
        }
    }
}

bitfield! {
    /// Value of [`INVALIDATE`](super::regs::INVALIDATE), and word 3 of the command
    /// [`Opcode::Invalidate`](super::command::Opcode::Invalidate).
    pub struct InvalidateTarget(u64) {
        /// The address space; zero for [`InvalidateScope::All`].
        asid / with_asid: 15..=0 as field;
        /// An [`InvalidateScope`].
        raw_scope / with_raw_scope: 17..=16 as field;
    }
}

closed_enum! {
    /// How much an invalidation forgets.
    pub enum InvalidateScope(u8) {
        /// Every translation.
        All = 0 => "all",
        /// Those of one address space.
        AddressSpace = 1 => "address-space",
        /// Those of one address space that any byte of a range is translated by.
        Range = 2 => "range",
    }
}

/// Which translations are to be forgotten by every engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// [`InvalidateScope::All`].
    All,
    /// [`InvalidateScope::AddressSpace`].
    AddressSpace(u8),
    /// [`InvalidateScope::Range`].
    Range {
        /// The address space.
        asid: u8,
        /// First byte.
        address: u64,
        /// How many bytes, at least one; does not wrap.
        length: u64,
    },
}

impl Invalidation {
    /// Target word, address and length that stand for this invalidation.
    pub const fn encode(self) -> (InvalidateTarget, u64, u64) {
        match self {
            Self::All => (InvalidateTarget(0), 0, 0),
            Self::AddressSpace(asid) => (target_of(asid, InvalidateScope::AddressSpace), 0, 0),
            Self::Range { asid, address, length } => (target_of(asid, InvalidateScope::Range), address, length),
        }
    }

    /// The invalidation that these words stand for; `None` if they stand for none. Address and length are zero unless the
    /// scope is [`InvalidateScope::Range`].
    pub const fn decode(target: InvalidateTarget, address: u64, length: u64) -> Option<Self> {
        if target.0 & InvalidateTarget::RESERVED != 0 || target.asid() >= ADDRESS_SPACES as u64 {
            return None;
        }
        let asid = target.asid() as u8;
        match InvalidateScope::from_raw(target.raw_scope() as u8) {
            Some(InvalidateScope::All) if asid == 0 && (address | length) == 0 => Some(Self::All),
            Some(InvalidateScope::AddressSpace) if (address | length) == 0 => Some(Self::AddressSpace(asid)),
            Some(InvalidateScope::Range) if length > 0 && address.checked_add(length - 1).is_some() => {
                Some(Self::Range { asid, address, length })
            }
            _ => None,
        }
    }
}

const fn target_of(asid: u8, scope: InvalidateScope) -> InvalidateTarget {
    InvalidateTarget(0).with_asid(asid as u64).with_raw_scope(scope as u64)
}

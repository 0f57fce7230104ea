// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device reports of virtual memory: address spaces, translations, the accesses that rest on them, and what
//! makes engines forget them.

use ersatz_abi::command::Location;
use ersatz_abi::fault::AccessKind;
use ersatz_abi::mmu::{Invalidation, PageSize};

use super::Event;
use crate::trace::kind::Kind;

/// One event of the MMU. Addresses are virtual unless they are in a [`Location`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmuEvent {
    /// Translations of an address space may be made from now on.
    AddressSpaceEnabled {
        /// The address space.
        asid: u8,
        /// Its root (`ersatz_abi::mmu::PageTableEntry`).
        root: u64,
        /// What else was asked for (`ersatz_abi::mmu::AddressSpaceControl`).
        control: u32,
    },
    /// No more translations of an address space are made; those that are cached remain.
    AddressSpaceDisabled {
        /// The address space.
        asid: u8,
    },
    /// An engine walked the page tables, and caches what it found: written when the entry is there to be used.
    Translation {
        /// The engine.
        engine: u8,
        /// The address space.
        asid: u8,
        /// First address of the page.
        address: u64,
        /// Where the page begins.
        page: Location,
        /// How large it is.
        size: PageSize,
        /// It may be written.
        write: bool,
        /// It may be the target of atomics.
        atomic: bool,
    },
    /// Memory was accessed through a translation: a range inside one page.
    Access {
        /// The channel.
        channel: u8,
        /// The engine.
        engine: u8,
        /// The address space.
        asid: u8,
        /// How.
        kind: AccessKind,
        /// The virtual address.
        address: u64,
        /// Where it led.
        location: Location,
        /// How much.
        length: u64,
    },
    /// An invalidation was asked for: engines begin to forget.
    InvalidateRequested {
        /// Its number, from 1; those by register and those by command share one sequence.
        number: u64,
        /// What is to be forgotten.
        invalidation: Invalidation,
        /// The channel whose command it is; `None`: the register's.
        channel: Option<u8>,
    },
    /// Every engine has forgotten, and no access through what it forgot is under way.
    InvalidateAcknowledged {
        /// The invalidation's number.
        number: u64,
    },
}

impl MmuEvent {
    /// The kind of this event.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::AddressSpaceEnabled { .. } => Kind::AddressSpaceEnabled,
            Self::AddressSpaceDisabled { .. } => Kind::AddressSpaceDisabled,
            Self::Translation { .. } => Kind::Translation,
            Self::Access { .. } => Kind::Access,
            Self::InvalidateRequested { .. } => Kind::InvalidateRequested,
            Self::InvalidateAcknowledged { .. } => Kind::InvalidateAcknowledged,
        }
    }

    /// The channel this event is about.
    pub const fn channel(&self) -> Option<u8> {
        match *self {
            Self::Access { channel, .. } => Some(channel),
            Self::InvalidateRequested { channel, .. } => channel,
            Self::AddressSpaceEnabled { .. }
            | Self::AddressSpaceDisabled { .. }
            | Self::Translation { .. }
            | Self::InvalidateAcknowledged { .. } => None,
        }
    }

    /// The address space this event is about.
    pub const fn asid(&self) -> Option<u8> {
        match *self {
            Self::AddressSpaceEnabled { asid, .. }
            | Self::AddressSpaceDisabled { asid }
            | Self::Translation { asid, .. }
            | Self::Access { asid, .. } => Some(asid),
            Self::InvalidateRequested { invalidation, .. } => match invalidation {
                Invalidation::AddressSpace(asid) | Invalidation::Range { asid, .. } => Some(asid),
                Invalidation::All => None,
            },
            Self::InvalidateAcknowledged { .. } => None,
        }
    }
}

impl From<MmuEvent> for Event {
    fn from(event: MmuEvent) -> Self {
        Self::Mmu(event)
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table of MMU events: address spaces, translations, the accesses that rest on them, and invalidations.

use ersatz_abi::command::Location;
use ersatz_abi::fault::AccessKind;
use ersatz_abi::mmu::{Invalidation, PageSize};

use super::place::*;
use super::value;
use crate::trace::range::Range;

events! {
    /// One event of the MMU. Addresses are virtual unless they are in a [`Location`].
    pub enum MmuEvent {
        /// Translations of an address space can be made from now on.
        AddressSpaceEnabled = 64, "address-space-enabled" {
            /// The address space.
            asid: u8 => ASID, "asid": number;
            /// Its root (`ersatz_abi::mmu::PageTableEntry`).
            root: u64 => ADDRESS, "root": address;
            /// The other settings (`ersatz_abi::mmu::AddressSpaceControl`).
            control: u32 => ID, "control": address;
        }
        /// No more translations of an address space are made; those that are cached remain.
        AddressSpaceDisabled = 65, "address-space-disabled" {
            /// The address space.
            asid: u8 => ASID, "asid": number;
        }
        /// An engine walked the page tables, and caches the result: written when the entry is ready to be used.
        TlbFill = 66, "tlb-fill" {
            /// The address space.
            asid: u8 => ASID, "asid": number;
            /// First address of the page.
            address: u64 => ADDRESS, "address": address, covers size.bytes();
            /// Where the page begins.
            page: Location => TARGET, "page": location, covers size.bytes();
            /// How large it is.
            size: PageSize => PAGE_SIZE, "size": name;
            /// Whether it may be written.
            write: bool => FLAG_0, "write": flag;
            /// Whether it may be the target of atomics.
            atomic: bool => FLAG_1, "atomic": flag;
            /// The engine.
            engine: u8 => ENGINE, "engine": number;
        }
        /// Memory was accessed through a translation: a range inside one page.
        Access = 67, "access" {
            /// The channel.
            channel: u8 => CHANNEL;
            /// How it was accessed.
            kind: AccessKind => DETAIL_HIGH, "access": name;
            /// The address space.
            asid: u8 => ASID, "asid": number;
            /// The virtual address.
            address: u64 => ADDRESS, "address": address, covers length;
            /// The memory it was translated to.
            location: Location => TARGET, "at": location, covers length;
            /// Number of bytes.
            length: u64 => LENGTH, "bytes": bytes;
            /// The engine.
            engine: u8 => ENGINE, "engine": number;
        }
        /// An invalidation was requested: engines begin to drop translations.
        InvalidateRequested = 68, "invalidate-requested" {
            /// Its number, from 1; those by register and those by command share one sequence.
            number: u64 => ID, "number": number;
            /// Which translations it drops.
            invalidation: Invalidation => INVALIDATION,
                shown value::invalidation(invalidation),
                about invalidated(invalidation);
            /// The channel whose command it is; `None`: the register's.
            channel: Option<u8> => CHANNEL;
        }
        /// Every engine has dropped the translations, and no access through them is under way.
        InvalidateAcknowledged = 69, "invalidate-acknowledged" {
            /// The invalidation's number.
            number: u64 => ID, "number": number;
        }
    }
}

/// The virtual addresses whose translations an invalidation drops.
fn invalidated(invalidation: Invalidation) -> Option<Range> {
    Some(match invalidation {
        Invalidation::Range { address, length, .. } => Range::with_length(address, length),
        Invalidation::All | Invalidation::AddressSpace(_) => Range::ALL,
    })
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The rule of translations: what an engine accesses by virtual address rests on a translation that it filled, and that no
//! acknowledged invalidation means.
//!
//! Here the order of records is exact. An engine writes both, the fill and the access, before it lets go of its TLB; an
//! invalidation is recorded as asked for before any engine forgets, and as acknowledged when all have. So what was filled
//! before the one and is used behind the other is stale, however threads run. Several translations of one address may be
//! held at once, of pages of several sizes: any of them may be used.

use std::collections::BTreeMap;

use ersatz_abi::command::Location;
use ersatz_abi::fault::AccessKind;
use ersatz_abi::mmu::{Invalidation, PageSize};

use super::{Rule, Site};
use crate::trace::event::{Event, MmuEvent};

/// Most translations that are followed: more than all TLBs hold.
const MAX_TRANSLATIONS: usize = 1 << 18;
/// Most invalidations on their way that are followed.
const MAX_PENDING: usize = 65_536;

/// A page of an address space, as an engine sees it. The order is by size, so that the pages of a range lie side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    size: PageSize,
    engine: u8,
    asid: u8,
    /// First virtual address.
    address: u64,
}

#[derive(Clone, Copy, Debug)]
struct Filled {
    /// The record of the fill.
    sequence: u64,
    page: Location,
    write: bool,
    atomic: bool,
    /// The record that acknowledged that it was forgotten.
    forgotten: Option<u64>,
}

/// An access that was made.
#[derive(Clone, Copy)]
struct Access {
    engine: u8,
    asid: u8,
    kind: AccessKind,
    address: u64,
    location: Location,
    length: u64,
}

impl Filled {
    /// Whether an access of the page at `first` of this size is what this translation permits.
    fn permits(&self, first: u64, size: PageSize, access: &Access) -> bool {
        let offset = access.address.wrapping_sub(first);
        let fits = offset.checked_add(access.length).is_some_and(|end| end <= size.bytes());
        let leads = self.page.address.checked_add(offset).map(|address| Location { address, ..self.page });
        let allowed = match access.kind {
            AccessKind::Read | AccessKind::Prefetch => true,
            AccessKind::Write => self.write,
            AccessKind::Atomic => self.write && self.atomic,
        };
        fits && allowed && leads == Some(access.location)
    }
}

/// What the log says about translations.
#[derive(Debug, Default)]
pub(super) struct Translations {
    filled: BTreeMap<Key, Filled>,
    /// Invalidations asked for and not acknowledged, with the records of the requests.
    pending: BTreeMap<u64, (u64, Invalidation)>,
    /// There may be translations that the log does not contain.
    is_incomplete: bool,
}

impl Translations {
    /// Behind a hole in the log: anything may have been filled.
    pub(super) fn unknown() -> Self {
        Self { is_incomplete: true, ..Self::default() }
    }

    /// Looks at an event.
    pub(super) fn look(&mut self, event: &Event, site: &mut Site<'_>) {
        match *event {
            Event::Reset { .. } => *self = Self::default(),
            Event::Mmu(MmuEvent::TlbFill { engine, asid, address, page, size, write, atomic }) => {
                let filled = Filled { sequence: site.sequence, page, write, atomic, forgotten: None };
                self.fill(Key { size, engine, asid, address }, filled);
            }
            Event::Mmu(MmuEvent::InvalidateRequested { number, invalidation, .. })
                if self.pending.len() < MAX_PENDING =>
            {
                self.pending.insert(number, (site.sequence, invalidation));
            }
            Event::Mmu(MmuEvent::InvalidateAcknowledged { number }) => self.acknowledge(number, site.sequence),
            Event::Mmu(MmuEvent::Access { engine, asid, kind, address, location, length, .. }) => {
                self.access(&Access { engine, asid, kind, address, location, length }, site);
            }
            _ => {}
        }
    }

    fn fill(&mut self, key: Key, filled: Filled) {
        if self.filled.len() >= MAX_TRANSLATIONS && !self.filled.contains_key(&key) {
            self.filled.retain(|_, filled| filled.forgotten.is_none());
            if self.filled.len() >= MAX_TRANSLATIONS {
                self.is_incomplete = true;
                return;
            }
        }
        self.filled.insert(key, filled);
    }

    /// All invalidations up to this number are complete.
    fn acknowledge(&mut self, number: u64, sequence: u64) {
        let later = number.checked_add(1).map(|next| self.pending.split_off(&next)).unwrap_or_default();
        for (requested, invalidation) in std::mem::replace(&mut self.pending, later).into_values() {
            let stale = |filled: &mut Filled| {
                if filled.sequence < requested {
                    filled.forgotten.get_or_insert(sequence);
                }
            };
            match invalidation {
                Invalidation::All => {
                    self.filled.values_mut().for_each(stale);
                    // It dropped the translations that the log does not contain, too.
                    self.is_incomplete = false;
                }
                Invalidation::AddressSpace(asid) => {
                    self.filled.iter_mut().filter(|(key, _)| key.asid == asid).for_each(|(_, filled)| stale(filled));
                }
                Invalidation::Range { asid, address, length } => {
                    let last = address.saturating_add(length.saturating_sub(1));
                    for (size, engine) in self.places() {
                        let key = |address| Key { size, engine, asid, address };
                        let first = address - address % size.bytes();
                        self.filled.range_mut(key(first)..=key(last)).for_each(|(_, filled)| stale(filled));
                    }
                }
            }
        }
    }

    /// The sizes and engines for which there are translations.
    fn places(&self) -> Vec<(PageSize, u8)> {
        let mut places = Vec::new();
        let mut next = self.filled.first_key_value().map(|(key, _)| *key);
        while let Some(Key { size, engine, .. }) = next {
            places.push((size, engine));
            let last = Key { size, engine, asid: u8::MAX, address: u64::MAX };
            let behind = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
            next = self.filled.range(behind).next().map(|(key, _)| *key);
        }
        places
    }

    fn access(&self, access: &Access, site: &mut Site<'_>) {
        let Access { engine, asid, kind, address, location, length } = *access;
        let candidates = PageSize::ALL.iter().filter_map(|&size| {
            let first = address - address % size.bytes();
            let filled = self.filled.get(&Key { size, engine, asid, address: first })?;
            Some((filled, filled.permits(first, size, access)))
        });
        let mut stale = None;
        let mut other = None;
        for (filled, permits) in candidates {
            match (filled.forgotten, permits) {
                (None, true) => return,
                (None, false) => other = Some(filled.sequence),
                (Some(forgotten), true) => stale = Some((filled.sequence, forgotten)),
                (Some(_), false) => {}
            }
        }
        let what = format!(
            "engine {engine}: {} of {length:#x} bytes at {address:#x} of address space {asid} went to {} {:#x}",
            kind.name(),
            location.aperture.name(),
            location.address
        );
        if let Some((filled, forgotten)) = stale {
            site.report(
                Rule::StaleTranslation,
                format!(
                    "{what} by the translation of record {filled}, which record {forgotten} acknowledged as forgotten"
                ),
            );
        } else if self.is_incomplete {
            // The translation may be from a record that the log does not contain.
        } else if let Some(filled) = other {
            site.report(
                Rule::StaleTranslation,
                format!("{what}, which the translation of record {filled} does not permit"),
            );
        } else {
            site.report(Rule::StaleTranslation, format!("{what}, and no translation leads there"));
        }
    }
}

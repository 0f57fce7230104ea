// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The pages of VRAM that are poisoned: their content is lost, and no engine accesses them.
//!
//! Poison stays through every reset, as a memory cell stays broken. Almost every device has none, so asking for it costs a load.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use ersatz_abi::regs::{MAX_POISONED_PAGES, POISON_BYTES};

use crate::sync::RwLock;

/// The offsets in VRAM of poisoned pages.
#[derive(Debug, Default)]
pub(crate) struct PoisonedPages {
    is_any: AtomicBool,
    offsets: RwLock<BTreeSet<u64>>,
}

/// What became of a page that was to be poisoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Poisoned {
    /// It is poisoned now, by its offset.
    Now(u64),
    /// It was so before.
    Already,
    /// It is as it was: as many pages are poisoned as the device can remember.
    TooMany,
}

impl PoisonedPages {
    /// Poisons the page that an offset lies in.
    pub(crate) fn add(&self, offset: u64) -> Poisoned {
        let page = offset / POISON_BYTES * POISON_BYTES;
        let mut offsets = self.offsets.write();
        if offsets.contains(&page) {
            return Poisoned::Already;
        }
        if offsets.len() >= MAX_POISONED_PAGES as usize {
            return Poisoned::TooMany;
        }
        offsets.insert(page);
        self.is_any.store(true, Ordering::Release);
        Poisoned::Now(page)
    }

    /// Ends the poison of the page that an offset lies in. Returns the page, if it was poisoned; `mend` is called before anybody can
    /// access it.
    pub(crate) fn remove(&self, offset: u64, mend: impl FnOnce(u64)) -> Option<u64> {
        let page = offset / POISON_BYTES * POISON_BYTES;
        let mut offsets = self.offsets.write();
        if !offsets.contains(&page) {
            return None;
        }
        mend(page);
        offsets.remove(&page);
        self.is_any.store(!offsets.is_empty(), Ordering::Release);
        Some(page)
    }

    /// The first poisoned page at or behind an offset; the page that the offset lies in counts.
    pub(crate) fn first_from(&self, offset: u64) -> Option<u64> {
        let page = offset / POISON_BYTES * POISON_BYTES;
        self.offsets.read().range(page..).next().copied()
    }

    /// The first poisoned page of which `length` bytes from an offset on have a part.
    #[inline]
    pub(crate) fn first_in(&self, offset: u64, length: u64) -> Option<u64> {
        if length == 0 || !self.is_any.load(Ordering::Acquire) {
            return None;
        }
        let last = offset.saturating_add(length - 1);
        self.first_from(offset).filter(|page| *page <= last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_is_poisoned_as_a_whole_and_once() {
        let pages = PoisonedPages::default();
        assert_eq!(pages.first_in(0, u64::MAX), None);
        assert_eq!(pages.add(0x5008), Poisoned::Now(0x5000));
        assert_eq!(pages.add(0x5fff), Poisoned::Already);
        for (offset, length, found) in [
            (0x5000, 1, true),
            (0x5fff, 1, true),
            (0x4fff, 1, false),
            (0x4fff, 2, true),
            (0x6000, u64::MAX, false),
            (0, u64::MAX, true),
            (0x5000, 0, false),
        ] {
            assert_eq!(pages.first_in(offset, length), found.then_some(0x5000), "{offset:#x} + {length:#x}");
        }
    }

    #[test]
    fn no_more_are_remembered_than_promised() {
        let pages = PoisonedPages::default();
        for page in 0..u64::from(MAX_POISONED_PAGES) {
            assert_eq!(pages.add(page * POISON_BYTES), Poisoned::Now(page * POISON_BYTES));
        }
        assert_eq!(pages.add(u64::MAX), Poisoned::TooMany);
        assert_eq!(pages.add(0), Poisoned::Already);
        assert_eq!(pages.remove(7, |page| assert_eq!(page, 0)), Some(0));
        assert_eq!(pages.add(u64::MAX), Poisoned::Now(u64::MAX - 4095));
    }

    #[test]
    fn a_page_that_is_well_is_not_mended() {
        let pages = PoisonedPages::default();
        assert_eq!(pages.remove(0x5000, |_| unreachable!()), None);
        pages.add(0x5000);
        assert_eq!(pages.remove(0x5fff, |_| ()), Some(0x5000));
        assert_eq!((pages.first_in(0, u64::MAX), pages.first_from(0)), (None, None));
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_search_of_all_finds(
            poisoned in prop::collection::vec(0_u64..64, 0..8), offset in 0..64 * POISON_BYTES, length in 0..9 * POISON_BYTES,
        ) {
            let pages = PoisonedPages::default();
            poisoned.iter().for_each(|page| _ = pages.add(page * POISON_BYTES));
            let touches = |page: u64| page * POISON_BYTES < offset + length && offset < (page + 1) * POISON_BYTES;
            let expected = poisoned.iter().copied().filter(|page| length > 0 && touches(*page)).min();
            prop_assert_eq!(pages.first_in(offset, length), expected.map(|page| page * POISON_BYTES));
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The pages of VRAM that the driver has handed over: they are the host's, and no engine accesses them until they are returned.
//!
//! They stay so through every reset, as the host has given them to somebody else. Almost every device has none, so asking for it costs a
//! load. There is one bit per page, which takes 32 MiB for a terabyte; none is made before the first page is handed over.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ersatz_abi::regs::HAND_OVER_BYTES;

const WORD_PAGES: u64 = u64::BITS as u64;

/// Which pages are handed over. Pages are counted from the start of VRAM.
///
/// One thread at a time changes them; any number looks meanwhile.
#[derive(Debug)]
pub(crate) struct HandedOverPages {
    pages: u64,
    count: AtomicU64,
    words: OnceLock<Box<[AtomicU64]>>,
}

impl HandedOverPages {
    /// None of those of `bytes` bytes of VRAM.
    pub(crate) const fn new(bytes: u64) -> Self {
        Self { pages: bytes / HAND_OVER_BYTES, count: AtomicU64::new(0), words: OnceLock::new() }
    }

    /// The number of pages that are handed over.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Hands over pages, as far as they exist. Returns how many of them were not handed over before.
    pub(crate) fn add(&self, pages: Range<u64>) -> u64 {
        let words =
            self.words.get_or_init(|| (0..self.pages.div_ceil(WORD_PAGES)).map(|_| AtomicU64::new(0)).collect());
        let mut added = 0;
        for (word, mask) in self.parts(pages, words) {
            added += u64::from((mask & !word.fetch_or(mask, Ordering::AcqRel)).count_ones());
        }
        self.count.fetch_add(added, Ordering::AcqRel);
        added
    }

    /// Takes pages back.
    pub(crate) fn remove(&self, pages: Range<u64>) {
        let Some(words) = self.words.get() else { return };
        let mut removed = 0;
        for (word, mask) in self.parts(pages, words) {
            removed += u64::from((mask & word.fetch_and(!mask, Ordering::AcqRel)).count_ones());
        }
        self.count.fetch_sub(removed, Ordering::AcqRel);
    }

    /// The number of pages of a range that exist and are not handed over.
    pub(crate) fn others(&self, pages: Range<u64>) -> u64 {
        let length = pages.end.min(self.pages).saturating_sub(pages.start);
        let Some(words) = self.words.get() else { return length };
        let handed: u32 =
            self.parts(pages, words).map(|(word, mask)| (word.load(Ordering::Acquire) & mask).count_ones()).sum();
        length - u64::from(handed)
    }

    /// The first page at or behind one that is handed over, with those that follow it and are as well.
    pub(crate) fn first_run_from(&self, page: u64) -> Option<Range<u64>> {
        let first = self.find(page, false)?;
        Some(first..self.find(first, true).unwrap_or(self.pages))
    }

    /// The offset of the first handed over page of which `length` bytes from an offset on have a part.
    #[inline]
    pub(crate) fn first_in(&self, offset: u64, length: u64) -> Option<u64> {
        if length == 0 || self.count() == 0 {
            return None;
        }
        let last = offset.saturating_add(length - 1) / HAND_OVER_BYTES;
        self.find(offset / HAND_OVER_BYTES, false).filter(|page| *page <= last).map(|page| page * HAND_OVER_BYTES)
    }

    /// The first page at or behind one that is handed over, or that is not (`inverted`).
    fn find(&self, page: u64, inverted: bool) -> Option<u64> {
        let words = self.words.get()?;
        let mut mask = u64::MAX << (page % WORD_PAGES);
        for index in page / WORD_PAGES..words.len() as u64 {
            let word = words.get(usize::try_from(index).ok()?)?.load(Ordering::Acquire);
            let found = (if inverted { !word } else { word }) & mask;
            if found != 0 {
                return Some(index * WORD_PAGES + u64::from(found.trailing_zeros())).filter(|page| *page < self.pages);
            }
            mask = u64::MAX;
        }
        None
    }

    /// The words that have bits of pages, each with those bits.
    fn parts<'a>(
        &self,
        pages: Range<u64>,
        words: &'a [AtomicU64],
    ) -> impl Iterator<Item = (&'a AtomicU64, u64)> + use<'a> {
        let pages = pages.start..pages.end.min(self.pages);
        let indices = if pages.is_empty() { 0..0 } else { pages.start / WORD_PAGES..pages.end.div_ceil(WORD_PAGES) };
        indices.filter_map(move |index| {
            let first = pages.start.saturating_sub(index * WORD_PAGES);
            let end = (pages.end - index * WORD_PAGES).min(WORD_PAGES);
            let mask = (u64::MAX >> (WORD_PAGES - (end - first))) << first;
            Some((words.get(usize::try_from(index).ok()?)?, mask))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const PAGES: u64 = 200;

    #[test]
    fn nothing_is_made_before_the_first_page() {
        let pages = HandedOverPages::new(1 << 40);
        assert_eq!((pages.count(), pages.first_in(0, u64::MAX), pages.first_run_from(0)), (0, None, None));
        pages.remove(0..7);
        assert!(pages.words.get().is_none());
        assert_eq!(pages.others(3..u64::MAX), (1 << 28) - 3);
    }

    #[test]
    fn what_lies_beyond_the_memory_is_left_out() {
        let pages = HandedOverPages::new(PAGES * HAND_OVER_BYTES);
        assert_eq!(pages.add(PAGES - 2..u64::MAX), 2);
        assert_eq!(pages.add(PAGES..PAGES + 1), 0);
        assert_eq!(pages.first_run_from(0), Some(PAGES - 2..PAGES));
        assert_eq!((pages.first_run_from(PAGES), pages.first_run_from(u64::MAX)), (None, None));
        assert_eq!(pages.first_in(0, u64::MAX), Some((PAGES - 2) * HAND_OVER_BYTES));
    }

    proptest! {
        #[test]
        fn pages_are_those_of_a_set(
            steps in prop::collection::vec((any::<bool>(), 0..PAGES + 9, 0_u64..150), 0..12),
            from in 0..PAGES + 9,
            offset in 0..PAGES * HAND_OVER_BYTES,
            length in 0..20 * HAND_OVER_BYTES,
        ) {
            let pages = HandedOverPages::new(PAGES * HAND_OVER_BYTES);
            let mut expected = BTreeSet::new();
            for (adds, first, count) in steps {
                let range = first..first + count;
                if adds {
                    let new = range.clone().filter(|page| *page < PAGES && expected.insert(*page)).count();
                    prop_assert_eq!(pages.add(range), new as u64);
                } else {
                    pages.remove(range.clone());
                    range.for_each(|page| _ = expected.remove(&page));
                }
            }
            prop_assert_eq!(pages.count(), expected.len() as u64);
            let first = expected.range(from..).next().copied();
            let run = first.map(|first| first..(first..).find(|page| !expected.contains(page)).unwrap());
            prop_assert_eq!(pages.first_run_from(from), run);
            prop_assert_eq!(pages.others(from..PAGES), (from..PAGES).filter(|page| !expected.contains(page)).count() as u64);
            let touches = |page: u64| page * HAND_OVER_BYTES < offset + length && offset < (page + 1) * HAND_OVER_BYTES;
            let touched = expected.iter().copied().find(|page| length > 0 && touches(*page));
            prop_assert_eq!(pages.first_in(offset, length), touched.map(|page| page * HAND_OVER_BYTES));
        }
    }
}

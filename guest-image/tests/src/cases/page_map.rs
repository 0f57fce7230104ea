// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `/proc/self/pagemap` and `/proc/kpageflags` say about single pages, beyond where they are.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::pattern::PAGE;
use crate::region::Span;

/// Write protection by userfaultfd, in an entry of the pagemap.
const USERFAULT_PROTECTED: u64 = 1 << 57;
/// The page is there.
const PRESENT: u64 = 1 << 63;
/// The page is swapped out, or elsewhere.
const SWAPPED: u64 = 1 << 62;
/// The page frame's number.
const FRAME: u64 = (1 << 55) - 1;
/// A folio begins here, or goes on here (`KPF_COMPOUND_HEAD`, `KPF_COMPOUND_TAIL`).
const HEAD: u64 = 1 << 15;
const TAIL: u64 = 1 << 16;

/// An entry of the pagemap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u64);

impl Entry {
    /// Whether userfaultfd protects the page from writes.
    pub fn is_protected(self) -> bool {
        self.0 & USERFAULT_PROTECTED != 0
    }

    /// Whether the page table holds an entry for something that is not there.
    pub fn is_swapped(self) -> bool {
        self.0 & SWAPPED != 0
    }

    /// The page frame's number, if there is one.
    pub fn frame(self) -> Option<u64> {
        Some(self.0 & FRAME).filter(|&frame| self.0 & PRESENT != 0 && frame != 0)
    }
}

/// The entries of a range.
///
/// # Panics
///
/// As all functions here, if `/proc` does not say.
pub fn entries(span: Span) -> Vec<Entry> {
    words("/proc/self/pagemap", span.address / PAGE as u64, span.pages()).into_iter().map(Entry).collect()
}

/// How many pages the folio has that a page of system memory is part of.
pub fn folio_pages(page: Span) -> usize {
    /// As far as a folio may reach: 2 MiB.
    const MOST: u64 = 512;
    let frame = entries(page)[0].frame().expect("a page of system memory");
    let first = frame / MOST * MOST;
    let flags = words("/proc/kpageflags", first, MOST as usize);
    let at = (frame - first) as usize;
    if flags[at] & (HEAD | TAIL) == 0 {
        return 1;
    }
    let head = (0..=at).rev().find(|&index| flags[index] & HEAD != 0).expect("the head of a folio");
    1 + flags[head + 1..].iter().take_while(|&&flags| flags & TAIL != 0).count()
}

fn words(path: &str, first: u64, count: usize) -> Vec<u64> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut bytes = vec![0; count * 8];
    file.read_exact_at(&mut bytes, first * 8).unwrap_or_else(|error| panic!("{path}: {error}"));
    bytes.chunks_exact(8).map(|chunk| u64::from_ne_bytes(chunk.try_into().expect("eight bytes"))).collect()
}

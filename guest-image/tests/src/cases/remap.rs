// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `mremap` and `mlock` of parts of a region.

use std::ops::Range;

use nix::libc;
use nix::sys::mman::{MRemapFlags, mlock, mremap, munlock};

use crate::pattern::PAGE;
use crate::region::{Region, Span};

/// Moves pages of a region onto those of another, from `at` on, which are replaced. A gap stays, which the region still spans.
///
/// # Panics
///
/// As all functions here, if the system refuses.
pub fn move_part_to(region: &Region, pages: Range<usize>, target: &Region, at: usize) -> Span {
    let (length, to) = (pages.len() * PAGE, target.part(at..at + pages.len()));
    let flags = MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED;
    let from = region.pointer(pages.start * PAGE).cast::<libc::c_void>();
    // SAFETY: both ranges are mapped by regions, to whose bytes no references exist.
    unsafe { mremap(from, length, length, flags, Some(target.pointer(at * PAGE).cast())) }
        .unwrap_or_else(|error| panic!("mremap of {pages:?}: {error}"));
    to
}

/// The same onto all of another region, which is returned.
pub fn move_part(region: &Region, pages: Range<usize>, target: Region) -> Region {
    assert_eq!(pages.len(), target.pages());
    move_part_to(region, pages, &target, 0);
    target
}

/// `mlock` of some pages.
pub fn lock_part(region: &Region, pages: Range<usize>) {
    // SAFETY: the pages are the region's own.
    unsafe { mlock(region.pointer(pages.start * PAGE).cast(), pages.len() * PAGE) }
        .unwrap_or_else(|error| panic!("mlock of {pages:?}: {error}"));
}

/// `munlock` of some pages.
pub fn unlock_part(region: &Region, pages: Range<usize>) {
    // SAFETY: the pages are the region's own.
    unsafe { munlock(region.pointer(pages.start * PAGE).cast(), pages.len() * PAGE) }
        .unwrap_or_else(|error| panic!("munlock of {pages:?}: {error}"));
}

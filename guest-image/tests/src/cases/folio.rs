// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory in folios of a given order, and how to tell.

use std::ops::Range;

use super::fixture::send;
use super::page_map::folio_pages;
use super::setting::Setting;
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::proc_fs::smaps_kib;
use crate::region::{HUGE_PAGE, Region, Span};
use crate::suite::Need;

/// Pages in a huge page.
pub const HUGE: usize = HUGE_PAGE / PAGE;
/// Pages in a folio of 64 KiB.
pub const MEDIUM: usize = 16;

/// What tests with some huge pages on the device need.
pub const NEEDS: &[Need] = &[Need::HugePages, Need::VramPages(6 * HUGE as u64)];
/// The same where the kernel moves them whole.
pub const WHOLE: &[Need] = &[Need::Private, Need::HugePages, Need::VramPages(6 * HUGE as u64)];

/// Memory in huge pages with content.
///
/// # Panics
///
/// As all functions here, if the memory is not in folios as it is to be.
pub fn huge(count: usize, pattern: Pattern) -> Region {
    let region = Region::huge(count);
    region.fill(pattern);
    assert_huge(region.span(), count);
    region
}

/// The same, moved to the device.
pub fn huge_on_device(device: &Device, count: usize, pattern: Pattern) -> Region {
    let region = huge(count, pattern);
    send(device, &region);
    region
}

/// Asserts how many huge pages of system memory the mapping that a range begins in has mapped as such.
pub fn assert_huge(span: Span, count: usize) {
    assert_eq!(smaps_kib(span, "AnonHugePages"), (count * HUGE_PAGE / 1024) as u64, "kB mapped in huge pages");
}

/// Memory in small pages with content.
pub fn small(pages: usize, pattern: Pattern) -> Region {
    let region = Region::new(pages);
    region.advise(0..pages, nix::sys::mman::MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
    region.fill(pattern);
    region
}

/// Memory in folios of 64 KiB with content, and the setting that the kernel has for those.
pub fn medium(count: usize, pattern: Pattern) -> (Region, Setting) {
    in_folios(MEDIUM, count, pattern)
}

/// The same in folios of so many pages, together less than a huge page.
pub fn in_folios(pages: usize, count: usize, pattern: Pattern) -> (Region, Setting) {
    let setting = Setting::set(order_setting(pages), "always");
    // Begins at the boundary of a huge page, but has no room for one.
    let region = Region::huge(1).resize(count * pages);
    region.fill(pattern);
    for folio in 0..count {
        assert_eq!(folio_pages(region.page(folio * pages)), pages, "pages in folio {folio}");
    }
    (region, setting)
}

/// Where the kernel is told whether to use folios of so many pages.
pub fn order_setting(pages: usize) -> String {
    format!("/sys/kernel/mm/transparent_hugepage/hugepages-{}kB/enabled", pages * PAGE / 1024)
}

/// Asserts what some pages hold, wherever each is now: as the device reads them, then as the CPU does.
pub fn check(device: &Device, region: &Region, pages: Range<usize>, pattern: Pattern) {
    let (digests, _) = device
        .try_digest(region.part(pages.clone()))
        .unwrap_or_else(|error| panic!("ERSATZ_IOC_DIGEST of {pages:?}: {error}"));
    let wrong = pages.clone().zip(digests).find(|&(index, digest)| digest != pattern.digest(index));
    assert_eq!(wrong, None, "a page in which the device reads something else, and what");
    region.check_part(pages, pattern);
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `/proc/self` says about pages.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use ersatz_scenario::call::PagemapBit;
use ersatz_scenario::report::StepOutcome;

use crate::pattern::PAGE;
use crate::scenario::content::Reader;
use crate::scenario::context::{Done, done};
use crate::scenario::ranges::Place;

pub fn pagemap(place: Place, bit: PagemapBit) -> Done {
    let mask: u64 = match bit {
        PagemapBit::SoftDirty => 1 << 55,
        PagemapBit::UffdWp => 1 << 57,
    };
    let mut bytes = vec![0; place.pages() * 8];
    File::open("/proc/self/pagemap")?.read_exact_at(&mut bytes, place.span().address / PAGE as u64 * 8)?;
    let mut reader = Reader::default();
    for entry in bytes.chunks_exact(8) {
        let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
        reader.page(&[u8::from(entry & mask != 0)]);
    }
    Ok(StepOutcome::Content(reader.finish()))
}

/// `struct pm_scan_arg`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    region_count: u64,
    most_pages: u64,
    inverted: u64,
    all_of: u64,
    any_of: u64,
    returned: u64,
}

/// `struct page_region`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Written {
    start: u64,
    end: u64,
    categories: u64,
}

/// `PM_SCAN_WP_MATCHING`, `PM_SCAN_CHECK_WPASYNC`.
const PROTECT_MATCHING: u64 = 1 << 0;
const CHECK_ASYNC: u64 = 1 << 1;
/// `PAGE_IS_WRITTEN`.
const IS_WRITTEN: u64 = 1 << 1;

nix::ioctl_readwrite!(
    /// `PAGEMAP_SCAN`.
    scan, b'f', 16, Scan
);

/// Reads for each page whether it was written, as a byte of 1 or 0.
pub fn scan_written(place: Place) -> Done {
    let span = place.span();
    let mut regions = vec![Written::default(); place.pages()];
    let mut request = Scan {
        size: size_of::<Scan>() as u64,
        flags: PROTECT_MATCHING | CHECK_ASYNC,
        start: span.address,
        end: span.address + span.length,
        regions: regions.as_mut_ptr().expose_provenance() as u64,
        region_count: regions.len() as u64,
        all_of: IS_WRITTEN,
        returned: IS_WRITTEN,
        ..Scan::default()
    };
    let file = File::open("/proc/self/pagemap")?;
    // SAFETY: the structure is the one the ioctl reads and writes. It names room for as many regions as it says; both live through the call.
    let found = unsafe { scan(file.as_raw_fd(), &mut request) }?;
    let found = regions.get(..found.unsigned_abs() as usize).unwrap_or_default();
    let mut reader = Reader::default();
    for index in 0..place.pages() {
        let address = place.page(index).address;
        reader.page(&[u8::from(found.iter().any(|region| (region.start..region.end).contains(&address)))]);
    }
    Ok(StepOutcome::Content(reader.finish()))
}

pub fn clear_soft_dirty() -> Done {
    fs::write("/proc/self/clear_refs", "4")?;
    done()
}

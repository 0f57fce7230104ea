// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory to give to the device: the system's in huge pages, which stay where they are and are never swapped, and VRAM as BAR2
//! shows it.
//!
//! `/proc/self/pagemap` tells where a huge page is. There is no IOMMU in the guest: a bus address is a physical one.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use ersatz_abi::command::Location;
use nix::sys::mman::MapFlags;

use super::buffer::Buffer;
use crate::pattern::PAGE;
use crate::proc_fs::pagemap;
use crate::region::{HUGE_PAGE, READ_WRITE, Region};
use crate::vram_bar::VramBar;

/// How many huge pages there may be beside those set aside for good. Such pages return to the system once they are unmapped.
const OVERCOMMIT: &str = "/proc/sys/vm/nr_overcommit_hugepages";

/// Whether this kernel has what [`Memory::of_system`] takes.
pub fn has_hugetlb_pages() -> bool {
    Path::new(OVERCOMMIT).exists()
}

/// Some memory, given out piece by piece until all of it ends at once.
#[derive(Debug)]
pub struct Memory {
    region: Region,
    /// Where the device finds each huge page of it.
    frames: Vec<Location>,
    taken: Cell<usize>,
    /// What permits the pages of the region; ends behind it.
    _overcommit: Option<Overcommit>,
}

impl Memory {
    /// So many huge pages of the system's memory.
    ///
    /// # Panics
    ///
    /// As all functions here, if the system refuses what a test needs.
    pub fn of_system(huge_pages: usize) -> Self {
        let overcommit = Overcommit::of(huge_pages);
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_HUGETLB | MapFlags::MAP_POPULATE;
        let region = Region::with(huge_pages * HUGE_PAGE / PAGE, READ_WRITE, flags);
        let frames = pagemap(region.span())
            .chunks(HUGE_PAGE / PAGE)
            .map(|pages| {
                Location::system(pages[0].address().expect("the address of a huge page in /proc/self/pagemap"))
            })
            .collect();
        Self { region, frames, taken: Cell::new(0), _overcommit: Some(overcommit) }
    }

    /// The first huge pages of VRAM, as many as these if the BAR shows so many. No driver may be bound.
    pub fn of_vram(bar: &VramBar, huge_pages: usize) -> Self {
        let huge_pages = huge_pages.min(bar.size() as usize / HUGE_PAGE);
        let region = bar.map(0, huge_pages * HUGE_PAGE / PAGE);
        let frames = (0..huge_pages).map(|index| Location::vram((index * HUGE_PAGE) as u64)).collect();
        Self { region, frames, taken: Cell::new(0), _overcommit: None }
    }

    /// The next piece, all zeros: aligned to its own size, rounded up to a power of two. A page is the smallest alignment, a
    /// huge page the largest piece.
    pub fn take(&self, bytes: usize) -> Buffer<'_> {
        assert!(bytes <= HUGE_PAGE, "{bytes:#x} bytes in one piece");
        let offset = self.taken.get().next_multiple_of(bytes.next_power_of_two().max(PAGE));
        self.taken.set(offset + bytes);
        let frame = self.frames.get(offset / HUGE_PAGE).expect("all memory for this test is taken");
        let address = frame.address + (offset % HUGE_PAGE) as u64;
        Buffer::zeroed(self.region.atomics(offset, bytes / size_of::<u64>()), Location { address, ..*frame })
    }
}

/// A higher limit to how many huge pages may be made of free memory; dropped, it is as it was before. Pages that were made count
/// until they are gone, so it is held as long as they are.
#[derive(Debug)]
struct Overcommit {
    huge_pages: usize,
}

impl Overcommit {
    fn of(huge_pages: usize) -> Self {
        set_limit(limit() + huge_pages);
        Self { huge_pages }
    }
}

impl Drop for Overcommit {
    fn drop(&mut self) {
        set_limit(limit().saturating_sub(self.huge_pages));
    }
}

fn limit() -> usize {
    let text = fs::read_to_string(OVERCOMMIT).unwrap_or_else(|error| panic!("cannot read {OVERCOMMIT}: {error}"));
    text.trim().parse().unwrap_or_else(|error| panic!("{OVERCOMMIT} is {text:?}: {error}"))
}

fn set_limit(limit: usize) {
    fs::write(OVERCOMMIT, limit.to_string()).unwrap_or_else(|error| panic!("cannot write {OVERCOMMIT}: {error}"));
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The same migrations by either driver, timed one step at a time.

use std::time::{Duration, Instant};

use nix::sys::mman::MmapAdvise;

use super::dmirror::Dmirror;
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::proc_fs::{pagemap, smaps_kib};
use crate::region::{HUGE_PAGE, Region};
use crate::statistics::{Statistics, Steps};

/// A driver whose migrations are measured.
#[derive(Debug)]
pub enum Contender {
    /// Ours.
    Ersatz(Device),
    /// The kernel's test driver.
    TestHmm(Dmirror),
}

/// How memory is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Pages of 4 KiB.
    Small,
    /// Transparent huge pages.
    Huge,
}

/// How long each step took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Migration to the device by ioctl.
    pub to_device: Duration,
    /// The part of that in which the test driver only reads back what it has migrated.
    pub read_back: Duration,
    /// Migration to system memory by ioctl.
    pub to_system: Duration,
    /// The CPU's touching each page once, while all are on the device.
    pub touch: Duration,
    /// What of these our driver spent in each step of its migrations.
    pub steps: Phases<Steps>,
}

/// Something for each way that memory moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases<T> {
    /// To the device, by ioctl.
    pub to_device: T,
    /// Back, by ioctl.
    pub to_system: T,
    /// Back, by CPU touch.
    pub touch: T,
}

/// The content of memory: the index of its page in front, the rest all the same. Quick to write and to compare.
#[derive(Debug)]
struct Content([u8; PAGE]);

impl Contender {
    /// Measures each step, from memory that was written just before.
    ///
    /// # Panics
    ///
    /// If pages did not move or lost their content: figures of a driver that does not work mean nothing.
    pub fn measure(&mut self, pages: usize, mapping: Mapping) -> Times {
        let content = Content::new();
        let region = mapping.region(pages, &content);
        let before = self.steps();
        let to_device = timed(|| self.migrate_to_device(&region));
        let to_device_steps = self.steps() - before;
        assert_present(&region, 0);
        let read_back = match self {
            Self::Ersatz(_) => Duration::ZERO,
            Self::TestHmm(device) => timed(|| device.read(region.span())),
        };
        let before = self.steps();
        let to_system = timed(|| self.migrate_to_system(&region));
        let to_system_steps = self.steps() - before;
        assert_present(&region, pages);
        content.check(&region);
        drop(region);

        // Memory that was on a device before may have come back in smaller pages.
        let region = mapping.region(pages, &content);
        self.migrate_to_device(&region);
        assert_present(&region, 0);
        let before = self.steps();
        let touch = timed(|| {
            for index in 0..pages {
                std::hint::black_box(region.touch(index));
            }
        });
        let touch_steps = self.steps() - before;
        assert_present(&region, pages);
        content.check(&region);
        let steps = Phases { to_device: to_device_steps, to_system: to_system_steps, touch: touch_steps };
        Times { to_device, read_back, to_system, touch, steps }
    }

    /// How long the steps of all migrations took so far; zero for a driver that does not say.
    fn steps(&self) -> Steps {
        match self {
            Self::Ersatz(_) => Statistics::read().steps(),
            Self::TestHmm(_) => Steps::default(),
        }
    }

    fn migrate_to_device(&mut self, region: &Region) {
        match self {
            Self::Ersatz(device) => drop(device.to_device(region.span())),
            Self::TestHmm(device) => device.migrate_to_device(region.span()),
        }
    }

    fn migrate_to_system(&mut self, region: &Region) {
        match self {
            Self::Ersatz(device) => drop(device.to_system(region.span())),
            Self::TestHmm(device) => device.migrate_to_system(region.span()),
        }
    }
}

impl Mapping {
    /// The pages' size, as the table has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "4 KiB",
            Self::Huge => "2 MiB",
        }
    }

    /// Memory mapped so, with content.
    fn region(self, pages: usize, content: &Content) -> Region {
        let region = match self {
            Self::Small => {
                let region = Region::new(pages);
                region.advise(0..pages, MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
                region
            }
            Self::Huge => Region::huge(pages * PAGE / HUGE_PAGE),
        };
        content.fill(&region);
        let huge = smaps_kib(region.span(), "AnonHugePages");
        let wanted = if self == Self::Huge { (pages * PAGE) >> 10 } else { 0 };
        assert_eq!(huge, wanted as u64, "KiB in huge pages of a region of {pages} pages");
        region
    }
}

impl Content {
    fn new() -> Self {
        Self(Pattern::new(1).page(0))
    }

    fn page(&self, index: usize) -> [u8; PAGE] {
        let mut page = self.0;
        page[..size_of::<usize>()].copy_from_slice(&index.to_le_bytes());
        page
    }

    fn fill(&self, region: &Region) {
        (0..region.pages()).for_each(|index| region.write(index, &self.page(index)));
    }

    fn check(&self, region: &Region) {
        for index in 0..region.pages() {
            assert!(region.read(index) == self.page(index), "page {index} of {} has lost its content", region.pages());
        }
    }
}

/// Asserts how many pages of a region the page tables lead to. Those on a device of this type have other entries.
fn assert_present(region: &Region, pages: usize) {
    let present = pagemap(region.span()).iter().filter(|entry| entry.present()).count();
    assert_eq!(present, pages, "of {} pages in system memory", region.pages());
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_different_in_each_page() {
        let (content, region) = (Content::new(), Region::new(3));
        content.fill(&region);
        content.check(&region);
        assert_ne!(region.read(1), region.read(2));
        region.write(1, &content.page(2));
        assert!(std::panic::catch_unwind(|| content.check(&region)).is_err());
    }
}

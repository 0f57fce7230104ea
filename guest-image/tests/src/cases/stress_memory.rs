// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A region, a model of what it must hold, and the operations that a random walk applies to both.

use std::ops::Range;

use ersatz_uapi::Direction;
use fastrand::Rng;
use nix::sys::mman::{MmapAdvise, ProtFlags};

use super::folio::HUGE;
use super::page_map::entries;
use super::pin::Pin;
use super::remap::{lock_part, move_part_to, unlock_part};
use super::userfault::{MISSING, REPORT_WRITE_PROTECT, Userfault, WRITE_PROTECT};
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::region::{READ_WRITE, Region};

/// The most pages that an operation is about.
const REACH: usize = 300;

/// The most pages of a region.
pub const LARGEST: usize = 2 * HUGE;

/// What a page holds: the tag of a pattern, or nothing.
type Content = Option<u64>;

/// A region and its model.
#[derive(Debug)]
pub struct Memory {
    region: Region,
    model: Vec<Content>,
}

fn page_of(content: Content) -> [u8; PAGE] {
    // The index is no part of it: the page may move to another place.
    content.map_or([0; PAGE], |tag| Pattern::new(tag).page(0))
}

impl Memory {
    /// New memory, of a random kind and size.
    pub fn new(dice: &mut Rng) -> Self {
        let region = match dice.u8(0..4) {
            0 => Region::new(dice.usize(1..HUGE)),
            1 => {
                let region = Region::new(dice.usize(1..LARGEST));
                region.advise(0..region.pages(), MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
                region
            }
            _ => Region::huge(dice.usize(1..=2)),
        };
        let mut memory = Self { model: vec![None; region.pages()], region };
        if dice.bool() {
            memory.write(0..memory.model.len(), dice);
        }
        memory
    }

    /// One random operation. The memory may be somewhere else afterwards, or another one.
    pub fn step(mut self, device: &Device, dice: &mut Rng) -> Self {
        let pages = self.some(dice);
        let span = self.region.part(pages.clone());
        match dice.u8(0..29) {
            0..=5 => drop(device.migrate(span, Direction::ToDevice)),
            6 => drop(device.migrate(self.region.span(), Direction::ToDevice)),
            7..=8 => drop(device.migrate(span, Direction::ToSystem)),
            9..=12 => self.write(pages, dice),
            13..=14 => self.check(pages),
            15 => self.check_digests(device, pages),
            16 => self.empty(pages),
            17 => self.protect(device, pages),
            18 => self.lock(device, pages),
            19 => self.advise(pages, dice),
            20 => self.protect_by_userfaultfd(device, pages),
            21 => self.miss(device, pages),
            22 => self.pin(device, pages),
            23 => drop(device.evict()),
            24 => {
                let (target, keep) = (Region::new(self.model.len()), self.model.len());
                return self.relocate(target, keep);
            }
            25 => return self.grow(dice),
            26 => return self.shrink(dice),
            27 => self.replace(pages),
            _ => {
                self.check_all();
                return Self::new(dice);
            }
        }
        self
    }

    /// Asserts what some pages hold, without changing any.
    pub fn check_some(&self, device: &Device, dice: &mut Rng) {
        let pages = self.some(dice);
        match dice.u8(0..3) {
            0 => self.check(pages),
            1 => self.check_digests(device, pages),
            _ => drop(device.migrate(self.region.part(pages), Direction::ToDevice)),
        }
    }

    /// Writes some pages, for a process that goes away afterwards.
    pub fn scribble(&self, device: &Device, dice: &mut Rng) {
        let (pages, tag) = (self.some(dice), dice.u64(..));
        let content = page_of(Some(tag));
        pages.clone().for_each(|index| self.region.write(index, &content));
        device.migrate(self.region.part(pages.clone()), Direction::ToDevice);
        pages.for_each(|index| assert!(self.region.read(index) == content, "page {index} in a forked process"));
    }

    /// Asserts what all pages hold.
    pub fn check_all(&self) {
        self.check(0..self.model.len());
    }

    fn some(&self, dice: &mut Rng) -> Range<usize> {
        let start = dice.usize(0..self.model.len());
        start..(start + dice.usize(1..=REACH)).min(self.model.len())
    }

    fn check(&self, pages: Range<usize>) {
        for index in pages {
            let found = self.region.read(index);
            assert!(found == page_of(self.model[index]), "page {index} does not hold what was written last");
        }
    }

    fn check_digests(&self, device: &Device, pages: Range<usize>) {
        let (digests, _) = device.try_digest(self.region.part(pages.clone())).expect("ERSATZ_IOC_DIGEST");
        for (index, digest) in pages.zip(digests) {
            assert_eq!(digest, u64::from(crc32c::crc32c(&page_of(self.model[index]))), "page {index} to the device");
        }
    }

    fn write(&mut self, pages: Range<usize>, dice: &mut Rng) {
        let tag = dice.u64(..);
        let content = page_of(Some(tag));
        for index in pages {
            self.region.write(index, &content);
            self.model[index] = Some(tag);
        }
    }

    fn empty(&mut self, pages: Range<usize>) {
        self.region.advise(pages.clone(), MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
        self.model[pages].fill(None);
    }

    fn protect(&self, device: &Device, pages: Range<usize>) {
        self.region.protect(pages.clone(), ProtFlags::PROT_READ);
        device.migrate(self.region.part(pages.clone()), Direction::ToDevice);
        self.check(pages.start..pages.start + 1);
        self.region.protect(pages, READ_WRITE);
    }

    fn lock(&self, device: &Device, pages: Range<usize>) {
        lock_part(&self.region, pages.clone());
        device.migrate(self.region.part(pages.clone()), Direction::ToDevice);
        unlock_part(&self.region, pages);
    }

    fn advise(&self, pages: Range<usize>, dice: &mut Rng) {
        const ADVICE: [MmapAdvise; 5] = [
            MmapAdvise::MADV_COLD,
            MmapAdvise::MADV_PAGEOUT,
            MmapAdvise::MADV_WILLNEED,
            MmapAdvise::MADV_HUGEPAGE,
            MmapAdvise::MADV_NOHUGEPAGE,
        ];
        let advice = ADVICE[dice.usize(0..ADVICE.len())];
        self.region.advise(pages, advice).unwrap_or_else(|error| panic!("{advice:?}: {error}"));
    }

    fn protect_by_userfaultfd(&self, device: &Device, pages: Range<usize>) {
        let span = self.region.part(pages.clone());
        // Nothing is there to be protected where a page is missing.
        pages.clone().for_each(|index| _ = self.region.touch(index));
        let userfault = Userfault::open(REPORT_WRITE_PROTECT);
        userfault.register(span, WRITE_PROTECT);
        userfault.protect(span);
        device.migrate(span, Direction::ToDevice);
        let lost = entries(span).iter().filter(|entry| !entry.is_protected()).count();
        assert_eq!(lost, 0, "pages of {pages:?} that are no longer protected");
        self.check(pages.start..pages.start + 1);
        device.migrate(span, Direction::ToSystem);
        userfault.unprotect(span);
    }

    /// Pages that are not there while userfaultfd is asked for them cannot be touched: they are emptied before, and stay so.
    fn miss(&mut self, device: &Device, pages: Range<usize>) {
        self.empty(pages.clone());
        let span = self.region.part(pages.clone());
        let userfault = Userfault::open(0);
        userfault.register(span, MISSING);
        assert_eq!(device.migrate(span, Direction::ToDevice).moved, 0, "pages that only userfaultfd may fill");
        drop(userfault);
        self.check(pages.start..pages.start + 1);
    }

    fn pin(&self, device: &Device, pages: Range<usize>) {
        let _pin = Pin::new(&self.region, pages.start..pages.end.min(pages.start + 4));
        device.migrate(self.region.part(pages.clone()), Direction::ToDevice);
        device.migrate(self.region.part(pages), Direction::ToSystem);
    }

    /// Moves the first pages to other addresses, and gives up the rest.
    fn relocate(mut self, target: Region, keep: usize) -> Self {
        move_part_to(&self.region, 0..keep, &target, 0);
        // Now, before another mapping comes to be in the gap.
        drop(self.region);
        self.model.truncate(keep);
        self.model.resize(target.pages(), None);
        Self { region: target, model: self.model }
    }

    fn grow(self, dice: &mut Rng) -> Self {
        let keep = self.model.len();
        let target = Region::new(keep + dice.usize(1..=HUGE));
        if target.pages() > LARGEST { self } else { self.relocate(target, keep) }
    }

    fn shrink(self, dice: &mut Rng) -> Self {
        let keep = dice.usize(1..=self.model.len());
        self.relocate(Region::new(keep), keep)
    }

    /// Maps fresh memory in the place of some pages.
    fn replace(&mut self, pages: Range<usize>) {
        let fresh = Region::new(pages.len());
        move_part_to(&fresh, 0..pages.len(), &self.region, pages.start);
        self.model[pages].fill(None);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Walks against a model: a map of pages, written into tables of random shapes at random places.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use ersatz_abi::mmu::{AddressSpaceControl, PageSize};
use proptest::prelude::*;

use super::super::fixture::Memory;
use super::*;
use ersatz_device_testing::page_tables::{PageTables, leaf_level};

const PEERS: u8 = 0b0000_0101;
const ALL_ACCESS: [AccessKind; 4] = [AccessKind::Read, AccessKind::Write, AccessKind::Atomic, AccessKind::Prefetch];

/// A driver: its tables, and what it believes to have mapped, by first address.
struct Driver {
    memory: Rc<Memory>,
    tables: PageTables<Box<dyn FnMut() -> Location>>,
    pages: BTreeMap<u64, Page>,
    space: AddressSpace,
}

impl Driver {
    /// `places` says where tables go.
    fn new(five_levels: bool, places: Vec<u64>) -> Self {
        let memory = Rc::new(Memory::with_peers(PEERS));
        let tables = {
            let (memory, mut number) = (memory.clone(), 0);
            let allocate: Box<dyn FnMut() -> Location> = Box::new(move || {
                // The low bits keep tables apart, whatever the place.
                let place = places[number as usize % places.len()];
                let address = (((place % (1 << 40)) << 12) & !0xffff_f000) | (number << 12);
                number += 1;
                let at = if place >> 63 == 0 { Location::vram(address) } else { Location::system(address) };
                memory.add_table(at);
                at
            });
            PageTables::new(five_levels, allocate)
        };
        let control = AddressSpaceControl(0).with_enable(true).with_five_levels(five_levels);
        let space = AddressSpace { root: tables.root(), control };
        Self { memory, tables, pages: BTreeMap::new(), space }
    }

    fn map(&mut self, address: u64, page: Page) {
        let end = address + page.size.bytes();
        let overlapping: Vec<u64> = self
            .pages
            .range(..end)
            .filter(|(start, page)| **start + page.size.bytes() > address)
            .map(|(start, _)| *start)
            .collect();
        let mut store = |at, value| self.memory.store(at, value);
        for start in overlapping {
            let old = self.pages.remove(&start).unwrap();
            self.tables.unmap(start, old.size, &mut store);
        }
        self.tables.map(address, page, &mut store);
        self.pages.insert(address, page);
    }

    fn walk(&self, address: u64, access: AccessKind) -> Result<Walked, PageFault> {
        walk(&*self.memory, self.space, address, access)
    }

    /// What a walk must find.
    fn expected(&self, address: u64, access: AccessKind) -> Result<Page, FaultKind> {
        if address >> address_bits(self.space.control.root_level()) != 0 {
            return Err(FaultKind::BadAddress);
        }
        let page =
            self.pages.range(..=address).next_back().filter(|(start, page)| address - **start < page.size.bytes());
        let (_, page) = page.ok_or(FaultKind::NotPresent)?;
        match access {
            AccessKind::Write | AccessKind::Atomic if !page.write => Err(FaultKind::WriteProtect),
            AccessKind::Atomic if !page.atomic => Err(FaultKind::AtomicDenied),
            _ => Ok(*page),
        }
    }
}

fn any_size() -> impl Strategy<Value = PageSize> {
    prop::sample::select(PageSize::ALL)
}

/// A page of any kind that there is, aligned.
fn any_page() -> impl Strategy<Value = Page> {
    (any_size(), any::<(bool, bool)>(), 0_u8..4, 0_u64..1 << 40).prop_map(|(size, (write, atomic), place, frame)| {
        let address = frame << 12 & !(size.bytes() - 1);
        let location = match place {
            0 => Location::vram(address),
            1 => Location::system(address),
            2 => Location::peer(0, address),
            _ => Location::peer(2, address),
        };
        Page { location, size, write, atomic }
    })
}

/// Addresses close together in a few far regions, so that pages replace each other and share tables.
fn any_address(regions: usize) -> impl Strategy<Value = (usize, u64)> {
    (0..regions, 0_u64..6 << 20)
}

#[derive(Debug, Clone)]
struct Layout {
    five_levels: bool,
    regions: Vec<u64>,
    places: Vec<u64>,
    pages: Vec<((usize, u64), Page)>,
}

fn any_layout() -> impl Strategy<Value = Layout> {
    let regions = prop::collection::vec(any::<u64>(), 3);
    let pages = prop::collection::vec((any_address(3), any_page()), 1..40);
    (any::<bool>(), regions, prop::collection::vec(any::<u64>(), 1..8), pages).prop_map(
        |(five_levels, regions, places, pages)| {
            let bits = if five_levels { 57 } else { 48 };
            // Whole 8 MiB, and the last one of the address space among them.
            let mut regions: Vec<u64> = regions.iter().map(|base| (base % (1 << bits)) & !((8 << 20) - 1)).collect();
            regions[0] = (1 << bits) - (8 << 20);
            Layout { five_levels, regions, places, pages }
        },
    )
}

impl Layout {
    fn address(&self, (region, offset): (usize, u64)) -> u64 {
        self.regions[region] + offset
    }

    fn driver(&self) -> Driver {
        let mut driver = Driver::new(self.five_levels, self.places.clone());
        for (at, page) in &self.pages {
            driver.map(self.address(*at) & !(page.size.bytes() - 1), *page);
        }
        driver
    }
}

proptest! {
    #[test]
    fn finds_what_is_mapped(
        layout in any_layout(),
        looks in prop::collection::vec(any_address(3), 1..60),
        far in prop::collection::vec(any::<u64>(), 4),
    ) {
        let driver = layout.driver();
        let edges = driver.pages.iter().flat_map(|(start, page)| {
            [start.wrapping_sub(1), *start, start + page.size.bytes() - 1, start + page.size.bytes()]
        });
        for address in looks.iter().map(|at| layout.address(*at)).chain(far).chain(edges) {
            for access in ALL_ACCESS {
                let found = driver.walk(address, access);
                prop_assert_eq!(
                    found.map(|walked| walked.page).map_err(|fault| fault.kind),
                    driver.expected(address, access),
                    "{:#x} {:?}", address, access
                );
                prop_assert!(found.is_ok_and(|walked| !walked.clean) || found.is_err(), "nobody asked for dirty bits");
            }
        }
    }

    /// One entry on the way is spoilt, each in a way that leads to a fault of its own at the level of that entry.
    #[test]
    fn a_spoilt_entry_is_a_fault_at_its_level(layout in any_layout(), which: prop::sample::Index, depth: prop::sample::Index) {
        let driver = layout.driver();
        let pages: Vec<_> = driver.pages.iter().collect();
        let (&start, &page) = pages[which.index(pages.len())];
        let way: Vec<_> = driver
            .tables
            .path(start)
            .into_iter()
            .filter(|(level, _)| *level >= leaf_level(page.size))
            .collect();
        let (level, at) = way[depth.index(way.len())];
        let good = PageTableEntry(driver.memory.load_u64(at).unwrap());
        for (bad, kind) in spoilt(good, level) {
            driver.memory.store(at, bad.0);
            let fault = driver.walk(start, AccessKind::Read).map(drop);
            prop_assert_eq!(fault, Err(PageFault { address: start, access: AccessKind::Read, kind, level }), "{:?} at level {} instead of {:?}", bad, level, good);
        }
        driver.memory.store(at, good.0);
        prop_assert_eq!(driver.walk(start, AccessKind::Read).map(|walked| walked.page), Ok(page));
    }

    /// Tables of any content lead to a page or to a fault, never to a panic, and never further down than there are levels.
    #[test]
    fn any_content_ends(words in prop::collection::vec(any::<u64>(), 8), root: u64, control in 0_u32..16, address: u64) {
        let memory = Memory::default();
        for frame in 0..4 {
            memory.add_table(Location::vram(frame << 12));
            for index in 0..512 {
                let word = words[(index % 8) as usize] ^ index << 12;
                // Mostly near: valid, in VRAM, among these very tables.
                let word = if word >> 62 == 0 { word } else { word & 0x300f | 1 };
                memory.store(Location::vram((frame << 12) | (index * 8)), word);
            }
        }
        let root = PageTableEntry(if root >> 62 == 0 { root } else { root & 0x3000 | 1 });
        let space = AddressSpace { root, control: AddressSpaceControl(control) };
        for access in ALL_ACCESS {
            if let Err(fault) = walk(&memory, space, address, access) {
                prop_assert!(fault.level <= space.control.root_level() + 1);
            }
        }
    }
}

/// Ways to spoil an entry that a walk goes through, and what that is called.
fn spoilt(good: PageTableEntry, level: u8) -> Vec<(PageTableEntry, FaultKind)> {
    let mut ways = vec![
        (good.with_valid(false), FaultKind::NotPresent),
        (PageTableEntry(good.0 & !1 | 0xfff0), FaultKind::NotPresent),
        (good.with_raw_aperture(3), FaultKind::BadAperture),
    ];
    ways.extend([7, 10, 11, 55, 63].map(|bit| (PageTableEntry(good.0 | 1 << bit), FaultKind::BadTable)));
    let in_peer = good.with_raw_aperture(Aperture::Peer as u64);
    if good.leaf() {
        ways.push((in_peer.with_peer(1), FaultKind::BadAperture));
        ways.push((in_peer.with_raw_aperture(Aperture::Vram as u64).with_peer(1), FaultKind::BadAperture));
        if good.big() || level == 1 {
            ways.push((good.with_frame(good.frame() | 1), FaultKind::BadTable));
        }
        if level == 0 {
            ways.push((good.with_leaf(false).with_raw_aperture(0).with_peer(0), FaultKind::BadTable));
        } else {
            ways.push((good.with_big(true), FaultKind::BadTable));
        }
    } else {
        ways.push((in_peer, FaultKind::BadAperture));
        // Nothing can be read there.
        ways.push((good.with_frame((1 << 40) - 1), FaultKind::BadTable));
        ways.extend([1, 2, 4, 5, 6].map(|bit| (PageTableEntry(good.0 | 1 << bit), FaultKind::BadTable)));
        if level > 1 {
            ways.push((good.with_leaf(true), FaultKind::BadTable));
        }
    }
    ways
}

fn small(address: u64, write: bool) -> Page {
    Page { location: Location::system(address), size: PageSize::Small, write, atomic: false }
}

fn tracking() -> Driver {
    let mut driver = Driver::new(false, vec![0, 1 << 63]);
    driver.space.control = driver.space.control.with_track(true);
    driver
}

#[test]
fn a_root_that_leads_nowhere() {
    let mut driver = Driver::new(false, vec![0]);
    let root = driver.space.root;
    for (bad, kind) in [
        (PageTableEntry(0), FaultKind::NotPresent),
        (root.with_leaf(true), FaultKind::BadTable),
        (root.with_raw_aperture(2), FaultKind::BadAperture),
        (root.with_frame((1 << 40) - 1), FaultKind::BadTable),
    ] {
        driver.space.root = bad;
        let fault = PageFault { address: 0, access: AccessKind::Read, kind, level: 4 };
        assert_eq!(driver.walk(0, AccessKind::Read), Err(fault), "{bad:?}");
    }
}

#[test]
fn tracking_sets_accessed_and_dirty() {
    let mut driver = tracking();
    driver.map(0x5000, small(0x9000, true));
    let at = driver.tables.entries(0x5000, PageSize::Small)[0];
    let bits = |driver: &Driver| {
        let entry = PageTableEntry(driver.memory.load_u64(at).unwrap());
        (entry.accessed(), entry.dirty())
    };
    assert_eq!(bits(&driver), (false, false));
    for (access, clean, dirty) in [
        (AccessKind::Prefetch, true, false),
        (AccessKind::Read, true, false),
        (AccessKind::Write, false, true),
        (AccessKind::Read, false, true),
    ] {
        assert_eq!(driver.walk(0x5008, access).unwrap().clean, clean, "{access:?}");
        assert_eq!(bits(&driver), (true, dirty), "{access:?}");
    }
}

#[test]
fn a_denied_access_leaves_no_mark() {
    let mut driver = tracking();
    driver.map(0x5000, small(0x9000, false));
    let at = driver.tables.entries(0x5000, PageSize::Small)[0];
    let before = driver.memory.load_u64(at);
    let fault = |access| PageFault { address: 0x5000, access, kind: FaultKind::WriteProtect, level: 0 };
    assert_eq!(driver.walk(0x5000, AccessKind::Write), Err(fault(AccessKind::Write)));
    assert_eq!(driver.walk(0x5000, AccessKind::Atomic), Err(fault(AccessKind::Atomic)));
    assert_eq!(driver.memory.load_u64(at), before);
}

#[test]
fn of_a_64k_page_the_entry_is_marked_that_was_read() {
    let mut driver = tracking();
    let page = Page { size: PageSize::Big, ..small(0x1_0000, true) };
    driver.map(0x2_0000, page);
    assert_eq!(driver.walk(0x2_3000, AccessKind::Write).unwrap().page, page);
    for (number, at) in driver.tables.entries(0x2_0000, PageSize::Big).into_iter().enumerate() {
        let entry = PageTableEntry(driver.memory.load_u64(at).unwrap());
        assert_eq!((entry.accessed(), entry.dirty()), (number == 3, number == 3), "entry {number}");
    }
}

#[test]
fn tables_of_a_tracking_space_must_be_writable() {
    let mut driver = tracking();
    driver.map(0x5000, small(0x9000, true));
    driver.memory.read_only.set(true);
    let fault = PageFault { address: 0x5000, access: AccessKind::Read, kind: FaultKind::BadTable, level: 0 };
    assert_eq!(driver.walk(0x5000, AccessKind::Read), Err(fault));
    driver.space.control = driver.space.control.with_track(false);
    assert!(driver.walk(0x5000, AccessKind::Write).is_ok());
}

/// Memory whose owner changes an entry just before a walk marks it, a number of times.
struct Contended {
    memory: Rc<Memory>,
    times: Cell<u32>,
    change: fn(PageTableEntry) -> PageTableEntry,
}

impl TableMemory for Contended {
    fn load_u64(&self, at: Location) -> Option<u64> {
        self.memory.load_u64(at)
    }

    fn compare_exchange_u64(&self, at: Location, current: u64, new: u64) -> Option<Result<u64, u64>> {
        if let Some(left) = self.times.get().checked_sub(1) {
            self.times.set(left);
            self.memory.store(at, (self.change)(PageTableEntry(current)).0);
        }
        self.memory.compare_exchange_u64(at, current, new)
    }

    fn has_peer(&self, peer: u8) -> bool {
        self.memory.has_peer(peer)
    }
}

#[test]
fn an_entry_that_changes_under_a_walk_is_read_again() {
    let mut driver = tracking();
    driver.map(0x5000, small(0x9000, true));
    let at = driver.tables.entries(0x5000, PageSize::Small)[0];
    let contended = |times, change| Contended { memory: driver.memory.clone(), times: Cell::new(times), change };

    let moved = contended(1, |entry| entry.with_frame(entry.frame() + 1));
    let walked = walk(&moved, driver.space, 0x5000, AccessKind::Write).unwrap();
    assert_eq!(walked.page, small(0xa000, true));
    let marked = PageTableEntry::page(walked.page).with_accessed(true).with_dirty(true);
    assert_eq!(driver.memory.load_u64(at), Some(marked.0));

    driver.memory.store(at, PageTableEntry::page(small(0x9000, true)).0);
    let unmapped = contended(1, |_| PageTableEntry(0));
    let fault = PageFault { address: 0x5000, access: AccessKind::Read, kind: FaultKind::NotPresent, level: 0 };
    assert_eq!(walk(&unmapped, driver.space, 0x5000, AccessKind::Read), Err(fault));
    assert_eq!(driver.memory.load_u64(at), Some(0), "an entry that is gone is not marked");

    driver.memory.store(at, PageTableEntry::page(small(0x9000, true)).0);
    let restless = contended(u32::MAX, |entry| entry.with_frame(entry.frame() + 1));
    assert_eq!(walk(&restless, driver.space, 0x5000, AccessKind::Read), Err(fault), "but it ends");
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The MMU as a whole, against a model that knows which translations may be stale.

mod marks;
mod threads;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use ersatz_abi::fault::{AccessKind, FaultKind};
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{AddressSpaceControl, Page, PageSize};
use proptest::prelude::*;

use super::fixture::Memory;
use super::memory::TableMemory;
use super::walk::{PageFault, denied};
use super::*;
use ersatz_device_testing::page_tables::PageTables;

const GRANULE: u64 = 4096;
const SPACES: u8 = 2;
const ENGINES: u8 = 2;
/// Where mapped addresses begin, by address space.
const BASES: [u64; SPACES as usize] = [(1 << 48) - (8 << 20), 0];

type Tables = PageTables<Box<dyn FnMut() -> Location>>;

/// An MMU with all its memory, and the drivers of its address spaces.
struct Bench {
    mmu: Mmu,
    memory: Rc<Memory>,
    tables: Vec<Tables>,
}

impl Bench {
    fn new(control: AddressSpaceControl) -> Self {
        let memory = Rc::new(Memory::default());
        let mmu = Mmu::new(ENGINES, Arc::default(), Tracer::disabled());
        let next = Rc::new(Cell::new(0));
        let tables: Vec<Tables> = (0..SPACES)
            .map(|asid| {
                let (memory, next) = (memory.clone(), next.clone());
                let allocate: Box<dyn FnMut() -> Location> = Box::new(move || {
                    let address = next.replace(next.get() + GRANULE);
                    let at = if address & GRANULE == 0 { Location::vram(address) } else { Location::system(address) };
                    memory.add_table(at);
                    at
                });
                let tables = PageTables::new(control.five_levels(), allocate);
                assert!(mmu.spaces.set_root(asid, |_| tables.root().0));
                assert!(mmu.set_control(asid, control.with_enable(true).0));
                tables
            })
            .collect();
        Self { mmu, memory, tables }
    }

    fn map(&mut self, asid: u8, address: u64, page: Page) {
        self.tables[usize::from(asid)].map(address, page, &mut |at, value| self.memory.store(at, value));
    }

    fn unmap(&mut self, asid: u8, address: u64, size: PageSize) {
        self.tables[usize::from(asid)].unmap(address, size, &mut |at, value| self.memory.store(at, value));
    }

    fn translate(&self, engine: u8, asid: u8, address: u64, access: AccessKind) -> Result<Translation, TranslateError> {
        self.mmu.lock(engine).translate(&*self.memory, asid, address, access)
    }

    /// What the thread of the device does.
    fn serve(&self) {
        serve(&self.mmu.requests, &self.mmu.tlbs, 0, |done| self.mmu.announce(done));
    }
}

/// What 4 KiB of virtual addresses lead to.
type State = Option<Page>;

/// What the driver did, and what it may therefore see.
#[derive(Default)]
struct Model {
    /// The pages that are mapped, by first address.
    pages: HashMap<u8, BTreeMap<u64, Page>>,
    /// For each granule since when it leads where, the last one still.
    history: HashMap<(u8, u64), Vec<(u64, State)>>,
    /// Since when no older state may be seen.
    floor: HashMap<(u8, u64), u64>,
    now: u64,
}

impl Model {
    fn set(&mut self, asid: u8, address: u64, size: PageSize, page: Option<Page>) {
        self.now += 1;
        for offset in (0..size.bytes()).step_by(GRANULE as usize) {
            let state = page.map(|page| {
                let location = Location { address: page.location.address + offset, ..page.location };
                Page { location, size: PageSize::Small, ..page }
            });
            self.history.entry((asid, address + offset)).or_default().push((self.now, state));
        }
        let pages = self.pages.entry(asid).or_default();
        match page {
            Some(page) => pages.insert(address, page),
            None => pages.remove(&address),
        };
    }

    fn overlapping(&self, asid: u8, address: u64, size: PageSize) -> Vec<(u64, Page)> {
        let overlaps = |(start, page): &(&u64, &Page)| **start + page.size.bytes() > address;
        let Some(pages) = self.pages.get(&asid) else { return Vec::new() };
        pages.range(..address + size.bytes()).filter(overlaps).map(|(start, page)| (*start, *page)).collect()
    }

    /// An invalidation that was requested at `time` is acknowledged.
    fn acknowledge(&mut self, time: u64, invalidation: Invalidation) {
        for &(asid, granule) in self.history.keys() {
            let meant = match invalidation {
                Invalidation::All => true,
                Invalidation::AddressSpace(meant) => meant == asid,
                Invalidation::Range { asid: meant, address, length } => {
                    meant == asid && granule < address + length && granule + GRANULE > address
                }
            };
            if meant {
                let floor = self.floor.entry((asid, granule)).or_default();
                *floor = time.max(*floor);
            }
        }
    }

    /// Every state in which an address may be seen.
    fn states(&self, asid: u8, address: u64) -> Vec<State> {
        let key = (asid, address - address % GRANULE);
        let floor = self.floor.get(&key).copied().unwrap_or_default();
        let history = self.history.get(&key).map_or(&[][..], Vec::as_slice);
        let at_floor = history.iter().rev().find(|(since, _)| *since <= floor).and_then(|(_, state)| *state);
        let later = history.iter().filter(|(since, _)| *since > floor).map(|(_, state)| *state);
        [at_floor].into_iter().chain(later).collect()
    }

    fn current(&self, asid: u8, address: u64) -> State {
        *self.states(asid, address).last().expect("the one at the floor")
    }

    /// Whether a result is one that may be seen.
    fn permits(&self, asid: u8, address: u64, access: AccessKind, result: Result<Translation, TranslateError>) -> bool {
        let states = |address| self.states(asid, address).into_iter().flatten();
        match result {
            Ok(Translation { location, length, .. }) => [0, length / 2, length - 1].into_iter().all(|offset| {
                let at = address + offset;
                let granule = Location { address: location.address + offset - at % GRANULE, ..location };
                states(at).any(|page| page.location == granule && denied(&page, access).is_none())
            }),
            Err(TranslateError::PageFault(PageFault { kind: FaultKind::NotPresent, .. })) => {
                self.current(asid, address).is_none()
            }
            Err(TranslateError::PageFault(PageFault { kind, .. })) => {
                states(address).any(|page| denied(&page, access) == Some(kind))
            }
            Err(TranslateError::SpaceDisabled) => false,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Map { asid: u8, offset: u64, size: PageSize, write: bool, atomic: bool },
    Unmap { asid: u8, offset: u64 },
    Protect { asid: u8, offset: u64, write: bool, atomic: bool },
    Request(Invalidation),
    Serve,
    Access { engine: u8, asid: u8, offset: u64, access: AccessKind },
}

fn any_act() -> impl Strategy<Value = Act> {
    let asid = || 0..SPACES;
    // Three pages of 2 MiB, in each a few smaller ones.
    let offset = || (0_u64..3, 0_u64..20).prop_map(|(huge, small)| (huge << 21) + small * GRANULE);
    let rights = || any::<(bool, bool)>();
    let size = prop::sample::select(PageSize::ALL);
    let range = (asid(), offset(), 1_u64..4 << 20).prop_map(|(asid, offset, length)| Invalidation::Range {
        asid,
        address: BASES[usize::from(asid)] + offset,
        length,
    });
    let access = prop::sample::select(AccessKind::ALL);
    prop_oneof![
        6 => (asid(), offset(), size, rights())
            .prop_map(|(asid, offset, size, (write, atomic))| Act::Map { asid, offset, size, write, atomic }),
        2 => (asid(), offset()).prop_map(|(asid, offset)| Act::Unmap { asid, offset }),
        2 => (asid(), offset(), rights())
            .prop_map(|(asid, offset, (write, atomic))| Act::Protect { asid, offset, write, atomic }),
        3 => range.prop_map(Act::Request),
        1 => asid().prop_map(|asid| Act::Request(Invalidation::AddressSpace(asid))),
        1 => Just(Act::Request(Invalidation::All)),
        3 => Just(Act::Serve),
        24 => (0..ENGINES, asid(), offset(), access)
            .prop_map(|(engine, asid, offset, access)| Act::Access { engine, asid, offset: offset + 8, access }),
    ]
}

proptest! {
    /// Before an acknowledgement a translation may be old or new, behind it only what was there since it was asked for; and
    /// what is not there is never remembered.
    #[test]
    fn stale_until_acknowledged(
        acts in prop::collection::vec(any_act(), 1..120),
        track: bool,
        five_levels: bool,
    ) {
        let mut bench = Bench::new(AddressSpaceControl(0).with_track(track).with_five_levels(five_levels));
        let mut model = Model::default();
        let mut pending = Vec::new();
        for (number, act) in (1_u64..).zip(acts) {
            match act {
                Act::Map { asid, offset, size, write, atomic } => {
                    let address = BASES[usize::from(asid)] + (offset & !(size.bytes() - 1));
                    for (start, old) in model.overlapping(asid, address, size) {
                        bench.unmap(asid, start, old.size);
                        model.set(asid, start, old.size, None);
                    }
                    // Never the same page twice.
                    let page = Page { location: Location::system(number << 21), size, write, atomic };
                    bench.map(asid, address, page);
                    model.set(asid, address, size, Some(page));
                }
                Act::Unmap { asid, offset } => {
                    let address = BASES[usize::from(asid)] + offset;
                    for (start, old) in model.overlapping(asid, address, PageSize::Small) {
                        bench.unmap(asid, start, old.size);
                        model.set(asid, start, old.size, None);
                    }
                }
                Act::Protect { asid, offset, write, atomic } => {
                    let address = BASES[usize::from(asid)] + offset;
                    for (start, old) in model.overlapping(asid, address, PageSize::Small) {
                        let page = Page { write, atomic, ..old };
                        bench.map(asid, start, page);
                        model.set(asid, start, old.size, Some(page));
                    }
                }
                Act::Request(invalidation) => {
                    let number = bench.mmu.request(invalidation, None);
                    pending.push((number, model.now, invalidation));
                }
                Act::Serve => {
                    bench.serve();
                    let acknowledged = bench.mmu.acknowledged();
                    for (number, time, invalidation) in pending.drain(..) {
                        prop_assert!(number <= acknowledged, "nothing else is pending");
                        model.acknowledge(time, invalidation);
                    }
                }
                Act::Access { engine, asid, offset, access } => {
                    let address = BASES[usize::from(asid)] + offset;
                    let result = bench.translate(engine, asid, address, access);
                    let states = model.states(asid, address);
                    prop_assert!(
                        model.permits(asid, address, access, result),
                        "{:?} of {:#x} in {}: {:?}, may be {:?}", access, address, asid, result, states
                    );
                }
            }
        }
        let time = model.now;
        bench.mmu.request(Invalidation::All, None);
        bench.serve();
        model.acknowledge(time, Invalidation::All);
        for (&(asid, granule), history) in &model.history {
            prop_assert_eq!(model.states(asid, granule), [history.last().and_then(|(_, state)| *state)]);
            for engine in 0..ENGINES {
                let result = bench.translate(engine, asid, granule, AccessKind::Read);
                prop_assert!(model.permits(asid, granule, AccessKind::Read, result), "{:#x}: {:?}", granule, result);
            }
        }
    }
}

fn system_page(address: u64, write: bool) -> Page {
    Page { location: Location::system(address), size: PageSize::Small, write, atomic: write }
}

fn fault(access: AccessKind, kind: FaultKind) -> TranslateError {
    TranslateError::PageFault(PageFault { address: 0x5000, access, kind, level: 0 })
}

/// The hazards that the manual promises, one by one.
#[test]
fn what_is_cached_is_not_looked_up_again() {
    let mut bench = Bench::new(AddressSpaceControl(0));
    let read = |bench: &Bench| bench.translate(0, 1, 0x5000, AccessKind::Read).map(|found| found.location.address);
    let no_table = PageFault { address: 0x5000, access: AccessKind::Read, kind: FaultKind::NotPresent, level: 3 };
    assert_eq!(read(&bench), Err(TranslateError::PageFault(no_table)));
    bench.map(1, 0x5000, system_page(0x9000, false));
    assert_eq!(read(&bench), Ok(0x9000), "what is not there is not cached");
    bench.map(1, 0x5000, system_page(0x9000, true));
    let write = bench.translate(0, 1, 0x5000, AccessKind::Write);
    assert_eq!(write, Err(fault(AccessKind::Write, FaultKind::WriteProtect)), "wider rights need an invalidation, too");
    bench.unmap(1, 0x5000, PageSize::Small);
    assert_eq!(read(&bench), Ok(0x9000), "stale");
    assert_eq!(
        bench.translate(1, 1, 0x5000, AccessKind::Read),
        Err(fault(AccessKind::Read, FaultKind::NotPresent)),
        "the other engine"
    );
    assert!(bench.mmu.set_control(1, 0));
    assert_eq!(read(&bench), Ok(0x9000), "stale even in an address space that is disabled");
    bench.mmu.request(Invalidation::Range { asid: 1, address: 0x5fff, length: 1 }, None);
    bench.serve();
    assert_eq!(read(&bench), Err(TranslateError::SpaceDisabled));
}

#[test]
fn counts_hits_misses_and_invalidations() {
    let mut bench = Bench::new(AddressSpaceControl(0));
    bench.map(0, BASES[0], system_page(0x9000, false));
    for access in [AccessKind::Read, AccessKind::Prefetch, AccessKind::Write] {
        let _ = bench.translate(0, 0, BASES[0], access);
    }
    let _ = bench.translate(0, 0, BASES[0] + GRANULE, AccessKind::Read);
    bench.mmu.request(Invalidation::All, None);
    bench.mmu.request(Invalidation::All, None);
    bench.serve();
    let counter = |counter| bench.mmu.counters.get(counter);
    assert_eq!((counter(Counter::TlbHits), counter(Counter::TlbMisses), counter(Counter::Invalidations)), (2, 2, 2));
}

#[test]
fn a_reset_forgets() {
    let mut bench = Bench::new(AddressSpaceControl(0));
    bench.map(0, BASES[0], system_page(0x9000, true));
    bench.translate(1, 0, BASES[0], AccessKind::Read).unwrap();
    bench.mmu.set_window(|window| window.address = 7);
    assert!(bench.mmu.request_by_register(InvalidateTarget(0).with_raw_scope(InvalidateScope::AddressSpace as u64)));
    assert_eq!(bench.mmu.window(), Window { address: 7, length: 0, requested: 1 });
    bench.serve();
    bench.mmu.request(Invalidation::All, None);
    bench.mmu.reset();
    bench.serve();
    assert_eq!((bench.mmu.window(), bench.mmu.acknowledged()), (Window::default(), 0));
    assert_eq!(bench.translate(1, 0, BASES[0], AccessKind::Read), Err(TranslateError::SpaceDisabled));
}

#[test]
fn what_a_register_cannot_ask_for() {
    let bench = Bench::new(AddressSpaceControl(0));
    let ask = |target: InvalidateTarget, address, length| {
        bench.mmu.set_window(|window| (window.address, window.length) = (address, length));
        bench.mmu.request_by_register(target)
    };
    let of = |scope: u64| InvalidateTarget(0).with_raw_scope(scope);
    assert!(!ask(of(3), 0, 1) && !ask(InvalidateTarget(1 << 18), 0, 1));
    assert!(!ask(of(2).with_asid(256), 0, 1) && !ask(of(0).with_asid(1), 0, 1));
    assert!(!ask(of(2), 0, 0) && !ask(of(2), u64::MAX, 2));
    assert_eq!(bench.mmu.window().requested, 0);
    assert!(ask(of(2), u64::MAX, 1) && ask(of(0), 7, 7), "address and length are for ranges");
    assert_eq!(bench.mmu.window().requested, 2);
}

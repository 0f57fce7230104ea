// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The protocol of invalidations: by hand, and in every order that the memory model allows.

use ersatz_abi::fault::AccessKind;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{AddressSpaceControl, Page, PageSize, PageTableEntry, TABLE_BYTES};
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::sync::{Arc, Mutex as LoomMutex};
use loom::thread;

use super::*;
use crate::mmu::memory::TableMemory;
use crate::mmu::space::AddressSpace;
use crate::mmu::translate::{fill, look_up};
use crate::mmu::walk::Walked;
use crate::sync::Mutex;

const RANGE: Invalidation = Invalidation::Range { asid: 0, address: 0, length: 1 };

fn page(address: u64) -> Page {
    Page { location: Location::system(address), size: PageSize::Small, write: true, atomic: true }
}

fn done(first: u64, last: u64, awaited: bool) -> Option<Done> {
    Some(Done { numbers: first..=last, awaited })
}

#[test]
fn numbers_count_from_one_and_are_acknowledged_together() {
    let requests = Mutex::new(Requests::default());
    let tlbs: [Mutex<Tlb>; 2] = Default::default();
    assert_eq!(serve(&requests, &tlbs, 0, |_| panic!("nothing to announce")), None);
    assert_eq!([false, true, false].map(|awaited| requests.lock().add(RANGE, awaited)), [1, 2, 3]);
    assert_eq!(requests.lock().acknowledged(), 0);
    let mut announced = None;
    let acknowledged = serve(&requests, &tlbs, 0, |done| announced = Some(done.clone()));
    assert_eq!((acknowledged, announced), (done(1, 3, true), done(1, 3, true)));
    assert_eq!(requests.lock().acknowledged(), 3);
    assert_eq!(requests.lock().add(Invalidation::All, false), 4);
    assert_eq!(serve(&requests, &tlbs, 0, |_| ()), done(4, 4, false));
}

#[test]
fn more_than_can_wait_becomes_everything() {
    let requests = Mutex::new(Requests::default());
    let tlbs: [Mutex<Tlb>; 1] = Default::default();
    let other = |asid| tlbs[0].lock().find(asid, 0).is_some();
    tlbs[0].lock().insert(7, 0, Walked { page: page(0), clean: false });
    for _ in 0..CAPACITY {
        requests.lock().add(RANGE, false);
    }
    assert!(serve(&requests, &tlbs, 0, |_| ()).is_some() && other(7), "all of them had room");
    for _ in 0..1000 * CAPACITY {
        requests.lock().add(RANGE, false);
    }
    assert!(requests.lock().pending.capacity() <= 2 * CAPACITY);
    let last = 1001 * CAPACITY as u64;
    assert_eq!(serve(&requests, &tlbs, 0, |_| ()), done(CAPACITY as u64 + 1, last, false));
    assert!(!other(7));
}

/// What follows an invalidation of everything is part of it, but still waits for it.
#[test]
fn nothing_is_added_to_everything() {
    let mut requests = Requests::default();
    assert_eq!([RANGE, Invalidation::All, RANGE].map(|request| requests.add(request, false)), [1, 2, 3]);
    assert_eq!(requests.pending, [Invalidation::All]);
    assert_eq!(requests.take().unwrap().last, 3);
    assert!(requests.take().is_none());
}

#[test]
fn a_reset_starts_numbers_again() {
    let mut requests = Requests::default();
    requests.add(RANGE, true);
    let batch = requests.take().unwrap();
    requests.add(RANGE, true);
    requests.reset(|_| ());
    requests.carried_out(batch, 0);
    assert_eq!(requests.acknowledge(u64::MAX, |_| panic!("not acknowledged")), None);
    assert!(!requests.is_due(u64::MAX) && requests.acknowledged() == 0);
    assert_eq!(requests.add(RANGE, false), 1);
    assert!(!requests.take().unwrap().awaited, "that was before the reset");
}

#[test]
fn acknowledgements_are_held_back_in_their_order() {
    let requests = Mutex::new(Requests { delay: 100, ..Requests::default() });
    let tlbs: [Mutex<Tlb>; 1] = Default::default();
    tlbs[0].lock().insert(0, 0, Walked { page: page(0), clean: false });
    let serve = |now| serve(&requests, &tlbs, now, |_| ());
    requests.lock().add(RANGE, true);
    assert!(requests.lock().is_due(0));
    assert_eq!(serve(5), None);
    assert!(tlbs[0].lock().find(0, 0).is_none(), "forgotten at once");
    requests.with(|requests| {
        assert_eq!((requests.acknowledged(), requests.deadline()), (0, Some(105)));
        assert!(!requests.is_due(104) && requests.is_due(105));
    });
    // Without a delay, but behind one that has it.
    requests.lock().delay = 0;
    requests.lock().add(RANGE, false);
    assert_eq!(serve(50), None);
    assert_eq!(serve(105), done(1, 2, true));
    assert_eq!(requests.lock().deadline(), None);
}

#[test]
fn a_reset_forgets_acknowledgements_that_are_held_back() {
    let requests = Mutex::new(Requests { delay: 100, ..Requests::default() });
    let tlbs: [Mutex<Tlb>; 1] = Default::default();
    requests.lock().add(RANGE, true);
    assert_eq!(serve(&requests, &tlbs, 0, |_| ()), None);
    requests.lock().reset(|_| ());
    assert_eq!(requests.lock().deadline(), None);
    requests.lock().add(RANGE, false);
    assert_eq!(serve(&requests, &tlbs, 100, |_| ()), None, "the delay stays");
    assert_eq!(serve(&requests, &tlbs, 200, |_| ()), done(1, 1, false));
}

/// Where the page is at first, and where the driver moves it.
const OLD: u64 = 0x1000;
const NEW: u64 = 0x2000;

/// One engine, one page at virtual address 0, and the memory it was in.
struct World {
    /// The entry of the page; the tables above it never change.
    entry: AtomicU64,
    requests: LoomMutex<Requests>,
    tlbs: [LoomMutex<Tlb>; 1],
    /// The old page belongs to another process.
    freed: AtomicBool,
}

/// Tables at frames 0 to 3, by level.
impl TableMemory for World {
    fn load_u64(&self, at: Location) -> Option<u64> {
        match at.address / TABLE_BYTES {
            0 => Some(self.entry.load(Ordering::Acquire)),
            level => Some(PageTableEntry::table(Location::vram((level - 1) * TABLE_BYTES)).0),
        }
    }

    fn compare_exchange_u64(&self, _: Location, _: u64, _: u64) -> Option<Result<u64, u64>> {
        None
    }

    fn has_peer(&self, _: u8) -> bool {
        false
    }
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            entry: AtomicU64::new(PageTableEntry::page(page(OLD)).0),
            requests: LoomMutex::new(Requests::default()),
            tlbs: [LoomMutex::new(Tlb::new())],
            freed: AtomicBool::new(false),
        })
    }

    fn translate(&self, tlb: &mut Tlb) -> u64 {
        let root = PageTableEntry::table(Location::vram(3 * TABLE_BYTES));
        let space = AddressSpace { root, control: AddressSpaceControl(0).with_enable(true) };
        let found = look_up(tlb, 0, 0, AccessKind::Read)
            .unwrap_or_else(|| fill(tlb, self, space, 0, 0, AccessKind::Read))
            .expect("always mapped somewhere");
        found.location.address
    }

    fn access(&self, location: u64) {
        assert!(location == NEW || !self.freed.load(Ordering::Relaxed), "access to memory that was given away");
    }

    /// The driver moves the page, and gives the old one away if it sees the acknowledgement; whether it did.
    fn move_page(&self) -> bool {
        self.entry.store(PageTableEntry::page(page(NEW)).0, Ordering::Release);
        let number = self.requests.with(|requests| requests.add(RANGE, false));
        let acknowledged = self.requests.with(|requests| requests.acknowledged()) >= number;
        if acknowledged {
            self.freed.store(true, Ordering::Relaxed);
        }
        acknowledged
    }
}

/// Runs an engine, the thread that invalidates and a driver in every order; how often the driver saw the acknowledgement while
/// the engine may still have been at it.
fn explore(engine: fn(&World)) -> usize {
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = seen.clone();
    loom::model(move || {
        let world = World::new();
        let server: fn(&World) = |world| {
            serve(&world.requests, &world.tlbs, 0, |_| ());
        };
        let threads = [engine, server].map(|work| {
            let world = world.clone();
            thread::spawn(move || work(&world))
        });
        if world.move_page() {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        serve(&world.requests, &world.tlbs, 0, |_| ());
        assert_eq!(world.requests.with(|requests| requests.acknowledged()), 1);
        assert_eq!(world.tlbs[0].with(|tlb| world.translate(tlb)), NEW);
    });
    seen.load(std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn no_access_through_an_old_translation_follows_the_acknowledgement() {
    let engine = |world: &World| {
        for _ in 0..2 {
            world.tlbs[0].with(|tlb| world.access(world.translate(tlb)));
        }
    };
    assert!(explore(engine) > 0, "the acknowledgement was never in time");
}

/// The model finds what it is there to find: an engine that lets go of the lock before it accesses.
#[test]
#[should_panic(expected = "access to memory that was given away")]
fn an_access_outside_of_the_lock_is_found() {
    explore(|world| {
        let location = world.tlbs[0].with(|tlb| world.translate(tlb));
        world.access(location);
    });
}

/// A number from before a reset does not acknowledge one from behind it.
#[test]
fn a_reset_while_invalidations_are_carried_out() {
    loom::model(|| {
        let world = World::new();
        world.tlbs[0].with(|tlb| world.translate(tlb));
        world.requests.with(|requests| requests.add(Invalidation::AddressSpace(1), true));
        let other = world.clone();
        let server = thread::spawn(move || {
            serve(&other.requests, &other.tlbs, 0, |_| ());
            serve(&other.requests, &other.tlbs, 0, |_| ());
        });
        world.requests.with(|requests| requests.reset(|_| ()));
        let number = world.requests.with(|requests| requests.add(RANGE, false));
        assert_eq!(number, 1);
        if world.requests.with(|requests| requests.acknowledged()) >= number {
            assert!(world.tlbs[0].with(|tlb| tlb.find(0, 0)).is_none(), "acknowledged, but not forgotten");
        }
        server.join().unwrap();
    });
}

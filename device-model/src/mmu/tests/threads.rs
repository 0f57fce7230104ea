// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The MMU's own thread, among engines that never rest.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use ersatz_abi::mmu::PageTableEntry;

use super::*;
use crate::clock::{HostClock, ManualClock};

const MOVES: u64 = 300;

/// One page at virtual address 0, by tables that never change above its entry.
struct Entry(AtomicU64);

impl TableMemory for Entry {
    fn load_u64(&self, at: Location) -> Option<u64> {
        match at.address / GRANULE {
            0 => Some(self.0.load(Ordering::Acquire)),
            level => Some(PageTableEntry::table(Location::vram((level - 1) * GRANULE)).0),
        }
    }

    fn compare_exchange_u64(&self, _: Location, current: u64, new: u64) -> Option<Result<u64, u64>> {
        Some(self.0.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire))
    }

    fn has_peer(&self, _: u8) -> bool {
        false
    }
}

/// A driver moves a page again and again; each place is given away once its invalidation is acknowledged. With a lock that
/// favours whoever has it, the engines, which take it again at once, would keep the invalidations waiting.
#[test]
fn engines_at_work_neither_use_old_places_nor_hold_up_the_driver() {
    let mmu = Mmu::new(ENGINES, Arc::default(), Tracer::disabled());
    let place = |number: u64| PageTableEntry::page(system_page(number * GRANULE, true)).0;
    let memory = Entry(AtomicU64::new(place(0)));
    assert!(mmu.spaces.set_root(0, |_| PageTableEntry::table(Location::vram(3 * GRANULE)).0));
    assert!(mmu.set_control(0, AddressSpaceControl(0).with_enable(true).with_track(true).0));
    let freed: Vec<AtomicBool> = (0..=MOVES).map(|_| AtomicBool::new(false)).collect();
    let done = AtomicBool::new(false);
    let hooks = AtomicU64::new(0);
    let clock = HostClock::new();
    thread::scope(|scope| {
        scope.spawn(|| mmu.run(&clock, || _ = hooks.fetch_add(1, Ordering::Relaxed)));
        for engine in 0..ENGINES {
            let (mmu, memory, freed, done) = (&mmu, &memory, &freed, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let mut unit = mmu.lock(engine);
                    let found = unit.translate(memory, 0, 8, AccessKind::Write).unwrap();
                    let used = &freed[(found.location.address / GRANULE) as usize];
                    for _ in 0..20 {
                        assert!(!used.load(Ordering::Relaxed), "used after it was given away");
                    }
                }
            });
        }
        for number in 1..=MOVES {
            memory.0.store(place(number), Ordering::Release);
            // By register and by command in turns.
            let channel = (number % 2 == 0).then_some(7);
            let request = mmu.request(Invalidation::Range { asid: 0, address: 0, length: 1 }, channel);
            while mmu.acknowledged() < request {
                thread::yield_now();
            }
            freed[number as usize - 1].store(true, Ordering::Relaxed);
        }
        done.store(true, Ordering::Relaxed);
        mmu.leave();
    });
    assert_eq!(mmu.acknowledged(), MOVES);
    assert_eq!(hooks.load(Ordering::Relaxed), MOVES / 2, "for each command, and for nothing else");
    mmu.run(&clock, || panic!("it is to leave"));
}

/// Runs the thread of an MMU that holds acknowledgements back for a microsecond, and a driver beside it.
fn with_delay(clock: &dyn Clock, driver: impl FnOnce(&Mmu)) {
    let mmu = Mmu::new(ENGINES, Arc::default(), Tracer::disabled());
    mmu.set_acknowledgement_delay(1_000);
    thread::scope(|scope| {
        scope.spawn(|| mmu.run(clock, || ()));
        driver(&mmu);
        mmu.leave();
    });
}

fn wait_for(mmu: &Mmu, number: u64) {
    while mmu.acknowledged() < number {
        thread::sleep(std::time::Duration::from_micros(50));
    }
}

#[test]
fn acknowledgements_come_at_their_time() {
    let clock = HostClock::new();
    with_delay(&clock, |mmu| {
        let before = clock.now();
        wait_for(mmu, mmu.request(Invalidation::All, None));
        assert!(clock.now() >= before + 1_000);
    });
}

#[test]
fn acknowledgements_come_when_the_clock_is_set() {
    let clock = ManualClock::new();
    with_delay(&clock, |mmu| {
        let number = mmu.request(Invalidation::All, None);
        // Carried out, and not acknowledged.
        while mmu.requests.lock().deadline().is_none() {
            thread::yield_now();
        }
        clock.advance_to(999);
        mmu.clock_was_set();
        thread::sleep(std::time::Duration::from_millis(2));
        assert_eq!(mmu.acknowledged(), 0);
        clock.advance_to(1_000);
        mmu.clock_was_set();
        wait_for(mmu, number);
    });
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An engine that sleeps until a time, with the event descriptors of the device, by the host's clock and by one set by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::super::*;
use crate::clock::{Clock, ClockObserver, HostClock, ManualClock};
use crate::engine::doorbells::Events;

/// An engine with one channel, whose command waits for a time.
struct Sleeper {
    doorbells: Doorbells,
    clock: Arc<dyn Clock>,
    deadline: u64,
    looks: AtomicUsize,
    resumed_at: AtomicU64,
    leaving: AtomicBool,
}

impl ClockObserver for Sleeper {
    fn clock_was_set(&self) {
        self.doorbells.kick();
    }
}

struct Worker(Arc<Sleeper>);

impl EngineOps for Worker {
    type WakeSource = Events;
    type Bits = AtomicU64;

    fn doorbells(&self) -> &Doorbells {
        &self.0.doorbells
    }

    fn channel_count(&self) -> u8 {
        1
    }

    fn acknowledge(&self, _: u8) {}

    fn is_leaving(&self) -> bool {
        self.0.leaving.load(Ordering::Acquire)
    }

    fn priority(&self, _: u8) -> Priority {
        Priority::Low
    }

    fn take_up(&self, _: u8) -> Found {
        self.0.looks.fetch_add(1, Ordering::Relaxed);
        if self.now() < self.0.deadline {
            return Found::Waiting(Wait::Time(self.0.deadline));
        }
        self.0.resumed_at.store(self.now(), Ordering::Relaxed);
        self.0.leaving.store(true, Ordering::Release);
        self.0.doorbells.kick();
        Found::Nothing
    }

    fn work(&mut self, _: u8, _: Turn, _: Option<Box<Task>>) -> Next {
        unreachable!("it only waits");
    }

    fn kick(&self, _: u8) {}

    fn now(&self) -> u64 {
        self.0.clock.now()
    }

    fn sleep_until(&self, deadline: u64) -> Sleep {
        Sleep::lasting(self.0.clock.time_until(deadline))
    }
}

/// Runs an engine whose command waits until `deadline`, and `meanwhile`; when it was resumed, and how often it was looked at.
fn sleep(clock: Arc<dyn Clock>, deadline: u64, meanwhile: impl FnOnce(&Sleeper)) -> (u64, usize) {
    let doorbells = Doorbells::new().unwrap();
    let bell = vmm_sys_util::eventfd::EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).unwrap();
    doorbells.bind(0, &bell).unwrap();
    doorbells.kick();
    let sleeper = Arc::new(Sleeper {
        doorbells,
        clock,
        deadline,
        looks: AtomicUsize::new(0),
        resumed_at: AtomicU64::new(0),
        leaving: AtomicBool::new(false),
    });
    let observer: Arc<dyn ClockObserver> = sleeper.clone();
    sleeper.clock.observe(Arc::downgrade(&observer));
    let mut worker = Worker(sleeper.clone());
    let engine = std::thread::spawn(move || Scheduler::default().run(&mut worker).unwrap());
    meanwhile(&sleeper);
    engine.join().unwrap();
    (sleeper.resumed_at.load(Ordering::Relaxed), sleeper.looks.load(Ordering::Relaxed))
}

#[test]
fn until_a_time_of_the_hosts_clock_without_looking_in_between() {
    let clock = Arc::new(HostClock::new());
    // Not a whole number of milliseconds, and late enough for the thread to start before, on a busy machine too.
    let deadline = clock.now() + 400_300_000;
    let (resumed_at, looks) = sleep(clock, deadline, |_| ());
    assert!(resumed_at >= deadline);
    assert_eq!(looks, 2, "once to learn the time, once when it has come");
}

#[test]
fn until_a_clock_is_set_by_hand() {
    let clock = Arc::new(ManualClock::new());
    let (resumed_at, looks) = sleep(clock.clone(), 1_000, |sleeper| {
        let wait_for_looks = |looks| {
            while sleeper.looks.load(Ordering::Relaxed) < looks {
                std::thread::sleep(Duration::from_micros(50));
            }
        };
        wait_for_looks(1);
        clock.advance(Duration::from_nanos(999));
        wait_for_looks(2);
        std::thread::sleep(Duration::from_millis(2));
        assert!(!sleeper.leaving.load(Ordering::Acquire), "a clock that stands still wakes nobody");
        clock.advance(Duration::from_nanos(1));
    });
    assert_eq!((resumed_at, looks), (1_000, 3));
}

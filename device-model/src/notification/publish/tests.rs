// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two engines and a driver, in every order that the memory model allows.

use std::convert::Infallible;

use ersatz_abi::notification::NOTIFICATION_ORDER_MIN;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::*;
use crate::notification::state::{Setup, State};

const VALID: u64 = 1 << 63;
/// As many as are written: the ring has more, which are not reached.
const SLOTS: usize = 2;

#[derive(Default)]
struct Memory([AtomicU64; RECORD_WORDS]);

impl Slot for Memory {
    type Error = Infallible;

    fn write(&self, word: usize, value: u64) -> Result<(), Infallible> {
        self.0[word].store(value, Ordering::Relaxed);
        Ok(())
    }

    fn release(&self, word: usize, value: u64) -> Result<(), Infallible> {
        self.0[word].store(value, Ordering::Release);
        Ok(())
    }
}

/// The ring as [`super::super::ring::NotificationRing`] has it: a lock around the state, none around the memory.
struct Ring {
    state: Mutex<State>,
    slots: [Memory; SLOTS],
    interrupts: AtomicU32,
}

impl Ring {
    fn new() -> Self {
        let mut state = State::default();
        assert!(state.set_up(|setup| *setup = Setup { base: 0, order: NOTIFICATION_ORDER_MIN, vector: 0 }));
        assert!(state.switch(true));
        Self { state: Mutex::new(state), slots: Default::default(), interrupts: AtomicU32::new(0) }
    }

    fn raise(&self) {
        self.interrupts.fetch_add(1, Ordering::Release);
    }

    /// An engine's part.
    fn write(&self, number: u64) {
        let claim = self.state.lock().unwrap().claim(false).unwrap();
        let record = [number, VALID | number, !number, number + 1];
        let Ok(()) = publish(&self.slots[claim.position as usize], &record);
        self.state.lock().unwrap().settle(true);
        if claim.interrupt.is_some() {
            self.raise();
        }
    }
}

struct Driver<'a> {
    ring: &'a Ring,
    get: u32,
    read: Vec<u64>,
    /// Interrupts that came before it looked last.
    handled: u32,
}

impl Driver<'_> {
    /// What a driver does when it is woken: reads what is there, and writes GET.
    fn service(&mut self) {
        self.handled = self.ring.interrupts.load(Ordering::Acquire);
        let put = self.ring.state.lock().unwrap().put();
        while self.get != put {
            let slot = &self.ring.slots[self.get as usize].0;
            let word = slot[RECORD_VALID_WORD].load(Ordering::Acquire);
            if word & VALID == 0 {
                break;
            }
            let number = slot[0].load(Ordering::Relaxed);
            let rest = [2, 3].map(|word| slot[word].load(Ordering::Relaxed));
            assert_eq!((word, rest), (VALID | number, [!number, number + 1]), "torn");
            slot[RECORD_VALID_WORD].store(0, Ordering::Relaxed);
            self.read.push(number);
            self.get += 1;
        }
        if self.ring.state.lock().unwrap().acknowledge(self.get).unwrap().interrupt.is_some() {
            self.ring.raise();
        }
    }
}

/// A record whose valid bit is seen is whole; and a driver that sleeps until the next interrupt has left no record behind.
#[test]
fn no_record_is_torn_and_no_interrupt_is_missed() {
    loom::model(|| {
        let ring = Arc::new(Ring::new());
        let engines = [10, 20].map(|number| {
            let ring = ring.clone();
            thread::spawn(move || ring.write(number))
        });
        let mut driver = Driver { ring: &ring, get: 0, read: Vec::new(), handled: 0 };
        if ring.interrupts.load(Ordering::Acquire) > 0 {
            driver.service();
        }
        for engine in engines {
            engine.join().unwrap();
        }
        while driver.get != ring.state.lock().unwrap().put() {
            assert!(ring.interrupts.load(Ordering::Acquire) > driver.handled, "asleep with records");
            driver.service();
        }
        driver.read.sort_unstable();
        assert_eq!(driver.read, [10, 20]);
    });
}

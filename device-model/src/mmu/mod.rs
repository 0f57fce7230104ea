// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The MMU: from virtual addresses of an address space to memory, by page tables that a driver writes.
//!
//! [`space`] has the registers that say where tables begin; [`walk`] goes through them, in memory that it sees as a
//! [`memory::TableMemory`]; a [`tlb`] per engine keeps what walks found. An entry is stale once the driver changes its
//! tables, until the driver invalidates it: [`invalidate`].
//!
//! An engine translates, and accesses what the address leads to, while it holds the lock of its TLB ([`Mmu::lock`]). An
//! invalidation takes each of these locks in turn. So once it is acknowledged, no access through a translation from before it
//! is under way or will begin.

#[cfg(test)]
mod fixture;
mod invalidate;
pub mod memory;
pub mod space;
pub mod tlb;
mod translate;
mod turnstile;
pub mod walk;

use std::sync::Arc;

use ersatz_abi::counter::Counter;
use ersatz_abi::mmu::{InvalidateScope, InvalidateTarget, Invalidation, Page};

use crate::clock::{Clock, Condvar};
use crate::counters::Counters;
use crate::inject::site::Site;
use crate::inject::{Action, Injector};
use crate::sync::{Lock, Mutex};
use crate::trace::{Event, MmuEvent, Step, Tracer};
use invalidate::{Done, Requests, serve};
use space::{AddressSpace, AddressSpaces, SpaceSwitched};
use tlb::Tlb;
pub use translate::{TranslateError, Translation, Translator};
use turnstile::Turnstile;
pub use walk::PageFault;

/// The MMU of a device.
#[derive(Debug)]
pub struct Mmu {
    /// The registers of the address spaces.
    pub spaces: AddressSpaces,
    counters: Arc<Counters>,
    tracer: Tracer,
    /// What holds acknowledgements, if anything does.
    injector: Option<Arc<Injector>>,
    /// One per engine.
    tlbs: Box<[Turnstile<Tlb>]>,
    window: Mutex<Window>,
    requests: Mutex<Requests>,
    /// Signalled when there is something to carry out, when the clock was set, and when [`Self::run`] is to return.
    wake: Condvar,
}

/// The registers by which invalidations are requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// First address of the next range.
    pub address: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Number of the last invalidation requested by register; zero if none was.
    pub requested: u64,
}

impl Mmu {
    /// Creates the MMU of `engines` engines: no address space is enabled, nothing is cached.
    pub fn new(engines: u8, counters: Arc<Counters>, tracer: Tracer) -> Self {
        Self {
            spaces: AddressSpaces::new(),
            counters,
            tracer,
            injector: None,
            tlbs: (0..engines).map(|_| Turnstile::new(Tlb::new())).collect(),
            window: Mutex::default(),
            requests: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// The same with acknowledgements that an injector can hold.
    pub(crate) fn with_injector(self, injector: Arc<Injector>) -> Self {
        Self { injector: Some(injector), ..self }
    }

    /// Locks the TLB of an engine for translations. Invalidations wait until what this returns is dropped: for one piece of
    /// work, in which what was translated is also accessed. The engine holds one of these at a time.
    ///
    /// # Panics
    ///
    /// If there is no such engine.
    pub fn lock(&self, engine: u8) -> Translator<'_> {
        Translator { mmu: self, engine, tlb: self.tlbs[usize::from(engine)].enter(), hits: 0, misses: 0 }
    }

    /// What the TLB of an engine holds; waits for one piece of the engine's work.
    pub(crate) fn translations(&self, engine: u8) -> Vec<(u8, u64, Page)> {
        self.tlbs[usize::from(engine)].with(|tlb| tlb.entries().collect())
    }

    /// Requests that every engine drops translations, without waiting for it. Returns the number by which that is acknowledged.
    /// `channel` is the one whose command requests it, if a command does.
    pub fn request(&self, invalidation: Invalidation, channel: Option<u8>) -> u64 {
        let mut requests = self.requests.lock();
        let number = requests.add(invalidation, channel.is_some());
        // Before it can be acknowledged.
        let event = MmuEvent::InvalidateRequested { number, invalidation, channel }.into();
        self.tracer.emit(event);
        if let Some(hold) = self.hold(event) {
            requests.hold(number, hold);
        }
        drop(requests);
        self.wake.notify_one();
        number
    }

    /// Returns the number of a hold, which has not begun, if the acknowledgement of the invalidation of this event is to be held, to be
    /// late, or not to come.
    fn hold(&self, event: Event) -> Option<u64> {
        let injector = self.injector.as_ref()?;
        let subject = event.subject();
        if injector.is_watched(Step::BeforeInvalidationAck) {
            let address = match event {
                Event::Mmu(MmuEvent::InvalidateRequested {
                    invalidation: Invalidation::Range { address, .. }, ..
                }) => Some(address),
                _ => None,
            };
            let hold = injector.arrive(&Site { step: Step::BeforeInvalidationAck, event, subject, address });
            if hold.is_some() {
                return hold;
            }
        }
        let decision = injector.decides().then(|| injector.decide(&event, &subject)).flatten();
        match decision.map(|decision| decision.action) {
            Some(Action::Delay { ns }) => Some(injector.delay(ns)),
            Some(Action::Drop) => Some(injector.withhold()),
            _ => None,
        }
    }

    /// The hold of this number has ended: the acknowledgement that it held is due.
    pub(crate) fn release(&self, hold: u64) {
        self.requests.lock().release(hold);
        self.wake.notify_all();
    }

    /// All invalidations up to this number are complete: no access through a translation that they mean, and that was made
    /// before they were asked for, is under way or will begin.
    pub fn acknowledged(&self) -> u64 {
        self.requests.lock().acknowledged()
    }

    /// The registers by which invalidations are requested.
    pub fn window(&self) -> Window {
        *self.window.lock()
    }

    /// Changes address and length of the next range.
    pub fn set_window(&self, change: impl FnOnce(&mut Window)) {
        change(&mut self.window.lock());
    }

    /// Requests an invalidation by register. Returns whether the target is valid.
    pub fn request_by_register(&self, target: InvalidateTarget) -> bool {
        let mut window = self.window.lock();
        let is_range = target.raw_scope() == InvalidateScope::Range as u64;
        let (address, length) = if is_range { (window.address, window.length) } else { (0, 0) };
        let Some(invalidation) = Invalidation::decode(target, address, length) else { return false };
        window.requested = self.request(invalidation, None);
        true
    }

    /// Carries out invalidations as they are requested, until [`Self::leave`]; calls `wake` each time that some were
    /// acknowledged for which commands wait.
    pub fn run(&self, clock: &dyn Clock, wake: impl Fn()) {
        while self.wait(clock) {
            let done = serve(&self.requests, &self.tlbs, clock.now(), |done| self.announce(done));
            if let Some(injector) = &self.injector {
                // With the lock, so that a reset comes before the hold begins or ends it.
                self.requests.lock().begin_holds(|hold| injector.begin(hold));
            }
            if done.is_some_and(|done| done.awaited) {
                wake();
            }
        }
    }

    /// Waits until there is something to carry out or to acknowledge; false if [`Self::run`] is to return.
    fn wait(&self, clock: &dyn Clock) -> bool {
        let mut requests = self.requests.lock();
        while !requests.leaving && !requests.is_due(clock.now()) {
            let deadline = requests.deadline();
            requests = self.wake.wait_until(requests, clock, deadline);
        }
        !requests.leaving
    }

    /// Holds each acknowledgement back for this many nanoseconds after its invalidation was carried out: for one that is
    /// carried out from now on. A reset forgets the acknowledgements, not the delay.
    pub fn set_acknowledgement_delay(&self, nanoseconds: u64) {
        self.requests.lock().delay = nanoseconds;
    }

    /// The clock that was given to [`Self::run`] was set.
    pub fn clock_was_set(&self) {
        // Behind the lock the thread either has seen the new time or is waiting.
        drop(self.requests.lock());
        self.wake.notify_all();
    }

    /// Counts and traces what is about to be acknowledged.
    fn announce(&self, done: &Done) {
        for number in done.numbers.clone() {
            self.counters.add(Counter::Invalidations, 1);
            self.tracer.emit(MmuEvent::InvalidateAcknowledged { number }.into());
        }
    }

    /// Writes the control register of an address space; `false`, and no change, if [`AddressSpaces::set_control`] refuses.
    pub fn set_control(&self, asid: u8, value: u32) -> bool {
        let trace = |switched| match switched {
            SpaceSwitched::Enabled(AddressSpace { root, control }) => {
                let event = MmuEvent::AddressSpaceEnabled { asid, root: root.0, control: control.0 };
                self.tracer.emit(event.into());
            }
            SpaceSwitched::Disabled => self.tracer.emit(MmuEvent::AddressSpaceDisabled { asid }.into()),
            SpaceSwitched::Unchanged => {}
        };
        self.spaces.set_control(asid, value, trace).is_some()
    }

    /// Makes [`Self::run`] return, now or when it is called.
    pub fn leave(&self) {
        self.requests.lock().leaving = true;
        self.wake.notify_all();
    }

    /// All as when it was made: address spaces disabled, nothing cached, nothing asked for, numbers counting from 1
    /// again. No engine translates meanwhile.
    pub fn reset(&self) {
        self.spaces.reset();
        *self.window.lock() = Window::default();
        self.requests.lock().reset(|hold| {
            if let Some(injector) = &self.injector {
                injector.drop_hold(hold);
            }
        });
        for tlb in &self.tlbs {
            tlb.with(|tlb| tlb.forget(&Invalidation::All));
        }
    }
}

#[cfg(test)]
mod tests;

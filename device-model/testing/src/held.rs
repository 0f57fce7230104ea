// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest memory that holds an engine in the middle of an access, so that a test can do something meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use ersatz_device_model::clock::HostClock;
use ersatz_device_model::dma::{DmaError, DmaSession, DmaSpace, MappedSpace};
use ersatz_device_model::{Gpu, GpuConfig};
use vm_memory::VolatileSlice;

use super::log::Log;
use super::{Host, Interrupts};

/// Guest memory that says when an access begins and holds it until told to go on.
pub struct Held {
    inner: Arc<MappedSpace>,
    /// The reads that are held begin here.
    address: u64,
    hold: AtomicBool,
    waiting: Mutex<bool>,
    changed: Condvar,
    /// How many accesses there were.
    pub accesses: AtomicUsize,
}

impl DmaSpace for Held {
    fn open(&self) -> Box<dyn DmaSession + '_> {
        Box::new(HeldSession { space: self, inner: self.inner.open() })
    }
}

struct HeldSession<'a> {
    space: &'a Held,
    inner: Box<dyn DmaSession + 'a>,
}

impl HeldSession<'_> {
    /// What makes the next access, which is counted.
    fn access(&self) -> &dyn DmaSession {
        self.space.accesses.fetch_add(1, Ordering::SeqCst);
        &*self.inner
    }
}

impl DmaSession for HeldSession<'_> {
    fn read(&self, address: u64, target: &VolatileSlice<'_>) -> Result<(), DmaError> {
        let inner = self.access();
        if address == self.space.address {
            self.space.wait_while_held();
        }
        inner.read(address, target)
    }

    fn write(&self, address: u64, source: &VolatileSlice<'_>) -> Result<(), DmaError> {
        self.access().write(address, source)
    }

    fn load_u32(&self, address: u64) -> Result<u32, DmaError> {
        self.access().load_u32(address)
    }

    fn load_u64(&self, address: u64) -> Result<u64, DmaError> {
        self.access().load_u64(address)
    }

    fn compare_exchange_u64(&self, address: u64, current: u64, new: u64) -> Result<Result<u64, u64>, DmaError> {
        self.access().compare_exchange_u64(address, current, new)
    }

    fn store_u32(&self, address: u64, value: u32) -> Result<(), DmaError> {
        self.access().store_u32(address, value)
    }

    fn store_u64(&self, address: u64, value: u64) -> Result<(), DmaError> {
        self.access().store_u64(address, value)
    }
}

impl Held {
    fn wait_while_held(&self) {
        let mut waiting = self.waiting.lock().unwrap();
        while self.hold.load(Ordering::SeqCst) {
            *waiting = true;
            self.changed.notify_all();
            waiting = self.changed.wait(waiting).unwrap();
        }
    }

    /// Waits until a read is held.
    pub fn wait_until_held(&self) {
        let mut waiting = self.waiting.lock().unwrap();
        while !*waiting {
            waiting = self.changed.wait(waiting).unwrap();
        }
    }

    /// Lets it go on, and all others pass.
    pub fn release(&self) {
        let _waiting = self.waiting.lock().unwrap();
        self.hold.store(false, Ordering::SeqCst);
        self.changed.notify_all();
    }
}

/// Lets the engine go on at the end of a test, however that ends: a device waits for its threads.
pub struct Holding(Arc<Held>);

impl std::ops::Deref for Holding {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.0
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.release();
    }
}

impl Host {
    /// A host whose engines are held when they read from this bus address, until they are released.
    pub fn held_at(address: u64) -> (Self, Holding) {
        let host = Self::new();
        let space = Arc::new(Held {
            inner: host.space.clone(),
            address,
            hold: AtomicBool::new(true),
            waiting: Mutex::new(false),
            changed: Condvar::new(),
            accesses: AtomicUsize::new(0),
        });
        let interrupts = Arc::new(Interrupts::default());
        let (mut config, clock) = (GpuConfig::new(host.gpu.vram_size()), Arc::new(HostClock::new()));
        let log = Log::of(&mut config, clock.clone());
        let gpu = Gpu::new(config, space.clone(), interrupts.clone(), clock).unwrap();
        let host = Self { interrupts, gpu, _log: log, ..host };
        host.start();
        (host, Holding(space))
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the register file and the engines share: the state of the device behind its PCI function.

mod demand;
mod inject;
mod interrupt;
mod notify;
mod poison;
mod query;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ersatz_abi::counter::Counter;
use ersatz_abi::pci::{BAR_MSIX, MSIX_PBA_OFFSET, MSIX_TABLE_OFFSET, MSIX_VECTORS, VECTOR_ERROR};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::bus_requests::ReportedSession;
use crate::channel::{Channel, ResetScope, WasUsed};
use crate::clock::ClockObserver;
use crate::counters::Counters;
use crate::demand::Demands;
use crate::engine::doorbells::{self, Doorbells};
use crate::engine::gate::Gate;
use crate::eventfd::{drain, signal};
use crate::fabric::Link;
use crate::interrupt::InterruptCause;
use crate::mmu::Mmu;
use crate::mmu::memory::DeviceTables;
use crate::notification::{AccessCounters, FaultBuffer};
use crate::pci::aer::ErrorLog;
use crate::pci::capability::MsixLayout;
use crate::pci::msix::Msix;
use crate::ports::Ports;
use crate::sync::Mutex;
use crate::trace::{Event, ResetSource};
use crate::vram::Vram;
pub(crate) use inject::{FunctionChange, Removal};

/// Where the device has its MSI-X table and pending bits.
pub(crate) const MSIX: MsixLayout =
    MsixLayout { bar: BAR_MSIX, vectors: MSIX_VECTORS, table: MSIX_TABLE_OFFSET, pending: MSIX_PBA_OFFSET };

/// How many there are of what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Units {
    pub(crate) channels: u8,
    pub(crate) copy_engines: u8,
    pub(crate) compute_engines: u8,
}

/// What an engine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineKind {
    /// Lists of pages.
    Copy,
    /// Kernels over virtual addresses.
    Compute,
}

/// The device.
pub(crate) struct Device {
    /// The GPU's number in its machine, for log lines and the names of threads.
    pub(crate) number: u8,
    pub(crate) ports: Ports,
    pub(crate) vram: Arc<Vram>,
    pub(crate) link: Link,
    pub(crate) errors: Arc<ErrorLog>,
    pub(crate) channels: Box<[Channel]>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) mmu: Mmu,
    pub(crate) faults: FaultBuffer,
    pub(crate) access_counters: AccessCounters,
    pub(crate) msix: Msix,
    pub(crate) gate: Gate,
    /// One an engine: first the copy engines, then the compute engines.
    engines: Box<[Doorbells]>,
    copy_engines: u8,
    /// One bit for each engine that hangs.
    hung: AtomicU32,
    /// What the injector has changed, and the bus has to know.
    pub(crate) removal: Removal,
    /// The function answers memory accesses. Cleared before a reset of the function begins.
    pub(crate) answers: AtomicBool,
    bad_access: AtomicBool,
    /// The offset in VRAM from which the driver looks for poisoned pages.
    pub(crate) poisoned_from: Mutex<u64>,
    /// The offset in VRAM from which the driver looks for pages that it has handed over.
    pub(crate) handed_over_from: Mutex<u64>,
    /// Memory that the host demands. Whoever changes which pages are handed over has this locked.
    demands: Mutex<Demands>,
    /// A reset asked for by register is under way. Locked before any channel is.
    resetting: Mutex<bool>,
    leaving: AtomicBool,
}

impl Device {
    /// There is at least one channel and one copy engine.
    pub(crate) fn new(
        number: u8,
        ports: Ports,
        vram: Arc<Vram>,
        link: Link,
        errors: Arc<ErrorLog>,
        counters: Arc<Counters>,
        units: Units,
    ) -> io::Result<Self> {
        let Units { channels, copy_engines, compute_engines } = units;
        let channels = (0..channels).map(|_| EventFd::new(EFD_NONBLOCK).map(Channel::new));
        let doorbells = (0..usize::from(copy_engines) + usize::from(compute_engines)).map(|_| Doorbells::new());
        let mmu = Mmu::new(copy_engines + compute_engines, counters.clone(), ports.tracer.clone())
            .with_injector(ports.injector.clone());
        let device = Self {
            number,
            ports,
            vram,
            link,
            errors,
            channels: channels.collect::<io::Result<_>>()?,
            mmu,
            faults: FaultBuffer::default(),
            access_counters: AccessCounters::default(),
            counters,
            msix: Msix::new(MSIX),
            gate: Gate::default(),
            engines: doorbells.collect::<io::Result<_>>()?,
            copy_engines,
            hung: AtomicU32::new(0),
            removal: Removal::new()?,
            answers: AtomicBool::new(false),
            bad_access: AtomicBool::new(false),
            poisoned_from: Mutex::default(),
            handed_over_from: Mutex::default(),
            demands: Mutex::default(),
            resetting: Mutex::new(false),
            leaving: AtomicBool::new(false),
        };
        for (number, channel) in (0..).zip(&device.channels) {
            device.engines[0].bind(number, &channel.doorbell)?;
        }
        Ok(device)
    }

    /// Number of channels.
    pub(crate) fn channel_count(&self) -> u8 {
        u8::try_from(self.channels.len()).unwrap_or(u8::MAX)
    }

    /// Number of engines.
    pub(crate) fn engine_count(&self) -> u8 {
        u8::try_from(self.engines.len()).unwrap_or(u8::MAX)
    }

    /// Number of copy engines.
    pub(crate) fn copy_engine_count(&self) -> u8 {
        self.copy_engines
    }

    /// What an engine does.
    pub(crate) fn engine_kind(&self, engine: u8) -> EngineKind {
        if engine < self.copy_engines { EngineKind::Copy } else { EngineKind::Compute }
    }

    /// What wakes an engine.
    pub(crate) fn doorbells(&self, engine: u8) -> &Doorbells {
        &self.engines[usize::from(engine)]
    }

    /// Makes an engine work for a channel, and no other one. Called with the channel's lock held.
    pub(crate) fn bind(&self, channel: u8, engine: u8) {
        let doorbell = &self.channels[usize::from(channel)].doorbell;
        if let Err(error) = doorbells::bind(&self.engines, engine, channel, doorbell) {
            let gpu = self.number;
            log::error!("GPU {gpu}: the doorbell of channel {channel} cannot wake engine {engine}: {error}");
        }
    }

    /// Makes the engine of a channel look at it.
    pub(crate) fn kick(&self, channel: u8) {
        doorbells::kick(&self.engines, channel);
    }

    /// The memory that page tables are in.
    pub(crate) fn tables<'a>(&'a self, system: &'a ReportedSession<'a>) -> DeviceTables<'a, impl Fn(u8) -> bool + 'a> {
        DeviceTables { vram: &self.vram, system, has_peer: |peer| self.link.peer(peer).is_some() }
    }

    /// Makes every engine look at its channels.
    pub(crate) fn kick_all(&self) {
        self.engines.iter().for_each(Doorbells::kick);
    }

    /// Carries out invalidations until [`Self::leave`].
    pub(crate) fn run_mmu(&self) {
        self.mmu.run(&*self.ports.clock, || self.kick_all());
    }

    /// Rings a channel's doorbell for a bus that has no ioeventfd there.
    pub(crate) fn ring(&self, channel: u8) {
        if let Some(channel) = self.channels.get(usize::from(channel)) {
            signal(&channel.doorbell);
        }
    }

    /// Runs `effect`, which a register access has on counters and interrupts, unless the function was reset since the access
    /// began. A reset of the function waits until it is done. No channel may be locked.
    pub(crate) fn unless_reset<R>(&self, effect: impl FnOnce() -> R) -> Option<R> {
        let _resetting = self.resetting.lock();
        self.answers.load(Ordering::Acquire).then(effect)
    }

    /// Counts and traces an access that is not valid; the first one after a reset is reported to the driver.
    pub(crate) fn bad_access(&self, bar: u8, offset: u64, width: usize, write: bool) {
        self.unless_reset(|| {
            self.counters.add(Counter::BadAccesses, 1);
            self.ports.tracer.emit(Event::BadAccess { bar, offset, width: width as u64, write });
            if !self.bad_access.swap(true, Ordering::Relaxed) {
                self.raise(VECTOR_ERROR, InterruptCause::BadAccess);
            }
        });
    }

    /// Whether a bad access was seen since reset.
    pub(crate) fn had_bad_access(&self) -> bool {
        self.bad_access.load(Ordering::Relaxed)
    }

    /// Whether a reset asked for by register is under way.
    pub(crate) fn is_resetting(&self) -> bool {
        *self.resetting.lock()
    }

    /// Starts the reset that the CONTROL register asks for. Engines complete it that have channels.
    pub(crate) fn request_reset(&self) {
        let mut resetting = self.resetting.lock();
        *resetting = true;
        for (channel, number) in self.channels.iter().zip(0..) {
            channel.request_reset(ResetScope::Device, |was_used| match was_used {
                WasUsed(true) => self.report_channel_reset(number),
                // The event of the device's reset says enough.
                WasUsed(false) => self.ports.injector.drop_holds(number),
            });
        }
        drop(resetting);
        self.channel_was_reset();
    }

    /// A channel is being reset: reports it to the trace, and what was held of it is dropped. Called with the channel's lock held.
    pub(crate) fn report_channel_reset(&self, channel: u8) {
        self.ports.injector.drop_holds(channel);
        self.ports.tracer.emit(Event::ChannelReset { channel });
    }

    /// The reset of a channel is complete; the last one completes that of the device.
    pub(crate) fn channel_was_reset(&self) {
        let mut resetting = self.resetting.lock();
        if *resetting && !self.channels.iter().any(Channel::is_resetting) {
            self.mmu.reset();
            self.faults.reset();
            self.access_counters.reset();
            self.forget_driver();
            self.ports.tracer.emit(Event::Reset { source: ResetSource::Register });
            *resetting = false;
        }
    }

    /// Resets everything but VRAM's content, at once: when this returns, DMA and peers' accesses have ended and no
    /// interrupt follows.
    pub(crate) fn reset(&self, source: ResetSource) {
        self.gate.close(false, || self.link.close(|| self.reset_now(source)));
    }

    fn reset_now(&self, source: ResetSource) {
        let mut resetting = self.resetting.lock();
        for (number, channel) in (0..).zip(&self.channels) {
            channel.reset(ResetScope::Device);
            self.ports.injector.drop_holds(number);
            drain(&channel.doorbell);
        }
        self.mmu.reset();
        self.msix.reset();
        match source {
            ResetSource::Conventional | ResetSource::Transport => self.errors.power_on(),
            ResetSource::FunctionLevel | ResetSource::Register | ResetSource::Removal => self.errors.reset(),
        }
        self.faults.reset();
        self.access_counters.reset();
        self.counters.reset();
        self.forget_driver();
        *resetting = false;
        self.ports.tracer.emit(Event::Reset { source });
    }

    /// The last of a reset.
    fn forget_driver(&self) {
        self.bad_access.store(false, Ordering::Relaxed);
        *self.poisoned_from.lock() = 0;
        *self.handed_over_from.lock() = 0;
        self.reset_injected();
    }

    /// Makes the engines drop what they do and return.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        self.mmu.leave();
        for (number, channel) in (0..).zip(&self.channels) {
            channel.request_reset(ResetScope::Device, |_| self.ports.injector.drop_holds(number));
        }
        self.ports.injector.leave();
        self.kick_all();
    }

    /// Whether engines are to return.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }
}

impl ClockObserver for Device {
    fn clock_was_set(&self) {
        self.kick_all();
        self.mmu.clock_was_set();
        self.ports.injector.clock_was_set();
    }
}

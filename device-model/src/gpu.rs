// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The GPU as a whole: what an embedder makes, and what its bus drives.

mod config;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};

use ersatz_abi::control_window::SIZE as CONTROL_WINDOW_SIZE;
use ersatz_abi::counter::Counter;
use ersatz_abi::pci as abi;
use ersatz_abi::regs;
use vm_memory::VolatileSlice;
use vmm_sys_util::eventfd::EventFd;

use crate::bus::{BarInfo, BarMapping, Doorbell, Effect, MsixMessage, PciFunction};
use crate::bus_requests::ReportedSpace;
use crate::clock::{Clock, ClockObserver};
use crate::control_window::ControlWindow;
use crate::counters::Counters;
use crate::device::{Device, FunctionChange, MSIX, Units};
use crate::dma::DmaSpace;
use crate::engine;
use crate::fabric::{Link, PeerVram};
use crate::inject::{DeviceView, Injector};
use crate::interrupt::InterruptSink;
use crate::pci::aer::ErrorLog;
use crate::pci::function::{Change, Controls, Function, Identity};
use crate::pci::resize::ResizableBar;
use crate::ports::Ports;
use crate::registers::Registers;
use crate::sync::Mutex;
use crate::trace::{Event, InterruptOutcome, ResetSource};
use crate::vram::Vram;
pub use config::{GpuConfig, GpuError, MAX_ENGINES};

/// The GPU.
///
/// Its threads live from [`Gpu::new`] until it is dropped, which stops DMA and waits for them. While its config space says
/// that memory decoding is off or that it sleeps in D3hot, BARs read as all ones and drop writes, as on hardware.
///
/// [`DmaSpace`] and [`InterruptSink`] are called by those threads with locks of the device held: they must not call back
/// into the device.
pub struct Gpu {
    device: Arc<Device>,
    function: Mutex<Function>,
    /// How much of VRAM BAR2 shows in bytes: a copy for those who do not want the function's lock.
    shown: AtomicU64,
    registers: Registers,
    control: Option<Arc<ControlWindow>>,
    threads: Vec<JoinHandle<()>>,
}

impl Gpu {
    /// A device as after power-on. Its trace uses `clock` too, if it was made with the same one.
    ///
    /// # Errors
    ///
    /// Whatever [`GpuError`] lists.
    pub fn new(
        config: GpuConfig,
        dma: Arc<dyn DmaSpace>,
        interrupts: Arc<dyn InterruptSink>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, GpuError> {
        let GpuConfig { vram_size, bar_size, number, serial, requester_id, fabric, control, tracer, .. } = config;
        let GpuConfig { channels, copy_engines, compute_engines, .. } = config;
        if channels == 0 || u32::from(channels) > regs::MAX_CHANNELS {
            return Err(GpuError::Channels(channels));
        }
        if !(1..=MAX_ENGINES).contains(&copy_engines) || compute_engines > MAX_ENGINES {
            return Err(GpuError::Engines { copy: copy_engines, compute: compute_engines });
        }
        let vram = Arc::new(Vram::new(vram_size)?);
        let bar = ResizableBar { bar: abi::BAR_VRAM, smallest: abi::VRAM_MIN, largest: vram_size };
        if !bar.supports(bar_size) {
            return Err(GpuError::BarSize { bar: bar_size, vram: vram_size });
        }
        let link = Link::new(vram.clone(), fabric)?;
        let errors = Arc::new(ErrorLog::new(requester_id));
        let counters = Arc::new(Counters::new());
        let injector = Arc::new(Injector::new(number, clock.clone(), tracer.clone()).map_err(GpuError::Events)?);
        let tracer = injector.observe_events(&tracer);
        let dma = ReportedSpace::new(dma, errors.clone(), counters.clone()).with_injector(injector.clone());
        let ports = Ports { dma, interrupts, clock, tracer, injector };
        let function = new_function(bar, bar_size, control.is_some(), serial, errors.clone());
        let units = Units { channels, copy_engines, compute_engines };
        let device =
            Arc::new(Device::new(number, ports, vram, link, errors, counters, units).map_err(GpuError::Events)?);
        let observer: Arc<dyn ClockObserver> = device.clone();
        device.ports.clock.observe(Arc::downgrade(&observer));
        let mut gpu = Self {
            device,
            function: Mutex::new(function),
            shown: AtomicU64::new(bar_size),
            registers: Registers::default(),
            control: None,
            threads: Vec::new(),
        };
        for engine in 0..gpu.device.engine_count() {
            let thread =
                engine::spawn(gpu.device.clone(), engine).map_err(|source| GpuError::Engine { engine, source })?;
            gpu.threads.push(thread);
        }
        let device = gpu.device.clone();
        let name = format!("gpu{number}-mmu");
        let mmu = Builder::new().name(name).spawn(move || device.run_mmu()).map_err(GpuError::Mmu)?;
        gpu.threads.push(mmu);
        let device = gpu.device.clone();
        let name = format!("gpu{number}-inject");
        let inject = Builder::new().name(name).spawn(move || device.run_injection()).map_err(GpuError::Inject)?;
        gpu.threads.push(inject);
        if let Some(handler) = control {
            let window = gpu.control.insert(Arc::new(ControlWindow::new())).clone();
            let name = format!("gpu{number}-control");
            let thread = Builder::new().name(name).spawn(move || window.run(&*handler)).map_err(GpuError::Control)?;
            gpu.threads.push(thread);
        }
        let ports = &gpu.device.ports;
        ports.tracer.emit(Event::DeviceCreated { vram: vram_size });
        if let Some(observer) = ports.tracer.map_observer() {
            ports.dma.observe_maps(observer);
        }
        Ok(gpu)
    }

    /// The value of a performance counter.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.device.counters.get(counter)
    }

    /// What makes the device hold, fail or misbehave.
    pub fn inject(&self) -> &Injector {
        &self.device.ports.injector
    }

    /// What the device knows of itself. Waits for a piece of work of each engine.
    pub fn query(&self) -> DeviceView {
        self.device.query()
    }

    /// Size of VRAM in bytes.
    pub fn vram_size(&self) -> u64 {
        self.device.vram.size()
    }

    /// The VRAM of the GPU at a port of the fabric; `None` if there is none, or it is this one.
    pub fn peer(&self, number: u8) -> Option<PeerVram> {
        self.device.link.peer(number)
    }

    /// The GPUs that this one is linked with: bit *n* for the one at port *n*.
    pub fn peers(&self) -> u8 {
        self.device.link.peers()
    }

    /// Zeroes VRAM and gives its pages back to the host. Not while a guest uses it: what it sees then is a mixture.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn clear_vram(&self) -> io::Result<()> {
        self.device.vram.clear()
    }

    fn keeps_table(&self) -> bool {
        self.device.ports.interrupts.keeps_table()
    }

    /// Resets the device behind a function that was reset.
    fn reset_as(&self, function: &Function, source: ResetSource) -> Vec<Effect> {
        self.device.answers.store(false, Ordering::Release);
        self.show(function.bars());
        self.device.reset(source);
        self.registers.reset();
        vec![Effect::Reset]
    }

    /// Takes note of how much of VRAM the BAR shows.
    fn show(&self, bars: &[BarInfo]) {
        if let Some(info) = bars.iter().find(|info| info.bar == abi::BAR_VRAM) {
            self.shown.store(info.size, Ordering::Release);
        }
    }

    fn apply(&self, bars: &[BarInfo], before: &Controls, after: &Controls) -> Vec<Effect> {
        let tracer = &self.device.ports.tracer;
        let mut effects = Vec::new();
        self.device.answers.store(after.memory, Ordering::Release);
        if before.asleep != after.asleep {
            tracer.emit(Event::PowerState { state: if after.asleep { 3 } else { 0 } });
            self.device.link.set_reachable(!after.asleep);
        }
        self.show(bars);
        let places = |controls: &Controls| -> Vec<(Option<u64>, u64)> {
            controls.addresses.iter().copied().zip(controls.sizes.iter().copied()).collect()
        };
        for (info, (old, new)) in bars.iter().zip(places(before).into_iter().zip(places(after))) {
            if old != new {
                let (address, size) = new;
                tracer.emit(Event::BarMoved { bar: info.bar, address, size });
                effects.push(Effect::BarMoved { bar: info.bar, address });
            }
        }
        effects.extend(self.device.msix.set_control(after.msix_enabled, after.msix_masked, self.keeps_table()));
        if before.master != after.master {
            let sends = self.device.gate.close(after.master, || {
                tracer.emit(Event::BusMaster { enabled: after.master });
                self.device.msix.set_master(after.master, self.keeps_table())
            });
            effects.extend(sends);
        }
        self.trace_sends(&effects);
        effects
    }

    fn trace_sends(&self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::MsixSend { vector } = *effect {
                let outcome = InterruptOutcome::Released;
                self.device.ports.tracer.emit(Event::Interrupt { vector, channel: None, outcome });
            }
        }
    }

    /// The VRAM that an access to BAR2 means; `None` if the BAR does not show all of it.
    fn vram_at(&self, offset: u64, length: usize) -> Option<VolatileSlice<'_>> {
        let length = u64::try_from(length).ok()?;
        let end = offset.checked_add(length)?;
        if end > self.shown.load(Ordering::Acquire) {
            return None;
        }
        self.device.vram.slice(offset, length)
    }
}

fn new_function(vram: ResizableBar, bar_size: u64, has_window: bool, serial: u64, errors: Arc<ErrorLog>) -> Function {
    let identity = Identity {
        vendor: abi::VENDOR_ID,
        device: abi::DEVICE_ID,
        class: abi::CLASS_CODE,
        revision: abi::REVISION,
        serial,
    };
    let plain = |bar, size| BarInfo { bar, size, is_64bit: false, prefetchable: false };
    let mut bars = vec![
        plain(abi::BAR_REGISTERS, abi::REGISTERS_BAR_SIZE),
        BarInfo { bar: abi::BAR_VRAM, size: bar_size, is_64bit: true, prefetchable: true },
        plain(abi::BAR_MSIX, abi::MSIX_BAR_SIZE),
    ];
    if has_window {
        bars.push(plain(abi::BAR_CONTROL, CONTROL_WINDOW_SIZE.into()));
    }
    Function::new(identity, bars, Some(vram), MSIX, errors)
}

impl PciFunction for Gpu {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        if self.device.removal.is_gone() {
            return data.fill(0xff);
        }
        self.function.lock().read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Vec<Effect> {
        let mut effects = self.take_effects();
        let mut function = self.function.lock();
        if !self.device.removal.is_gone() {
            effects.extend(match function.write(offset, data) {
                Change::FunctionReset => self.reset_as(&function, ResetSource::FunctionLevel),
                Change::Controls { before, after } => self.apply(function.bars(), &before, &after),
            });
        }
        effects
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if !self.device.answers.load(Ordering::Acquire) {
            return;
        }
        match bar {
            abi::BAR_REGISTERS => self.registers.read(&self.device, offset, data),
            abi::BAR_MSIX => self.device.msix.read(offset, data),
            abi::BAR_CONTROL => {
                if let Some(window) = &self.control {
                    window.read(offset, data);
                }
            }
            abi::BAR_VRAM => {
                if let Some(slice) = self.vram_at(offset, data.len()) {
                    slice.copy_to(data);
                }
            }
            _ => {}
        }
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Vec<Effect> {
        if !self.device.answers.load(Ordering::Acquire) {
            return Vec::new();
        }
        match bar {
            abi::BAR_REGISTERS => self.registers.write(&self.device, offset, data),
            abi::BAR_MSIX => {
                let sends = self.device.msix.write(offset, data, self.keeps_table());
                self.trace_sends(&sends);
                let mut effects = self.take_effects();
                // A reset that was pending leaves nothing to send.
                if effects.is_empty() {
                    effects = sends;
                }
                return effects;
            }
            abi::BAR_CONTROL => {
                if let Some(window) = &self.control {
                    window.write(offset, data);
                }
            }
            abi::BAR_VRAM => {
                if let Some(slice) = self.vram_at(offset, data.len()) {
                    slice.copy_from(data);
                }
            }
            _ => {}
        }
        Vec::new()
    }

    fn bars(&self) -> Vec<BarInfo> {
        self.function.lock().bars().to_vec()
    }

    fn mappings(&self) -> Vec<BarMapping> {
        vec![BarMapping {
            bar: abi::BAR_VRAM,
            offset: 0,
            length: self.shown.load(Ordering::Acquire),
            file: self.device.vram.file().clone(),
            file_offset: 0,
        }]
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        (0..)
            .zip(&self.device.channels)
            .filter_map(|(number, channel)| {
                Some(Doorbell {
                    bar: abi::BAR_REGISTERS,
                    offset: regs::doorbell(number)?.into(),
                    width: regs::DOORBELL_WIDTH as u8,
                    event: channel.doorbell.clone(),
                })
            })
            .collect()
    }

    fn msix_vectors(&self) -> u16 {
        abi::MSIX_VECTORS
    }

    fn msix_message(&self, vector: u16) -> Option<MsixMessage> {
        self.device.msix.message(vector)
    }

    fn reset(&self) -> Vec<Effect> {
        let mut function = self.function.lock();
        if self.device.removal.is_gone() {
            return Vec::new();
        }
        function.reset();
        self.reset_as(&function, ResetSource::Conventional)
    }

    fn event(&self) -> Option<Arc<EventFd>> {
        Some(self.device.removal.event.clone())
    }

    fn take_effects(&self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for change in self.device.removal.take() {
            match change {
                FunctionChange::Gone => effects.push(Effect::Gone),
                FunctionChange::Reset if self.device.removal.is_gone() => {}
                FunctionChange::Reset => {
                    let mut function = self.function.lock();
                    function.reset();
                    effects.extend(self.reset_as(&function, ResetSource::FunctionLevel));
                }
            }
        }
        effects
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        self.device.link.unplug();
        self.device.leave();
        if let Some(window) = &self.control {
            window.leave();
        }
        for thread in self.threads.drain(..) {
            // A request of the control window may hold the last reference to this.
            if thread.thread().id() == std::thread::current().id() {
                continue;
            }
            // A panic there has been printed, and there is nothing left to save.
            let _ = thread.join();
        }
        self.device.ports.tracer.emit(Event::DeviceDropped);
    }
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A PCI function for tests.

// Each test file uses its own part.
#![allow(dead_code)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ersatz::machine::FunctionFactory;
use ersatz_device_model::bus::{BarInfo, BarMapping, Doorbell, Effect, MsixMessage, PciFunction};
use ersatz_device_model::pci::aer::ErrorLog;
use ersatz_device_model::pci::capability::MsixLayout;
use ersatz_device_model::pci::function::{Change, Controls, Function, Identity};
use ersatz_device_model::pci::resize::ResizableBar;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Size of BAR0.
pub const REGISTERS_SIZE: u64 = 64 << 10;
/// Offset of the doorbell in BAR0.
pub const DOORBELL: u64 = 0x8000;
/// Size of BAR2 after reset.
pub const MEMORY_SIZE: u64 = 2 << 20;

/// A function with registers that remember writes, a doorbell among them, and memory, of which it shows 2 MiB until told to
/// show up to 4 MiB.
pub struct Card {
    function: Mutex<Function>,
    memory: Arc<File>,
    /// What its doorbell signals.
    pub doorbell: Arc<EventFd>,
    /// The writes to BARs that it saw: BAR, offset, bytes.
    pub writes: Mutex<Vec<(u8, u64, Vec<u8>)>>,
    /// The memory is no mapping now: accesses to it are those of registers.
    pub hidden: AtomicBool,
    event: Arc<EventFd>,
    pending: Mutex<Vec<Effect>>,
}

impl Card {
    /// A card as after power-on.
    pub fn new() -> Arc<Self> {
        let identity = Identity { vendor: 0x1234, device: 1, class: 0xff_00_00, revision: 0, serial: 0 };
        let bar = |bar, size, high| BarInfo { bar, size, is_64bit: high, prefetchable: high };
        let bars = vec![bar(0, REGISTERS_SIZE, false), bar(2, MEMORY_SIZE, true)];
        let resizable = ResizableBar { bar: 2, smallest: MEMORY_SIZE, largest: 2 * MEMORY_SIZE };
        let msix = MsixLayout { bar: 0, vectors: 1, table: 0, pending: 0x1000 };
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(2 * MEMORY_SIZE).unwrap();
        Arc::new(Self {
            function: Mutex::new(Function::new(identity, bars, Some(resizable), msix, Arc::new(ErrorLog::new(0)))),
            memory: Arc::new(memory),
            doorbell: Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()),
            writes: Mutex::default(),
            hidden: AtomicBool::new(false),
            event: Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()),
            pending: Mutex::default(),
        })
    }

    /// What puts this card into a slot.
    pub fn factory(self: &Arc<Self>) -> FunctionFactory {
        let card: Arc<dyn PciFunction> = Arc::clone(self) as _;
        Box::new(move |_| Ok(card))
    }

    /// Reports an effect that no access caused.
    pub fn report(&self, effect: Effect) {
        self.pending.lock().unwrap().push(effect);
        self.event.write(1).unwrap();
    }

    /// A byte that a guest may write as it likes.
    pub fn interrupt_line(&self) -> u8 {
        let mut byte = [0];
        self.config_read(0x3c, &mut byte);
        byte[0]
    }

    /// Four bytes of the memory.
    pub fn memory_at(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.memory.read_exact_at(&mut bytes, offset).unwrap();
        u32::from_le_bytes(bytes)
    }
}

impl PciFunction for Card {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.function.lock().unwrap().read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Vec<Effect> {
        let mut effects = self.take_effects();
        let mut function = self.function.lock().unwrap();
        let Change::Controls { before, after } = function.write(offset, data) else {
            effects.push(Effect::Reset);
            return effects;
        };
        let moved = |index: usize| {
            let place = |controls: &Controls| (controls.addresses[index], controls.sizes[index]);
            let bar = function.bars()[index].bar;
            (place(&before) != place(&after)).then_some(Effect::BarMoved { bar, address: after.addresses[index] })
        };
        effects.extend((0..function.bars().len()).filter_map(moved));
        effects
    }

    fn bar_read(&self, _: u8, offset: u64, data: &mut [u8]) {
        data.fill(offset as u8);
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Vec<Effect> {
        self.writes.lock().unwrap().push((bar, offset, data.to_vec()));
        Vec::new()
    }

    fn bars(&self) -> Vec<BarInfo> {
        self.function.lock().unwrap().bars().to_vec()
    }

    fn mappings(&self) -> Vec<BarMapping> {
        if self.hidden.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let file = Arc::clone(&self.memory);
        let length = self.function.lock().unwrap().bars()[1].size;
        vec![BarMapping { bar: 2, offset: 0, length, file, file_offset: 0 }]
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        vec![Doorbell { bar: 0, offset: DOORBELL, width: 4, event: Arc::clone(&self.doorbell) }]
    }

    fn msix_vectors(&self) -> u16 {
        1
    }

    fn msix_message(&self, _: u16) -> Option<MsixMessage> {
        None
    }

    fn reset(&self) -> Vec<Effect> {
        self.function.lock().unwrap().reset();
        vec![Effect::Reset]
    }

    fn event(&self) -> Option<Arc<EventFd>> {
        Some(Arc::clone(&self.event))
    }

    fn take_effects(&self) -> Vec<Effect> {
        let _ = self.event.read();
        std::mem::take(&mut *self.pending.lock().unwrap())
    }
}

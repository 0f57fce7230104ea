// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the tests, benchmarks and fuzz targets of the device share.
//!
//! [`Host`] is a machine around one GPU: guest memory, an interrupt controller that remembers, and the few lines of driver
//! that bring up a channel and put commands into its ring. [`small_machine`] is a smaller one for fuzzing, with the
//! promises that hold whatever a guest does.

pub mod faults;
pub mod held;
mod log;
pub mod page_tables;
pub mod pages;
pub mod small_machine;
pub mod tables;

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ersatz_abi::channel::{CONTROL_BLOCK_FENCE, CONTROL_BLOCK_GET, CONTROL_BLOCK_PUT};
use ersatz_abi::command::{COMMAND_BYTES, Cause, Command, LIST_ENTRY_BYTES, List, ListEntry, Location, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::pci::{BAR_MSIX, BAR_REGISTERS, MSIX_PBA_OFFSET};
use ersatz_abi::regs::{self, ChannelStatus, Register};
use ersatz_device_model::bus::{Effect, PciFunction};
use ersatz_device_model::clock::{Clock, HostClock};
use ersatz_device_model::dma::{MapAccess, MappedSpace};
use ersatz_device_model::interrupt::InterruptSink;
use ersatz_device_model::{Gpu, GpuConfig};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use log::Log;

/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Size of guest RAM, which starts at bus address 0.
pub const RAM: u64 = 64 << 20;
/// Where channel 0's ring lies; each further channel's lies [`CHANNEL_MEMORY`] on.
pub const RING: u64 = 0x10_0000;
/// Where channel 0's control block lies.
pub const BLOCK: u64 = 0x14_0000;
/// Distance between the memory of two channels.
pub const CHANNEL_MEMORY: u64 = 0x10_0000;
/// 64 commands.
pub const ORDER: u32 = 6;
/// Where tests put lists.
pub const LISTS: u64 = 0x80_0000;
/// Where tests put data.
pub const DATA: u64 = 0x100_0000;
/// Config space: command register.
pub const COMMAND: u16 = 0x04;
/// Command register: memory decode and bus master.
pub const MEMORY_AND_MASTER: u16 = 0b110;
/// Config space: MSI-X message control.
pub const MSIX_CONTROL: u16 = 0x4a;

/// Remembers which vectors were signalled.
#[derive(Default)]
pub struct Interrupts {
    seen: Mutex<Vec<u16>>,
    changed: Condvar,
    /// Whether the transport keeps the MSI-X table.
    pub keeps_table: bool,
}

impl InterruptSink for Interrupts {
    fn signal(&self, vector: u16) {
        self.seen.lock().unwrap().push(vector);
        self.changed.notify_all();
    }

    fn keeps_table(&self) -> bool {
        self.keeps_table
    }
}

impl Interrupts {
    /// All vectors signalled so far.
    pub fn seen(&self) -> Vec<u16> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until `count` interrupts were seen.
    pub fn wait_for(&self, count: usize) -> Vec<u16> {
        let seen = self.seen.lock().unwrap();
        let (seen, timeout) = self.changed.wait_timeout_while(seen, PATIENCE, |seen| seen.len() < count).unwrap();
        assert!(!timeout.timed_out(), "only {} of {count} interrupts came: {seen:?}", seen.len());
        seen.clone()
    }

    /// Waits until there is an interrupt, and forgets all there are.
    pub fn wait_for_one(&self) {
        let seen = self.seen.lock().unwrap();
        let (mut seen, timeout) = self.changed.wait_timeout_while(seen, PATIENCE, |seen| seen.is_empty()).unwrap();
        assert!(!timeout.timed_out(), "no interrupt came");
        seen.clear();
    }
}

/// Guest memory, a GPU, and where its ring stands.
pub struct Host {
    /// Guest memory, from bus address 0.
    pub memory: GuestMemoryMmap,
    /// What the GPU may do DMA to.
    pub space: Arc<MappedSpace>,
    /// The interrupt controller.
    pub interrupts: Arc<Interrupts>,
    /// The GPU.
    pub gpu: Gpu,
    /// PUT of each channel.
    pub put: [u32; 16],
    /// Behind the GPU, which has to be gone when this is dropped.
    _log: Log,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// A GPU of 64 MiB, decoding and bus master, MSI-X on and unmasked, channel 0 not set up.
    pub fn new() -> Self {
        Self::with(GpuConfig::new(64 << 20), Interrupts::default())
    }

    /// A GPU of this configuration, likewise. The oracle looks at what has become of it.
    pub fn with(mut config: GpuConfig, interrupts: Interrupts) -> Self {
        let clock = Arc::new(HostClock::new());
        let log = Log::of(&mut config, clock.clone());
        Self { _log: log, ..Self::made(config, interrupts, clock) }
    }

    /// A GPU of 64 MiB by a clock of the caller's, likewise.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let mut config = GpuConfig::new(64 << 20);
        let log = Log::of(&mut config, clock.clone());
        Self { _log: log, ..Self::made(config, Interrupts::default(), clock) }
    }

    /// A GPU of 64 MiB that writes no log: for measurements.
    pub fn unlogged() -> Self {
        Self::unlogged_with(GpuConfig::new(64 << 20))
    }

    /// A GPU of this configuration, likewise.
    pub fn unlogged_with(config: GpuConfig) -> Self {
        Self::made(config, Interrupts::default(), Arc::new(HostClock::new()))
    }

    fn made(config: GpuConfig, interrupts: Interrupts, clock: Arc<dyn Clock>) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
        let space = Arc::new(MappedSpace::from_memory(&memory).unwrap());
        let interrupts = Arc::new(interrupts);
        let gpu = Gpu::new(config, space.clone(), interrupts.clone(), clock).unwrap();
        let host = Self { memory, space, interrupts, gpu, put: [0; 16], _log: Log::default() };
        host.start();
        host
    }

    /// What firmware and a kernel do to a function: place the BARs, switch it on, unmask the vectors.
    pub fn start(&self) {
        self.gpu.config_write(0x10, &0xf000_0000_u32.to_le_bytes());
        self.gpu.config_write(0x18, &0x100_0000_0000_u64.to_le_bytes());
        self.gpu.config_write(0x20, &0xf100_0000_u32.to_le_bytes());
        self.gpu.config_write(COMMAND, &MEMORY_AND_MASTER.to_le_bytes());
        self.gpu.config_write(MSIX_CONTROL, &0x8000_u16.to_le_bytes());
        for vector in 0..self.gpu.msix_vectors() {
            self.gpu.bar_write(BAR_MSIX, u64::from(vector) * 16, &0xfee0_0000_u64.to_le_bytes());
            self.gpu.bar_write(BAR_MSIX, u64::from(vector) * 16 + 8, &u64::from(vector).to_le_bytes());
        }
    }

    /// Maps more memory for the device.
    pub fn map(&self, address: u64, length: u64, access: MapAccess) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        self.space.map_file(address, length, file, 0, access).unwrap();
    }

    /// Reads a register of 32 bits.
    #[inline]
    pub fn read32(&self, offset: u32) -> u32 {
        let mut data = [0; 4];
        self.gpu.bar_read(BAR_REGISTERS, offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    /// Reads a register of 64 bits.
    #[inline]
    pub fn read64(&self, offset: u32) -> u64 {
        let mut data = [0; 8];
        self.gpu.bar_read(BAR_REGISTERS, offset.into(), &mut data);
        u64::from_le_bytes(data)
    }

    /// Writes a register of 32 bits.
    #[inline]
    pub fn write32(&self, offset: u32, value: u32) {
        assert_eq!(self.gpu.bar_write(BAR_REGISTERS, offset.into(), &value.to_le_bytes()), []);
    }

    /// Writes a register of 64 bits.
    #[inline]
    pub fn write64(&self, offset: u32, value: u64) {
        assert_eq!(self.gpu.bar_write(BAR_REGISTERS, offset.into(), &value.to_le_bytes()), []);
    }

    /// Reads a performance counter.
    #[inline]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.read64(regs::COUNTER_BASE + 8 * counter as u32)
    }

    /// Sets up a channel with the ring and the control block that tests use, and enables it.
    pub fn enable(&self, channel: u32, vector: u32) {
        let away = u64::from(channel) * CHANNEL_MEMORY;
        self.memory.write_slice(&[0; 4096], GuestAddress(BLOCK + away)).unwrap();
        self.enable_pushed(channel, vector);
    }

    /// As [`Self::enable`], with the control block as it is: for commands that are in the ring before.
    pub fn enable_pushed(&self, channel: u32, vector: u32) {
        let away = u64::from(channel) * CHANNEL_MEMORY;
        self.write64(reg(channel, regs::RING_BASE), RING + away);
        self.write64(reg(channel, regs::CONTROL_BLOCK), BLOCK + away);
        self.write32(reg(channel, regs::RING_ORDER), ORDER);
        self.write32(reg(channel, regs::VECTOR), vector);
        self.write32(reg(channel, regs::CHANNEL_CONTROL), 1);
    }

    /// Reads the status of a channel.
    #[inline]
    pub fn status(&self, channel: u32) -> ChannelStatus {
        ChannelStatus(self.read32(reg(channel, regs::CHANNEL_STATUS)))
    }

    /// Rings the doorbell of a channel.
    #[inline]
    pub fn ring_doorbell(&self, channel: u32) {
        self.write32(regs::doorbell(channel).unwrap(), 0x5eed);
    }

    /// Puts raw words into channel 0's ring and moves PUT, without the doorbell.
    pub fn push_words(&mut self, words: [u64; 8]) {
        self.push_words_to(0, words);
    }

    /// Puts raw words into a channel's ring and moves PUT, without the doorbell.
    pub fn push_words_to(&mut self, channel: u32, words: [u64; 8]) {
        let away = u64::from(channel) * CHANNEL_MEMORY;
        let put = &mut self.put[channel as usize];
        let slot = RING + away + u64::from(*put % (1 << ORDER)) * COMMAND_BYTES;
        for (number, word) in (0..).zip(words) {
            self.memory.write_obj(word, GuestAddress(slot + number * 8)).unwrap();
        }
        *put = put.wrapping_add(1);
        self.memory.write_obj(*put, GuestAddress(BLOCK + away + CONTROL_BLOCK_PUT)).unwrap();
    }

    /// Puts a command into channel 0's ring and rings.
    pub fn submit(&mut self, command: Command) {
        self.submit_to(0, command);
    }

    /// Puts a command into a channel's ring and rings.
    pub fn submit_to(&mut self, channel: u32, command: Command) {
        self.push_words_to(channel, command.encode());
        self.ring_doorbell(channel);
    }

    /// Writes a list to guest memory.
    pub fn list(&self, address: u64, entries: &[ListEntry]) -> List {
        for (number, entry) in (0..).zip(entries) {
            for (word, value) in (0..).zip(entry.encode()) {
                let at = address + number * LIST_ENTRY_BYTES + word * 8;
                self.memory.write_obj(value, GuestAddress(at)).unwrap();
            }
        }
        List { address, count: entries.len() as u32 }
    }

    /// The vectors whose messages are held back, a bit for each.
    pub fn pending_vectors(&self) -> u64 {
        let mut data = [0; 8];
        self.gpu.bar_read(BAR_MSIX, MSIX_PBA_OFFSET.into(), &mut data);
        u64::from_le_bytes(data)
    }

    /// Returns the fence value in the control block of channel 0.
    #[inline]
    pub fn fence(&self) -> u64 {
        self.fence_of(0)
    }

    /// Returns the fence value in the control block of a channel.
    #[inline]
    pub fn fence_of(&self, channel: u32) -> u64 {
        let away = u64::from(channel) * CHANNEL_MEMORY;
        self.memory.read_obj(GuestAddress(BLOCK + away + CONTROL_BLOCK_FENCE)).unwrap()
    }

    /// Returns GET in the control block of channel 0.
    pub fn get(&self) -> u32 {
        self.memory.read_obj(GuestAddress(BLOCK + CONTROL_BLOCK_GET)).unwrap()
    }

    /// Waits until `done` holds; looks again often.
    pub fn wait_until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let start = std::time::Instant::now();
        while !done(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "never came: {what}; channel 0: {:?}, PUT {}, GET {}, fence {}",
                self.status(0),
                self.put[0],
                self.get(),
                self.fence()
            );
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Submits with an interrupt and the fence value `fence`, and waits for both.
    pub fn execute(&mut self, operation: Operation, fence: u64) {
        let before = self.interrupts.seen().len();
        self.submit(Command { fence: Some(fence), interrupt: true, ..command(operation) });
        self.interrupts.wait_for(before + 1);
        assert_eq!(self.fence(), fence, "status {:?}", self.status(0));
    }
}

/// Offset of a channel's register.
#[inline]
pub fn reg(channel: u32, register: Register) -> u32 {
    regs::channel_register(channel, register).unwrap()
}

/// A command with nothing but an operation.
pub fn command(operation: Operation) -> Command {
    Command { operation, cause: Cause::Other, fence: None, interrupt: false, tag: 0 }
}

/// Returns a location in VRAM.
pub fn vram(address: u64) -> Location {
    Location::vram(address)
}

/// Returns a location in system memory.
pub fn system(address: u64) -> Location {
    Location::system(address)
}

/// Returns a list entry without a tag.
pub fn entry(source: Location, destination: Location, length: u32) -> ListEntry {
    ListEntry { source, destination, length, tag: 0 }
}

/// The addresses of the moves among effects.
pub fn moves(effects: &[Effect]) -> Vec<(u8, Option<u64>)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::BarMoved { bar, address } => Some((*bar, *address)),
            _ => None,
        })
        .collect()
}

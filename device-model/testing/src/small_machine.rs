// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A small machine around one GPU, linked with another, the page tables of a small guest ([`tables`]), and the promises that hold
//! whatever a guest does ([`promises`]).

pub mod promises;
pub mod tables;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ersatz_abi::command::{COMMAND_BYTES, Command};
use ersatz_abi::list::{Aperture, Location};
use ersatz_abi::pci::{BAR_MSIX, BAR_REGISTERS, BAR_VRAM};
use ersatz_abi::regs::{self, ChannelStatus, Register};
use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::clock::HostClock;
use ersatz_device_model::dma::{MapAccess, MappedSpace};
use ersatz_device_model::fabric::Fabric;
use ersatz_device_model::interrupt::InterruptSink;
use ersatz_device_model::{Gpu, GpuConfig};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Size of guest RAM.
pub const RAM: u64 = 256 << 10;
/// Where memory lies that the device may only read, one page.
pub const READ_ONLY: u64 = 1 << 20;
/// Size of VRAM.
pub const VRAM: u64 = 2 << 20;
/// Number of channels.
pub const CHANNELS: u32 = 2;
/// Number of engines: two copy engines, then a compute engine.
pub const ENGINES: u32 = 3;
/// The compute engine.
pub const COMPUTE: u32 = 2;
/// Number of the other GPU for this one.
pub const PEER: u8 = 1;
/// Commands of a ring.
pub const SLOTS: u64 = 16;
/// Command register: memory decode and bus master.
const ON: [u8; 2] = [0b110, 0];

/// Far longer than anything takes that ends.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Sink(AtomicU64);

impl InterruptSink for Sink {
    fn signal(&self, vector: u16) {
        assert!(vector < ersatz_abi::pci::MSIX_VECTORS);
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Where channels' rings are: each with its control block in the page behind it.
pub const fn ring(channel: u32) -> u64 {
    0x1000 + channel as u64 * 0x2000
}

/// Where channels' control blocks are.
pub const fn block(channel: u32) -> u64 {
    ring(channel) + 0x1000
}

/// What a channel is bound to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Binding {
    /// The number of the engine.
    pub engine: u32,
    /// The address space.
    pub asid: u32,
    /// The priority.
    pub priority: u32,
}

/// The other GPU, and what links it with those that come and go. One for all runs: what it costs to make, and what is in its VRAM,
/// matters to none of them.
pub struct Neighbour {
    fabric: Fabric,
    /// The GPU.
    pub gpu: Gpu,
}

impl Neighbour {
    /// Returns the neighbour, which is created at the first call.
    pub fn get() -> &'static Self {
        static NEIGHBOUR: OnceLock<Neighbour> = OnceLock::new();
        NEIGHBOUR.get_or_init(|| {
            let fabric = Fabric::new();
            let mut config = GpuConfig::new(VRAM);
            config.fabric = Some(fabric.port(PEER).expect("a port"));
            let dma = Arc::new(MappedSpace::new());
            let gpu = Gpu::new(config, dma, Arc::new(Sink::default()), Arc::new(HostClock::new())).expect("a GPU");
            Self { fabric, gpu }
        })
    }

    /// Lets it sleep, so that it cannot be reached, or wakes it up.
    pub fn sleep(&self, asleep: bool) {
        self.gpu.config_write(0x44, &[if asleep { 3 } else { 0 }]);
    }
}

/// A GPU and its surroundings.
pub struct Machine {
    /// The GPU.
    pub gpu: Gpu,
    /// Guest memory.
    pub memory: GuestMemoryMmap,
    read_only: GuestMemoryMmap,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// Two channels, two copy engines, one compute engine, a peer that is awake; nothing set up.
    pub fn new() -> Self {
        Self::with_vram(VRAM, VRAM)
    }

    /// One with `vram` bytes of VRAM, of which BAR2 shows `shown` after a reset.
    pub fn with_vram(vram: u64, shown: u64) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).expect("RAM");
        let read_only = GuestMemoryMmap::from_ranges(&[(GuestAddress(READ_ONLY), 4096)]).expect("RAM");
        let space = Arc::new(MappedSpace::from_memory(&memory).expect("maps"));
        for region in read_only.iter() {
            space.map_region(region.start_addr().0, region.get_mmap(), MapAccess::ReadOnly).expect("maps");
        }
        let neighbour = Neighbour::get();
        neighbour.sleep(false);
        let mut config = GpuConfig::new(vram);
        config.bar_size = shown;
        config.channels = CHANNELS as u8;
        config.fabric = Some(neighbour.fabric.port(0).expect("a port"));
        let gpu = Gpu::new(config, space, Arc::new(Sink::default()), Arc::new(HostClock::new())).expect("a GPU");
        let machine = Self { gpu, memory, read_only };
        machine.read_only.write_slice(&promises::read_only_page(), GuestAddress(READ_ONLY)).expect("RAM");
        machine
    }

    /// Decoding and bus master.
    pub fn switch_on(&self) {
        self.gpu.config_write(0x04, &ON);
    }

    /// MSI-X, with no vector masked.
    pub fn unmask_interrupts(&self) {
        for vector in 0..u64::from(self.gpu.msix_vectors()) {
            self.gpu.bar_write(BAR_MSIX, vector * 16 + 12, &[0; 4]);
        }
        self.gpu.config_write(0x4a, &0x8000_u16.to_le_bytes());
    }

    /// Reads a register of 32 bits.
    pub fn read32(&self, offset: u32) -> u32 {
        let mut data = [0; 4];
        self.gpu.bar_read(BAR_REGISTERS, offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    /// Reads a register of 64 bits.
    pub fn read64(&self, offset: u32) -> u64 {
        let mut data = [0; 8];
        self.gpu.bar_read(BAR_REGISTERS, offset.into(), &mut data);
        u64::from_le_bytes(data)
    }

    /// Writes a register of 32 bits.
    pub fn write32(&self, offset: u32, value: u32) {
        self.gpu.bar_write(BAR_REGISTERS, offset.into(), &value.to_le_bytes());
    }

    /// Writes a register of 64 bits.
    pub fn write64(&self, offset: u32, value: u64) {
        self.gpu.bar_write(BAR_REGISTERS, offset.into(), &value.to_le_bytes());
    }

    /// Writes a word to RAM or VRAM, as a CPU does.
    pub fn store(&self, at: Location, word: u64) {
        if at.aperture == Aperture::Vram {
            self.gpu.bar_write(BAR_VRAM, at.address, &word.to_le_bytes());
        } else {
            self.memory.write_obj(word.to_le(), GuestAddress(at.address)).expect("RAM");
        }
    }

    /// Writes words to RAM.
    pub fn store_words(&self, address: u64, words: &[u64]) {
        for (number, word) in (0..).zip(words) {
            self.store(Location::system(address + number * 8), *word);
        }
    }

    /// Writes commands to the first slots of a channel's ring, as many as it has room for, and PUT; rings no doorbell.
    pub fn submit(&self, channel: u32, commands: &[[u64; 8]], put: u32) {
        for (slot, words) in (0..SLOTS).zip(commands) {
            self.store_words(ring(channel) + slot * COMMAND_BYTES, words);
        }
        let address = GuestAddress(block(channel) + ersatz_abi::channel::CONTROL_BLOCK_PUT);
        self.memory.write_obj(put.to_le(), address).expect("RAM");
    }

    /// Reads the status of a channel.
    pub fn status(&self, channel: u32) -> ChannelStatus {
        ChannelStatus(self.read32(reg(channel, regs::CHANNEL_STATUS)))
    }

    /// Waits until `done`, which must come about.
    pub fn must(&self, what: &str, done: impl Fn(&Self) -> bool) {
        assert!(self.within(PATIENCE, done), "never came: {what}");
    }

    /// Whether `done` comes about in time.
    pub fn within(&self, time: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let start = Instant::now();
        while !done(self) {
            if start.elapsed() > time {
                return false;
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        true
    }

    /// Enables a channel with its ring and control block.
    pub fn enable(&self, channel: u32, binding: Binding) {
        self.write64(reg(channel, regs::RING_BASE), ring(channel));
        self.write64(reg(channel, regs::CONTROL_BLOCK), block(channel));
        for (register, value) in [
            (regs::RING_ORDER, SLOTS.ilog2()),
            (regs::VECTOR, 1 + channel),
            (regs::ENGINE, binding.engine),
            (regs::ASID, binding.asid),
            (regs::PRIORITY, binding.priority),
            (regs::CHANNEL_CONTROL, 1),
        ] {
            self.write32(reg(channel, register), value);
        }
    }

    /// Resets a channel and waits for it.
    pub fn reset_channel(&self, channel: u32) {
        self.write32(reg(channel, regs::CHANNEL_CONTROL), 2);
        self.must("the reset", |machine| machine.read32(reg(channel, regs::CHANNEL_CONTROL)) == 0);
    }
}

/// The words of commands that are valid.
pub fn encoded(commands: &[Command]) -> Vec<[u64; 8]> {
    commands.iter().map(|command| command.encode()).collect()
}

/// Offset of a channel's register.
pub fn reg(channel: u32, register: Register) -> u32 {
    regs::channel_register(channel, register).expect("a channel")
}

/// Offset of the doorbell of a channel.
pub fn doorbell(channel: u32) -> u32 {
    regs::doorbell(channel).expect("a channel")
}

/// Offset of an address space's register.
pub fn space_reg(asid: u32, register: Register) -> u32 {
    regs::address_space_register(asid, register).expect("an address space")
}

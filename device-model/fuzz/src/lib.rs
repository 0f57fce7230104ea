// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the fuzz targets share: a small machine around one GPU, and the promises that hold whatever a guest does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ersatz_abi::channel::{CONTROL_BLOCK_FENCE, CONTROL_BLOCK_PUT, ChannelState};
use ersatz_abi::command::{Cause, Command, Operation};
use ersatz_abi::error::ErrorCode;
use ersatz_abi::pci::BAR_REGISTERS;
use ersatz_abi::regs::{self, ChannelStatus, Register};
use ersatz_device_model::bus::{Effect, PciFunction};
use ersatz_device_model::clock::HostClock;
use ersatz_device_model::dma::{MapAccess, MappedSpace};
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
/// Channel 0's ring, of 16 commands, and its control block.
pub const RING: u64 = 0x1000;
/// See [`RING`].
pub const BLOCK: u64 = 0x2000;
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

/// A GPU and its surroundings.
pub struct Machine {
    pub gpu: Gpu,
    pub memory: GuestMemoryMmap,
    read_only: GuestMemoryMmap,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// Two channels, one engine, nothing set up.
    pub fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).expect("RAM");
        let read_only = GuestMemoryMmap::from_ranges(&[(GuestAddress(READ_ONLY), 4096)]).expect("RAM");
        let space = Arc::new(MappedSpace::from_memory(&memory).expect("maps"));
        for region in read_only.iter() {
            space.map_region(region.start_addr().0, region.get_mmap(), MapAccess::ReadOnly).expect("maps");
        }
        let mut config = GpuConfig::new(VRAM);
        config.channels = CHANNELS as u8;
        let gpu = Gpu::new(config, space, Arc::new(Sink::default()), Arc::new(HostClock::new())).expect("a GPU");
        Self { gpu, memory, read_only }
    }

    /// Decoding and bus master.
    pub fn switch_on(&self) {
        self.gpu.config_write(0x04, &ON);
    }

    pub fn read32(&self, offset: u32) -> u32 {
        let mut data = [0; 4];
        self.gpu.bar_read(BAR_REGISTERS, offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    pub fn write32(&self, offset: u32, value: u32) {
        self.gpu.bar_write(BAR_REGISTERS, offset.into(), &value.to_le_bytes());
    }

    pub fn write64(&self, offset: u32, value: u64) {
        self.gpu.bar_write(BAR_REGISTERS, offset.into(), &value.to_le_bytes());
    }

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

    /// Enables channel 0 with its ring and control block.
    pub fn enable(&self) {
        self.write64(reg(0, regs::RING_BASE), RING);
        self.write64(reg(0, regs::CONTROL_BLOCK), BLOCK);
        self.write32(reg(0, regs::RING_ORDER), 4);
        self.write32(reg(0, regs::VECTOR), 1);
        self.write32(reg(0, regs::CHANNEL_CONTROL), 1);
    }

    /// What holds at any time while the function answers.
    pub fn check(&self) {
        assert_eq!(self.read32(regs::ID.offset), regs::DEVICE_MAGIC);
        for channel in 0..CHANNELS {
            let status = self.status(channel);
            let state = status.state().expect("a known state");
            let error = status.error().expect("a known error");
            assert_eq!(state == ChannelState::Error, error != ErrorCode::None);
        }
        let mut page = [0; 4096];
        self.read_only.read_slice(&mut page, GuestAddress(READ_ONLY)).expect("RAM");
        assert!(page.iter().all(|byte| *byte == 0), "read-only memory was written");
    }

    /// After a reset everything works, whatever came before.
    pub fn still_works(&self) {
        assert!(self.gpu.reset().contains(&Effect::Reset));
        self.switch_on();
        self.check();
        self.memory.write_slice(&[0; 4096], GuestAddress(BLOCK)).expect("RAM");
        let command =
            Command { operation: Operation::Nop, cause: Cause::Other, fence: Some(7), interrupt: true, tag: 0 };
        for (number, word) in (0..).zip(command.encode()) {
            self.memory.write_obj(word.to_le(), GuestAddress(RING + number * 8)).expect("RAM");
        }
        self.memory.write_obj(1_u32.to_le(), GuestAddress(BLOCK + CONTROL_BLOCK_PUT)).expect("RAM");
        self.enable();
        let fence = GuestAddress(BLOCK + CONTROL_BLOCK_FENCE);
        self.must("the fence", |machine| machine.memory.read_obj::<u64>(fence).is_ok_and(|value| value == 7));
    }
}

/// Offset of a channel's register.
pub fn reg(channel: u32, register: Register) -> u32 {
    regs::channel_register(channel, register).expect("a channel")
}

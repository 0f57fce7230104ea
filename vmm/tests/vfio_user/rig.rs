// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A served GPU, a client's memory, a small driver on the client of the crate `vfio_user`.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ersatz::gpu::{self, GpuAddress};
use ersatz::spec::GpuSpec;
use ersatz::supervisor::Event;
use ersatz::vfio_user::server::{self, Clients, Until};
use ersatz::vfio_user::socket::Socket;
use ersatz_abi::channel::{CONTROL_BLOCK_FENCE, CONTROL_BLOCK_PUT};
use ersatz_abi::command::{Cause, Command, List, ListEntry, Location, Operation};
use ersatz_abi::pci::BAR_REGISTERS;
use ersatz_abi::regs::{self, ChannelControl, ChannelStatus, Register};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use tempfile::TempDir;
use vfio_bindings::bindings::vfio::{VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD};
use vfio_user::Client;

pub const VRAM: u64 = 64 << 20;
/// The region with config space.
pub const CONFIG: u32 = 7;
/// The interrupt index of MSI-X.
pub const MSIX: u32 = 2;

/// How long to wait for what must come; far more than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server on a thread of its own; dropping it ends it.
pub struct Served {
    folder: TempDir,
    stop: Event,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub fn new(keep_vram: bool) -> Self {
        Self::with(&GpuSpec::new(VRAM), keep_vram)
    }

    pub fn with(spec: &GpuSpec, keep_vram: bool) -> Self {
        Self::at(spec, &GpuAddress::default(), keep_vram)
    }

    pub fn at(spec: &GpuSpec, address: &GpuAddress, keep_vram: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stop = Event::new().unwrap();
        let socket = Socket::bind(&folder.path().join("gpu")).unwrap();
        let backend = gpu::build_backend(spec, address, keep_vram).unwrap();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            server::serve(socket.listener(), backend, Until::Stopped, Clients::Anyone, &stopped).unwrap();
        });
        Self { folder, stop, thread: Some(thread) }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("gpu")
    }

    /// A client. The one before may have been dropped just now and still be known, so this tries again.
    pub fn connect(&self) -> Client {
        wait_for("a client is served", || Client::new(&self.path()).ok())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.set();
        let thread = self.thread.take().unwrap();
        assert!(thread.join().is_ok() || thread::panicking(), "the server panicked");
        assert!(!self.path().exists(), "the socket is left over");
    }
}

/// Tries until there is a result.
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < deadline, "{what}: never happened");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Memory of the client, to be shared with the device.
pub struct Memory {
    pub file: File,
}

impl Memory {
    pub fn new(bytes: u64) -> Self {
        let file = memfd_create("client", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, bytes).unwrap();
        Self { file: file.into() }
    }

    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub fn write(&self, offset: u64, data: &[u8]) {
        self.file.write_all_at(data, offset).unwrap();
    }

    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.file.read_exact_at(&mut data, offset).unwrap();
        data
    }

    pub fn u64(&self, offset: u64) -> u64 {
        u64::from_le_bytes(self.read(offset, 8).try_into().unwrap())
    }
}

/// Where the driver keeps its things in memory, which is mapped at [`BUS`]; the rest, from [`DATA`], is for data.
const RING: u64 = 0;
const CONTROL_BLOCK: u64 = 0x1000;
const LIST: u64 = 0x2000;
pub const DATA: u64 = 0x20_0000;
/// The bus address of the memory: above 4 GiB.
pub const BUS: u64 = 0x1_0000_0000;
const RING_ORDER: u32 = 4;
/// The vector of channel 0.
pub const VECTOR: u32 = 1;

/// A driver of channel 0.
pub struct Driver {
    pub client: Client,
    pub memory: Memory,
    put: u32,
}

impl Driver {
    /// Maps memory and enables the device and the channel.
    pub fn new(mut client: Client) -> Self {
        let memory = Memory::new(4 << 20);
        client.dma_map(0, BUS, 4 << 20, memory.fd()).unwrap();
        let mut driver = Self { client, memory, put: 0 };
        driver.enable();
        driver
    }

    pub fn enable(&mut self) {
        self.put = 0;
        self.memory.write(CONTROL_BLOCK, &[0; 0x1000]);
        // Memory space and bus master of the command register.
        self.client.region_write(CONFIG, 4, &6u16.to_le_bytes()).unwrap();
        self.write64(regs::RING_BASE, BUS + RING);
        self.write64(regs::CONTROL_BLOCK, BUS + CONTROL_BLOCK);
        self.write32(regs::RING_ORDER, RING_ORDER);
        self.write32(regs::VECTOR, VECTOR);
        self.write32(regs::CHANNEL_CONTROL, ChannelControl(0).with_enable(true).0);
    }

    fn offset(register: Register) -> u64 {
        regs::channel_register(0, register).unwrap().into()
    }

    pub fn write32(&mut self, register: Register, value: u32) {
        self.client.region_write(BAR_REGISTERS.into(), Self::offset(register), &value.to_le_bytes()).unwrap();
    }

    pub fn write64(&mut self, register: Register, value: u64) {
        self.client.region_write(BAR_REGISTERS.into(), Self::offset(register), &value.to_le_bytes()).unwrap();
    }

    pub fn read64(&mut self, register: Register) -> u64 {
        let mut data = [0; 8];
        self.client.region_read(BAR_REGISTERS.into(), Self::offset(register), &mut data).unwrap();
        u64::from_le_bytes(data)
    }

    pub fn status(&mut self) -> ChannelStatus {
        let mut data = [0; 4];
        let offset = Self::offset(regs::CHANNEL_STATUS);
        self.client.region_read(BAR_REGISTERS.into(), offset, &mut data).unwrap();
        ChannelStatus(u32::from_le_bytes(data))
    }

    /// Has the device copy; returns once the doorbell was rung.
    pub fn copy(&mut self, entries: &[ListEntry], fence: u64) {
        let list: Vec<u8> = entries.iter().flat_map(|entry| entry.encode()).flat_map(u64::to_le_bytes).collect();
        self.memory.write(LIST, &list);
        let list = List { address: BUS + LIST, count: u32::try_from(entries.len()).unwrap() };
        let command = Command {
            operation: Operation::Copy(list),
            cause: Cause::Other,
            fence: Some(fence),
            interrupt: true,
            tag: fence,
        };
        let words: Vec<u8> = command.encode().into_iter().flat_map(u64::to_le_bytes).collect();
        let slot = u64::from(self.put % (1 << RING_ORDER));
        self.memory.write(RING + slot * 64, &words);
        self.put += 1;
        self.memory.write(CONTROL_BLOCK + CONTROL_BLOCK_PUT, &self.put.to_le_bytes());
        let doorbell = regs::doorbell(0).unwrap().into();
        self.client.region_write(BAR_REGISTERS.into(), doorbell, &1u32.to_le_bytes()).unwrap();
    }

    pub fn fence(&self) -> u64 {
        self.memory.u64(CONTROL_BLOCK + CONTROL_BLOCK_FENCE)
    }

    /// Connects a vector to an event.
    pub fn connect(&mut self, vector: u32, event: RawFd) {
        let flags = VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_DATA_EVENTFD;
        self.client.set_irqs(MSIX, flags, vector, 1, &[event]).unwrap();
    }
}

pub fn system(offset: u64) -> Location {
    Location::system(BUS + offset)
}

pub fn vram(address: u64) -> Location {
    Location::vram(address)
}

pub fn entry(source: Location, destination: Location, length: u32) -> ListEntry {
    ListEntry { source, destination, length, tag: 0 }
}

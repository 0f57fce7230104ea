// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the way to the device costs: a register read, and a doorbell to its interrupt (with an empty command in between), in
//! this process (as the VMM does it, without the exit) and over vfio-user (as QEMU does it, without the guest).
#![allow(missing_docs, reason = "criterion_group! makes public functions")]

use std::fs::File;
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use criterion::{Criterion, criterion_group, criterion_main};
use ersatz::gpu::{self, GpuAddress};
use ersatz::spec::GpuSpec;
use ersatz::supervisor::Event;
use ersatz::vfio_user::server::{self, Clients, Until};
use ersatz::vfio_user::socket::Socket;
use ersatz_abi::channel::CONTROL_BLOCK_PUT;
use ersatz_abi::command::{COMMAND_BYTES, Cause, Command, Operation};
use ersatz_abi::pci::BAR_REGISTERS;
use ersatz_abi::regs::{self, ChannelControl};
use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::dma::{MapAccess, MappedSpace};
use ersatz_device_model::interrupt::InterruptSink;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use tempfile::TempDir;
use vfio_user::Client;
use vmm_sys_util::eventfd::EventFd;

const SPEC: GpuSpec = GpuSpec::new(2 << 20);
/// The guest's memory: one page of ring, one of control block.
const MEMORY: u64 = 0x2000;
const CONTROL_BLOCK: u64 = 0x1000;
const RING_ORDER: u32 = 4;
const VECTOR: u16 = 1;
/// The region of config space, and its command register with memory decoding and bus mastering.
const CONFIG: u32 = 7;
const COMMAND: (u64, [u8; 2]) = (4, [6, 0]);

/// A way to the device.
trait Transport {
    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]);
    fn write(&mut self, region: u32, offset: u64, data: &[u8]);
}

/// The device in this process.
struct InProcess(Arc<dyn PciFunction>);

impl Transport for InProcess {
    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]) {
        self.0.bar_read(region as u8, offset, data);
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        if region == CONFIG {
            self.0.config_write(offset as u16, data);
        } else {
            self.0.bar_write(region as u8, offset, data);
        }
    }
}

/// Signals one event, whatever the vector.
struct OneEvent(EventFd);

impl InterruptSink for OneEvent {
    fn signal(&self, _vector: u16) {
        self.0.write(1).expect("an event can be signalled");
    }

    fn keeps_table(&self) -> bool {
        true
    }
}

/// The device behind a socket.
struct OverSocket {
    client: Client,
    stop: Event,
    server: Option<JoinHandle<()>>,
    _folder: TempDir,
}

impl Transport for OverSocket {
    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]) {
        self.client.region_read(region, offset, data).expect("a read");
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        self.client.region_write(region, offset, data).expect("a write");
    }
}

impl Drop for OverSocket {
    fn drop(&mut self) {
        self.stop.set();
        self.server.take().map(JoinHandle::join);
    }
}

/// A driver of one channel.
struct Driver<T> {
    transport: T,
    memory: File,
    event: EventFd,
    put: u32,
}

impl<T: Transport> Driver<T> {
    fn new(mut transport: T, memory: File, event: EventFd) -> Self {
        transport.write(CONFIG, COMMAND.0, &COMMAND.1);
        let mut set = |register, value: &[u8]| {
            let offset = regs::channel_register(0, register).expect("channel 0 exists");
            transport.write(BAR_REGISTERS.into(), offset.into(), value);
        };
        set(regs::RING_BASE, &0u64.to_le_bytes());
        set(regs::CONTROL_BLOCK, &CONTROL_BLOCK.to_le_bytes());
        set(regs::RING_ORDER, &RING_ORDER.to_le_bytes());
        set(regs::VECTOR, &u32::from(VECTOR).to_le_bytes());
        set(regs::CHANNEL_CONTROL, &ChannelControl(0).with_enable(true).0.to_le_bytes());
        Self { transport, memory, event, put: 0 }
    }

    fn read_register(&mut self) -> u32 {
        let mut data = [0; 4];
        self.transport.read(BAR_REGISTERS.into(), regs::ID.offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    /// Submits an empty command and waits for its interrupt.
    fn round_trip(&mut self) {
        let command = Command { operation: Operation::Nop, cause: Cause::Other, fence: None, interrupt: true, tag: 0 };
        let bytes: Vec<u8> = command.encode().into_iter().flat_map(u64::to_le_bytes).collect();
        let slot = u64::from(self.put % (1 << RING_ORDER));
        self.memory.write_all_at(&bytes, slot * COMMAND_BYTES).expect("the ring");
        self.put = self.put.wrapping_add(1);
        self.memory.write_all_at(&self.put.to_le_bytes(), CONTROL_BLOCK + CONTROL_BLOCK_PUT).expect("PUT");
        let doorbell = regs::doorbell(0).expect("channel 0 exists");
        self.transport.write(BAR_REGISTERS.into(), doorbell.into(), &1u32.to_le_bytes());
        self.event.read().expect("an interrupt");
    }
}

fn memory() -> File {
    let memory = memfd_create("bench", MemfdFlags::CLOEXEC).expect("a memfd");
    ftruncate(&memory, MEMORY).expect("memory");
    memory.into()
}

fn in_process() -> Driver<InProcess> {
    let (memory, event) = (memory(), EventFd::new(0).expect("an event"));
    let space = MappedSpace::new();
    let mapped = memory.try_clone().expect("a descriptor");
    space.map_file(0, MEMORY, mapped, 0, MapAccess::ReadWrite).expect("a map");
    let sink = OneEvent(event.try_clone().expect("a descriptor"));
    let gpu = gpu::build(&SPEC, &GpuAddress::default(), Arc::new(space), Arc::new(sink)).expect("a GPU");
    Driver::new(InProcess(gpu), memory, event)
}

fn over_socket() -> Driver<OverSocket> {
    let (memory, event) = (memory(), EventFd::new(0).expect("an event"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gpu");
    let socket = Socket::bind(&path).expect("a socket");
    let backend = gpu::build_backend(&SPEC, &GpuAddress::default(), false).expect("a GPU");
    let stop = Event::new().expect("an event");
    let stopped = stop.clone();
    let server = thread::spawn(move || {
        server::serve(socket.listener(), backend, Until::Stopped, Clients::Anyone, &stopped).expect("a server");
    });
    let mut client = Client::new(&path).expect("a client");
    client.dma_map(0, 0, MEMORY, memory.as_raw_fd()).expect("a map");
    // An event for one MSI-X vector.
    client.set_irqs(2, 0x24, VECTOR.into(), 1, &[event.as_raw_fd()]).expect("a vector");
    Driver::new(OverSocket { client, stop, server: Some(server), _folder: folder }, memory, event)
}

fn measure<T: Transport>(c: &mut Criterion, name: &str, mut driver: Driver<T>) {
    assert_eq!(driver.read_register(), regs::DEVICE_MAGIC);
    c.bench_function(&format!("register read/{name}"), |b| b.iter(|| black_box(driver.read_register())));
    c.bench_function(&format!("doorbell to interrupt/{name}"), |b| b.iter(|| driver.round_trip()));
}

fn transports(c: &mut Criterion) {
    measure(c, "in process", in_process());
    measure(c, "vfio-user", over_socket());
}

criterion_group!(benches, transports);
criterion_main!(benches);

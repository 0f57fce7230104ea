// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A channel: its ring and control block, submission, fences, and what becomes of a command that cannot be executed.

use std::cell::Cell;
use std::sync::atomic::{Ordering, fence};

use ersatz_abi::channel::{
    CONTROL_BLOCK_FENCE, CONTROL_BLOCK_GET, CONTROL_BLOCK_PUT, CONTROL_BLOCK_SIZE, ChannelState, Priority,
    RING_ORDER_MIN,
};
use ersatz_abi::command::{COMMAND_BYTES, Cause, Command, List, ListEntry, Operation};
use ersatz_abi::error::ErrorCode;
use ersatz_abi::regs::{self, ChannelControl, ChannelStatus, Register};

use super::buffer::Buffer;
use super::gpu::Gpu;
use super::patience::{wait_for, wait_until};

/// Length of a ring in commands.
const RING_LENGTH: u32 = 1 << RING_ORDER_MIN;

/// What a channel is set up with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Number of the channel.
    pub number: u32,
    /// Number of its engine.
    pub engine: u32,
    /// Its address space.
    pub asid: u8,
    /// Its priority.
    pub priority: Priority,
    /// Its MSI-X vector.
    pub vector: u32,
}

impl Setup {
    /// For bus addresses and VRAM offsets alone.
    pub fn new(number: u32, engine: u32) -> Self {
        Self { number, engine, asid: 0, priority: Priority::Normal, vector: 0 }
    }
}

/// Why and where a channel stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub error: ErrorCode,
    /// Ring position of the command.
    pub position: u32,
    /// Entry of its list.
    pub entry: u32,
    /// The address that was refused.
    pub address: u64,
}

/// A channel that is enabled.
#[derive(Debug)]
pub struct Channel<'a> {
    gpu: &'a Gpu,
    setup: Setup,
    ring: Buffer<'a>,
    control: Buffer<'a>,
    put: Cell<u32>,
    fence: Cell<u64>,
}

impl<'a> Channel<'a> {
    /// Sets a channel up and enables it.
    ///
    /// # Panics
    ///
    /// As all functions here, if the device does not do what a test needs.
    pub fn open(gpu: &'a Gpu, setup: Setup) -> Self {
        let ring = gpu.system().take((u64::from(RING_LENGTH) * COMMAND_BYTES) as usize);
        let control = gpu.system().take(CONTROL_BLOCK_SIZE as usize);
        let channel = Self { gpu, setup, ring, control, put: Cell::new(0), fence: Cell::new(0) };
        channel.set_up();
        channel.enable();
        channel
    }

    /// Enables it. A setup that cannot work stops it at once.
    pub fn enable(&self) {
        self.write32(regs::CHANNEL_CONTROL, ChannelControl(0).with_enable(true).0);
    }

    /// Clears the enable bit, which stops the channel behind the command under way.
    pub fn ask_to_disable(&self) {
        self.write32(regs::CHANNEL_CONTROL, 0);
    }

    /// Disables it, and waits until it is.
    pub fn disable(&self) {
        self.ask_to_disable();
        wait_until("disabled channel", || self.state() == ChannelState::Disabled);
    }

    /// Disables it, gives it another engine, and enables it again.
    pub fn move_to(&self, engine: u32) {
        self.disable();
        self.write32(regs::ENGINE, engine);
        self.enable();
    }

    /// Resets it, and enables it with an empty ring.
    pub fn reset(&self) {
        self.stop();
        self.start_over();
    }

    /// The same, also if a reset of more than the channel has cleared its setup.
    pub fn reset_anew(&self) {
        self.stop();
        self.set_up();
        self.start_over();
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.setup.number
    }

    /// Its engine at first.
    pub fn engine(&self) -> u32 {
        self.setup.engine
    }

    /// What it is doing.
    pub fn state(&self) -> ChannelState {
        self.status().state().expect("the state of a channel")
    }

    /// Puts an operation into the ring, with the next fence value, and rings. Returns that value.
    pub fn submit(&self, operation: Operation) -> u64 {
        self.submit_as(operation, Cause::Other, false)
    }

    /// The same, for a cause, and with an interrupt if it is to have one.
    pub fn submit_as(&self, operation: Operation, cause: Cause, interrupt: bool) -> u64 {
        let value = self.fence.get() + 1;
        self.fence.set(value);
        self.submit_words(&Command { operation, cause, fence: Some(value), interrupt, tag: value }.encode());
        value
    }

    /// The same with any words.
    pub fn submit_words(&self, words: &[u64; 8]) {
        let put = self.put.get();
        wait_until("room in the ring", || put.wrapping_sub(self.get_in_memory()) < RING_LENGTH);
        self.ring.write_words(u64::from(put % RING_LENGTH) * COMMAND_BYTES, words);
        self.put.set(put.wrapping_add(1));
        self.control.write(CONTROL_BLOCK_PUT, self.put.get().into());
        // The doorbell is no access to memory: it must not get ahead of PUT.
        fence(Ordering::SeqCst);
        self.gpu.registers().ring_doorbell(self.number());
    }

    /// Submits a copy, fill or digest over the entries of a list, which `operation` is made of.
    pub fn submit_list(&self, entries: &[ListEntry], operation: impl FnOnce(List) -> Operation) -> u64 {
        self.submit(operation(self.list(entries)))
    }

    /// Writes a list.
    pub fn list(&self, entries: &[ListEntry]) -> List {
        let words: Vec<u64> = entries.iter().flat_map(|entry| entry.encode()).collect();
        let buffer = self.gpu.system().take(size_of_val(&words[..]));
        buffer.write_words(0, &words);
        List::new(buffer.address(), entries.len() as u64).expect("a list")
    }

    /// The fence value that the device wrote last.
    pub fn fence(&self) -> u64 {
        self.control.read(CONTROL_BLOCK_FENCE)
    }

    /// Waits until the device has written a fence value.
    #[track_caller]
    pub fn wait(&self, value: u64) {
        wait_until("fence", || {
            let status = self.status();
            assert_ne!(status.state(), Some(ChannelState::Error), "{:x?} instead of fence {value}", self.failure());
            self.fence() >= value
        });
    }

    /// Waits until GET has reached PUT.
    #[track_caller]
    pub fn wait_until_idle(&self) {
        wait_until("GET as far as PUT", || self.get_in_memory() == self.put.get());
    }

    /// Executes an operation.
    #[track_caller]
    pub fn run(&self, operation: Operation) {
        self.wait(self.submit(operation));
    }

    /// Copies, each source to its destination.
    #[track_caller]
    pub fn copy(&self, entries: &[ListEntry]) {
        self.wait(self.submit_list(entries, Operation::Copy));
    }

    /// Waits until the channel has stopped with an error.
    #[track_caller]
    pub fn wait_for_failure(&self) -> Failure {
        wait_for("error of a channel", || (self.state() == ChannelState::Error).then(|| self.failure()))
    }

    /// Waits until the channel waits at a fault.
    #[track_caller]
    pub fn wait_for_fault(&self) {
        wait_until("fault of a channel", || self.state() == ChannelState::Faulted);
        assert_eq!(self.gpu.faulted_channels() >> self.number() & 1, 1, "the bit of channel {}", self.number());
    }

    /// PUT.
    pub fn put(&self) -> u32 {
        self.put.get()
    }

    /// GET as the register has it.
    pub fn get(&self) -> u32 {
        self.read32(regs::GET)
    }

    /// GET as the control block has it.
    pub fn get_in_memory(&self) -> u32 {
        self.control.read(CONTROL_BLOCK_GET) as u32
    }

    fn stop(&self) {
        self.write32(regs::CHANNEL_CONTROL, ChannelControl(0).with_reset(true).0);
        wait_until("end of a channel's reset", || self.read32(regs::CHANNEL_CONTROL) == 0);
    }

    /// Writes the setup of the channel, which is disabled.
    fn set_up(&self) {
        self.write64(regs::RING_BASE, self.ring.address());
        self.write64(regs::CONTROL_BLOCK, self.control.address());
        self.write32(regs::RING_ORDER, RING_LENGTH.ilog2());
        self.write32(regs::VECTOR, self.setup.vector);
        self.write32(regs::ENGINE, self.setup.engine);
        self.write32(regs::ASID, self.setup.asid.into());
        self.write32(regs::PRIORITY, self.setup.priority as u32);
    }

    fn start_over(&self) {
        self.control.fill(|_| 0);
        self.put.set(0);
        self.fence.set(0);
        self.enable();
    }

    fn failure(&self) -> Failure {
        let position = self.read64(regs::ERROR_POSITION);
        Failure {
            error: self.status().error().expect("the error of a channel"),
            position: position as u32,
            entry: (position >> 32) as u32,
            address: self.read64(regs::ERROR_ADDRESS),
        }
    }

    fn status(&self) -> ChannelStatus {
        ChannelStatus(self.read32(regs::CHANNEL_STATUS))
    }

    fn read32(&self, register: Register) -> u32 {
        self.gpu.registers().read32(self.place(register))
    }

    fn read64(&self, register: Register) -> u64 {
        self.gpu.registers().read64(self.place(register))
    }

    fn write32(&self, register: Register, value: u32) {
        self.gpu.registers().write32(self.place(register), value);
    }

    fn write64(&self, register: Register, value: u64) {
        self.gpu.registers().write64(self.place(register), value);
    }

    /// A register of this channel's block, by its offset in BAR0.
    fn place(&self, register: Register) -> Register {
        let offset = regs::channel_register(self.number(), register).expect("there are so many channels");
        Register { offset, ..register }
    }
}

/// The entry that copies one piece of memory to another of the same length.
pub fn copy_entry(source: Buffer<'_>, destination: Buffer<'_>) -> ListEntry {
    assert_eq!(source.length(), destination.length());
    ListEntry {
        source: source.location(),
        destination: destination.location(),
        length: u32::try_from(source.length()).expect("a length of at most 2 MiB"),
        tag: 0,
    }
}

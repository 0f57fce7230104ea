// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A GPU that a test has for itself: the kernel's driver is off it, this process programs it.

use std::fs;
use std::ops::Range;
use std::thread::sleep;
use std::time::Duration;

use ersatz_abi::counter::Counter;
use ersatz_abi::mmu::{InvalidateScope, InvalidateTarget, Invalidation};
use ersatz_abi::regs::{self, Configuration, Control, MmuConfiguration, Peers, Status};

use super::memory::Memory;
use super::patience::wait_until;
use crate::bus::Function;
use crate::config_space::{COMMAND, COMMAND_MASTER, COMMAND_MEMORY, ConfigSpace, POWER_D3HOT, capability};
use crate::device::Device;
use crate::registers::Registers;
use crate::vram_bar::VramBar;

/// Huge pages of each memory that a test may use.
const HUGE_PAGES: usize = 6;

/// A bus address at which there is nothing: the last page of those that a processor can have.
pub const NOWHERE: u64 = (1 << 52) - 4096;

/// A function that its driver is off until this is dropped.
#[derive(Debug)]
struct Detached(Function);

impl Detached {
    fn new(function: Function) -> Self {
        function.detach();
        Self(function)
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        self.0.attach();
    }
}

/// One GPU. Dropped, it does no more DMA, and the kernel's driver has it back.
#[derive(Debug)]
pub struct Gpu {
    config: ConfigSpace,
    registers: Registers,
    command: u16,
    system: Memory,
    vram: Memory,
    // The last field: the driver comes back when all else has ended.
    detached: Detached,
}

impl Gpu {
    /// Takes the first GPU off its driver, and makes it a bus master in the state after a reset.
    ///
    /// # Panics
    ///
    /// As all functions here, if system or device refuse what a test needs.
    pub fn claim() -> Self {
        // The device file is closed again before the driver goes.
        let function = Function::of(&Device::open());
        Self::take(function)
    }

    fn take(function: Function) -> Self {
        let detached = Detached::new(function);
        let function = &detached.0;
        let config = ConfigSpace::of(function);
        let command = config.read16(COMMAND);
        config.write16(COMMAND, command | COMMAND_MEMORY | COMMAND_MASTER);
        let gpu = Self {
            registers: function.registers(),
            system: Memory::of_system(HUGE_PAGES),
            vram: Memory::of_vram(&VramBar::of(function), HUGE_PAGES),
            config,
            command,
            detached,
        };
        assert_eq!(gpu.registers.read32(regs::ID), regs::DEVICE_MAGIC, "the register ID");
        gpu.reset();
        gpu
    }

    /// The function on the bus.
    pub fn function(&self) -> &Function {
        &self.detached.0
    }

    /// Its configuration space.
    pub fn config(&self) -> &ConfigSpace {
        &self.config
    }

    /// Its registers.
    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    /// System memory that it can reach.
    pub fn system(&self) -> &Memory {
        &self.system
    }

    /// Its VRAM.
    pub fn vram(&self) -> &Memory {
        &self.vram
    }

    /// How many parts it has.
    pub fn configuration(&self) -> Configuration {
        Configuration(self.registers.read32(regs::CONFIGURATION))
    }

    /// Numbers of its copy engines.
    pub fn copy_engines(&self) -> Range<u32> {
        0..self.configuration().copy_engines()
    }

    /// Numbers of its compute engines.
    pub fn compute_engines(&self) -> Range<u32> {
        let first = self.configuration().copy_engines();
        first..first + MmuConfiguration(self.registers.read32(regs::MMU_CONFIGURATION)).compute_engines()
    }

    /// Whom it is linked with.
    pub fn peers(&self) -> Peers {
        Peers(self.registers.read32(regs::PEERS))
    }

    /// The device as a whole.
    pub fn status(&self) -> Status {
        Status(self.registers.read32(regs::STATUS))
    }

    /// A counter.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.registers.counter(counter)
    }

    /// Calls `work`, and says how far counters came by it.
    pub fn count<const N: usize>(&self, counters: [Counter; N], work: impl FnOnce()) -> [u64; N] {
        let before = counters.map(|counter| self.counter(counter));
        work();
        std::array::from_fn(|index| self.counter(counters[index]).wrapping_sub(before[index]))
    }

    /// Calls `work`, and waits until a counter has come exactly so far by it: for what the device counts a moment
    /// behind what shows.
    pub fn expect_count(&self, counter: Counter, amount: u64, work: impl FnOnce()) {
        let before = self.counter(counter);
        work();
        wait_until(counter.name(), || self.counter(counter).wrapping_sub(before) >= amount);
        assert_eq!(self.counter(counter).wrapping_sub(before), amount, "{}", counter.name());
    }

    /// Resets all but the function.
    pub fn reset(&self) {
        self.registers.write32(regs::CONTROL, Control(0).with_reset(true).0);
        wait_until("end of a reset", || !self.status().resetting());
    }

    /// Resets the function, as the kernel does it: configuration space is saved and restored.
    pub fn reset_function(&self) {
        let path = self.function().folder().join("reset");
        fs::write(&path, "1").unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }

    /// Has the function sleep: state D3hot.
    pub fn sleep(&self) {
        self.enter(POWER_D3HOT);
    }

    /// Wakes the function up: state D0.
    pub fn wake(&self) {
        self.enter(0);
    }

    fn enter(&self, state: u16) {
        let control = self.config.capability(capability::POWER_MANAGEMENT) + 4;
        self.config.write16(control, state);
        // What the specification gives a function for it.
        sleep(Duration::from_millis(10));
        assert_eq!(self.config.read16(control) & POWER_D3HOT, state, "the power state");
    }

    /// Ends all its work, whatever a test has left it in.
    fn quiesce(&self) {
        self.wake();
        self.reset();
    }

    /// Asks for an invalidation by register. Returns its number.
    pub fn ask_to_invalidate(&self, invalidation: Invalidation) -> u64 {
        let (target, address, length) = invalidation.encode();
        if target.raw_scope() == InvalidateScope::Range as u64 {
            self.registers.write64(regs::INVALIDATE_ADDRESS, address);
            self.registers.write64(regs::INVALIDATE_LENGTH, length);
        }
        let InvalidateTarget(word) = target;
        self.registers.write32(regs::INVALIDATE, u32::try_from(word).expect("a target fits its register"));
        self.registers.read64(regs::INVALIDATE_REQUESTED)
    }

    /// Waits until an invalidation is acknowledged.
    pub fn wait_for_acknowledgement(&self, number: u64) {
        wait_until("acknowledgement of an invalidation", || {
            self.registers.read64(regs::INVALIDATE_ACKNOWLEDGED) >= number
        });
    }

    /// Invalidates by register, and waits.
    pub fn invalidate(&self, invalidation: Invalidation) {
        self.wait_for_acknowledgement(self.ask_to_invalidate(invalidation));
    }

    /// Has every channel that waits at a fault try again.
    pub fn replay(&self) {
        self.registers.write32(regs::FAULT_REPLAY, 1);
    }

    /// Stops a channel that waits at a fault.
    pub fn cancel(&self, channel: u32) {
        self.registers.write32(regs::FAULT_CANCEL, channel);
    }

    /// The channels that wait at a fault, a bit each.
    pub fn faulted_channels(&self) -> u64 {
        self.registers.read64(regs::FAULTED_CHANNELS)
    }
}

/// Two GPUs, which may be at work in each other's memory. Dropped, neither is any more, and the kernel's driver gets them back in
/// the order in which it had them.
#[derive(Debug)]
pub struct GpuPair(pub [Gpu; 2]);

impl GpuPair {
    /// Takes the first two GPUs off their driver.
    pub fn claim() -> Self {
        let functions = [Device::open(), Device::open_second()].map(|device| Function::of(&device));
        Self(functions.map(Gpu::take))
    }
}

impl Drop for GpuPair {
    fn drop(&mut self) {
        self.0.iter().for_each(Gpu::quiesce);
    }
}

impl Drop for Gpu {
    /// The memory that is given back next must not be written any more.
    fn drop(&mut self) {
        self.quiesce();
        self.config.write16(COMMAND, self.command);
    }
}

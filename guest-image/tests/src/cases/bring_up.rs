// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the driver takes a device over and leaves it, as the manual has it; and a device that stops to answer while the driver
//! is bound.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use ersatz_abi::mmu::AddressSpaceControl;
use ersatz_abi::regs::{self, Register};
use nix::errno::Errno;

use super::fixture::{assert_works, on_device};
use crate::bus::Function;
use crate::config_space::{COMMAND, COMMAND_MASTER, COMMAND_MEMORY, ConfigSpace, POWER_D3HOT, capability};
use crate::device::Device;
use crate::pattern::Pattern;
use crate::registers::Registers;
use crate::suite::test_list;

test_list! { "bring_up":
    a_channel_left_on_another_engine_is_moved.disruptive().patience(2);
    what_another_driver_left_is_forgotten.disruptive().patience(2);
    bus_mastering_ends_with_unbinding.disruptive().patience(2);
    each_enabling_is_given_back.disruptive().patience(2);
    ioctls_that_end_while_it_is_unbound.disruptive().patience(4);
    a_device_that_does_not_decode_its_memory;
    a_device_that_sleeps;
}

/// The channel that the driver works through.
const DRIVERS_CHANNEL: u32 = 0;
/// One that it has no use for.
const UNUSED_CHANNEL: u32 = 3;

fn write(registers: &Registers, channel: u32, register: Register, value: u32) {
    registers.write32_at(regs::channel_register(channel, register).expect("a channel"), value);
}

fn a_channel_left_on_another_engine_is_moved() {
    let function = Function::of(&Device::open());
    function.unbind();
    let registers = function.registers();
    let configuration = regs::Configuration(registers.read32(regs::CONFIGURATION));
    let first_compute_engine = configuration.copy_engines();
    write(&registers, DRIVERS_CHANNEL, regs::ENGINE, first_compute_engine);
    let engine = regs::channel_register(DRIVERS_CHANNEL, regs::ENGINE).expect("a channel");
    assert_eq!(registers.read32_at(engine), first_compute_engine, "a channel that is disabled can be moved");
    drop(registers);
    function.bind();
    assert_works();
}

fn what_another_driver_left_is_forgotten() {
    const ORDER: u32 = 7;
    let function = Function::of(&Device::open());
    function.unbind();
    let ring_order = regs::channel_register(UNUSED_CHANNEL, regs::RING_ORDER).expect("a channel");
    let space = regs::address_space_register(1, regs::ADDRESS_SPACE_CONTROL).expect("an address space");
    let registers = function.registers();
    write(&registers, UNUSED_CHANNEL, regs::RING_ORDER, ORDER);
    registers.write32_at(space, AddressSpaceControl(0).with_enable(true).0);
    assert_eq!(registers.read32_at(ring_order), ORDER);
    assert_ne!(registers.read32_at(space), 0, "an address space was enabled");
    drop(registers);
    function.bind();
    assert_works();
    function.unbind();
    let registers = function.registers();
    assert_eq!(registers.read32_at(ring_order), 0, "the ring order that another driver left");
    assert_eq!(registers.read32_at(space), 0, "the address space that another driver left");
    drop(registers);
    function.bind();
    assert_works();
}

fn masters_the_bus(function: &Function) -> bool {
    ConfigSpace::of(function).read16(COMMAND) & COMMAND_MASTER != 0
}

fn bus_mastering_ends_with_unbinding() {
    let function = Function::of(&Device::open());
    assert!(masters_the_bus(&function), "a device that copies masters the bus");
    function.unbind();
    assert!(!masters_the_bus(&function), "a device without a driver masters the bus");
    function.bind();
    assert!(masters_the_bus(&function));
    assert_works();
}

fn each_enabling_is_given_back() {
    let function = Function::of(&Device::open());
    let enablings = || {
        let text = fs::read_to_string(function.folder().join("enable")).expect("the count of enablings");
        text.trim().parse::<u32>().expect("a number")
    };
    let bound = enablings();
    for _ in 0..3 {
        function.unbind();
        assert_eq!(enablings(), bound - 1, "enablings of a device without a driver");
        function.bind();
        assert_eq!(enablings(), bound);
    }
    assert_works();
}

/// What an ioctl holds of the device must be gone when unbinding has ended: something dropped later would touch the device when
/// the driver is bound anew.
fn ioctls_that_end_while_it_is_unbound() {
    const THREADS: usize = 6;
    const ROUNDS: usize = 8;
    let function = Function::of(&Device::open());
    for _ in 0..ROUNDS {
        let device = Device::open();
        let stop = AtomicBool::new(false);
        scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        match device.try_info() {
                            Ok(_) => {}
                            Err(error) => assert_eq!(error, Errno::ENODEV),
                        }
                    }
                });
            }
            sleep(Duration::from_millis(5));
            function.unbind();
            function.bind();
            stop.store(true, Ordering::Relaxed);
        });
        assert!(masters_the_bus(&function), "something of the earlier binding forbade bus mastering");
    }
    assert_works();
}

/// Asserts that what asks registers fails while the device does not answer, and that all is well afterwards.
fn assert_silence_is_told(device: &Device, fall_silent: impl FnOnce(), come_back: impl FnOnce()) {
    let pattern = Pattern::new(1);
    let region = on_device(device, 8, pattern);
    let before = device.try_counters().expect("counters of a device that answers").values;
    fall_silent();
    let counters = device.try_counters().map(|counters| counters.values);
    let mark = device.try_mark(1);
    come_back();
    assert_eq!(counters.unwrap_err(), Errno::ENODEV, "counters of a device that does not answer");
    assert_eq!(mark.unwrap_err(), Errno::ENODEV, "a mark in the log of a device that does not answer");
    let after = device.try_counters().expect("counters of a device that answers again").values;
    assert!(before.iter().zip(after).all(|(before, after)| *before <= after), "counters went back");
    device.assert_digests(region.span(), 8, |index| pattern.digest(index));
    region.check(pattern);
}

fn a_device_that_does_not_decode_its_memory() {
    let device = Device::open();
    let config = ConfigSpace::of(&Function::of(&device));
    let command = config.read16(COMMAND);
    assert_silence_is_told(
        &device,
        || config.write16(COMMAND, command & !COMMAND_MEMORY),
        || config.write16(COMMAND, command),
    );
}

fn a_device_that_sleeps() {
    let device = Device::open();
    let config = ConfigSpace::of(&Function::of(&device));
    let control = config.capability(capability::POWER_MANAGEMENT) + 4;
    let enter = |state| {
        config.write16(control, state);
        // What the specification gives a function for it.
        sleep(Duration::from_millis(10));
    };
    assert_silence_is_told(&device, || enter(POWER_D3HOT), || enter(0));
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Resets of the device and of the function, and sleep: what is forgotten, what is kept.

use std::thread::sleep;
use std::time::Duration;

use ersatz_abi::channel::ChannelState;
use ersatz_abi::command::Operation;
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::FaultRecord;
use ersatz_abi::mmu::AddressSpaceControl;
use ersatz_abi::regs;

use super::super::fixture::assert_works;
use super::long_work::LongFill;
use crate::config_space::{BASE_ADDRESSES, COMMAND, COMMAND_MASTER, capability};
use crate::direct::address_space::AddressSpace;
use crate::direct::channel::{Channel, Setup, copy_entry};
use crate::direct::gpu::Gpu;
use crate::direct::notification_ring::NotificationRing;
use crate::suite::test_list;

test_list! { "direct_resets":
    of_the_device_keeps_counters_and_vram.direct();
    of_the_function_by_the_kernel.direct();
    of_the_function_by_its_register.direct();
    dma_ends_with_what_permits_it.direct();
    sleep_stops_dma_and_keeps_state.direct();
}

/// Sets up a bit of everything, calls `reset`, and asserts that all but VRAM's content is forgotten and everything can be set up
/// anew; by the kernel's driver, too.
fn assert_forgets(reset: impl FnOnce(&Gpu)) {
    let claimed = Gpu::claim();
    let gpu = &claimed;
    let channel = Channel::open(gpu, Setup::new(2, 1));
    let _space = AddressSpace::new(gpu, 1, AddressSpaceControl(0), gpu.vram());
    let _faults = NotificationRing::<FaultRecord>::enable(gpu);
    let (source, destination) = (gpu.system().take(4096), gpu.vram().take(4096));
    source.fill(|index| index);
    channel.copy(&[copy_entry(source, destination)]);
    reset(gpu);
    assert_eq!(gpu.registers().read32(regs::ID), regs::DEVICE_MAGIC);
    assert_eq!((channel.state(), channel.get()), (ChannelState::Disabled, 0));
    for place in [
        regs::channel_register(2, regs::RING_BASE),
        regs::channel_register(2, regs::ENGINE),
        regs::address_space_register(1, regs::ADDRESS_SPACE_ROOT),
        regs::address_space_register(1, regs::ADDRESS_SPACE_CONTROL),
        Some(regs::FAULT_RING_BASE + regs::NOTIFICATION_BASE.offset),
        Some(regs::FAULT_RING_BASE + regs::NOTIFICATION_CONTROL.offset),
    ] {
        let place = place.expect("a register");
        assert_eq!(gpu.registers().read32_at(place), 0, "the register at {place:#x}");
    }
    assert!(!gpu.status().bad_access());
    destination.check_same(&source);
    channel.reset_anew();
    let back = gpu.system().take(4096);
    channel.copy(&[copy_entry(destination, back)]);
    back.check_same(&source);
    drop(claimed);
    assert_works();
}

fn of_the_device_keeps_counters_and_vram() {
    assert_forgets(|gpu| {
        let before = gpu.counter(Counter::BytesToVram);
        assert_ne!(before, 0);
        gpu.reset();
        assert_eq!(gpu.counter(Counter::BytesToVram), before);
    });
}

fn of_the_function_by_the_kernel() {
    assert_forgets(|gpu| {
        gpu.reset_function();
        assert_eq!(gpu.counter(Counter::BytesToVram), 0);
    });
}

fn of_the_function_by_its_register() {
    const INITIATE: u16 = 1 << 15;
    assert_forgets(|gpu| {
        let config = gpu.config();
        let device_control = config.capability(capability::EXPRESS) + 8;
        let (command, control) = (config.read16(COMMAND), config.read16(device_control));
        let addresses: Vec<_> = BASE_ADDRESSES.step_by(4).map(|place| (place, config.read32(place))).collect();
        config.write16(device_control, control | INITIATE);
        // What the specification gives a function to come back.
        sleep(Duration::from_millis(100));
        assert_eq!(config.read16(COMMAND), 0, "the command register after a reset");
        addresses.iter().for_each(|&(place, value)| config.write32(place, value));
        config.write16(device_control, control);
        config.write16(COMMAND, command);
        assert_eq!(gpu.counter(Counter::BytesToVram), 0);
    });
}

/// What ends DMA.
type Stop = fn(&Gpu);

fn dma_ends_with_what_permits_it() {
    let gpu = Gpu::claim();
    let channel = Channel::open(&gpu, Setup::new(0, 0));
    let target = gpu.system().take(2 << 20);
    let work = LongFill::of(&channel, target);
    // Each with whether the channel is forgotten by it, or stops with an error.
    let clear_mastering = |gpu: &Gpu| gpu.config().write16(COMMAND, gpu.config().read16(COMMAND) & !COMMAND_MASTER);
    let ways: [(Stop, bool); 4] =
        [(clear_mastering, false), (Gpu::sleep, false), (Gpu::reset_function, true), (Gpu::reset, true)];
    for (stop, forgets) in ways {
        let command = gpu.config().read16(COMMAND);
        let fence = work.begin(&channel);
        stop(&gpu);
        assert!(channel.fence() < fence, "it was done before it could be stopped");
        // The memory may be used for something else now.
        target.fill(|_| 0);
        sleep(Duration::from_millis(20));
        target.check(|_| 0);
        gpu.wake();
        gpu.config().write16(COMMAND, command);
        if forgets {
            assert_eq!(channel.state(), ChannelState::Disabled);
        } else {
            assert_eq!(channel.wait_for_failure().error, ErrorCode::NotMaster);
        }
        channel.reset_anew();
        channel.run(Operation::Nop);
    }
}

fn sleep_stops_dma_and_keeps_state() {
    let gpu = Gpu::claim();
    let channel = Channel::open(&gpu, Setup::new(0, 0));
    channel.run(Operation::Nop);
    gpu.sleep();
    assert_ne!(gpu.registers().read32(regs::ID), regs::DEVICE_MAGIC, "a function that sleeps answers");
    gpu.wake();
    // Nothing was forgotten: the channel goes on.
    assert_eq!((channel.state(), channel.get()), (ChannelState::Idle, 1));
    channel.run(Operation::Nop);
    // Asleep it hears no doorbell.
    gpu.sleep();
    let fence = channel.submit(Operation::Nop);
    sleep(Duration::from_millis(10));
    assert_eq!(channel.fence(), fence - 1);
    gpu.wake();
    gpu.registers().ring_doorbell(channel.number());
    channel.wait(fence);
}

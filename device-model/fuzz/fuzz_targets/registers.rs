// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any traffic on the BARs, with guest memory full of whatever: no access hangs, and a reset always leads back.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use ersatz_abi::command::{Cause, Command, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::mmu::Invalidation;
use ersatz_abi::regs::{self, Register};
use ersatz_device_model::bus::PciFunction;
use ersatz_device_testing::small_machine::{Binding, CHANNELS, COMPUTE, Machine, RAM, doorbell, encoded, reg, space_reg, tables};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};

#[derive(Arbitrary, Debug)]
enum Step {
    Read {
        bar: u8,
        offset: u64,
        length: u8,
    },
    Write {
        bar: u8,
        offset: u64,
        data: [u8; 16],
        length: u8,
    },
    Channel {
        channel: u8,
        register: u8,
        value: u32,
    },
    Setup {
        channel: u8,
        register: u8,
        page: u8,
    },
    /// Enables a channel as it should be, with the commands that [`fill_rings`] wrote.
    Enable {
        channel: u8,
        engine: u8,
        asid: u8,
        priority: u8,
    },
    /// A register of the device as a whole, mostly with a small value.
    Device {
        register: u8,
        value: u16,
        shift: u8,
        half: Half,
    },
    /// A register of a notification ring.
    Notification {
        counters: bool,
        register: u8,
        value: u16,
        half: Half,
    },
    /// Enables a notification ring as it should be.
    Notify {
        counters: bool,
        order: u8,
    },
    Space {
        asid: u8,
        register: u8,
        value: u16,
        half: Half,
    },
    /// Enables an address space as it should be.
    Translate {
        asid: u8,
        control: u8,
    },
    AccessCounters {
        flags: u8,
        order: u8,
        threshold: u8,
    },
    Pause,
    Doorbell {
        channel: u8,
    },
    Event,
    Msix {
        dword: u8,
        value: u32,
    },
    Memory {
        address: u32,
        word: u64,
    },
    Master(bool),
    Power(bool),
    FunctionReset,
    DeviceReset,
}

/// How a 64-bit register is written.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Half {
    Whole,
    Low,
    High,
}

fn write(machine: &Machine, base: u32, register: &Register, value: u64, half: Half) {
    let offset = base + register.offset;
    match (register.width, half) {
        (8, Half::Whole) => machine.write64(offset, value),
        (8, Half::High) => machine.write32(offset + 4, value as u32),
        _ => machine.write32(offset, value as u32),
    }
}

fn pick(registers: &'static [Register], number: u8) -> &'static Register {
    &registers[usize::from(number) % registers.len()]
}

/// Commands of every kind: some that a copy engine executes, some for a compute engine, accesses of what is mapped and
/// of what is not.
fn fill_rings(machine: &Machine) {
    let command = |(number, operation)| {
        let (cause, interrupt) = (Cause::Other, number % 2 == 0);
        Command { operation, cause, fence: Some(number), interrupt, tag: number }
    };
    let kernels = [
        Kernel::Read { source: 0, length: 0x3_0000 },
        Kernel::Set { destination: 0xf_ff00, length: 0x200, pattern: !0 },
        Kernel::AtomicAdd { target: 0x1000, length: 4096, addend: 1 },
        Kernel::Prefetch { address: 0, length: 0x100_0000 },
        Kernel::Copy { source: 0x1000, destination: 0xf_e000, length: 0x3000 },
        Kernel::Chase { start: 0, steps: 1 << 20, result: 8 },
    ];
    let compute = (1..).zip([Operation::Nop, Operation::Invalidate(Invalidation::All)]);
    let compute: Vec<_> = compute.chain((3..).zip(kernels.map(Operation::Kernel))).map(command).collect();
    let invalidation = Operation::Invalidate(Invalidation::Range { asid: 0, address: 0, length: 4096 });
    let copy: Vec<_> = (1..).zip([Operation::Nop, invalidation, Operation::Nop]).map(command).collect();
    for (channel, commands) in (0..CHANNELS).zip([compute, copy]) {
        machine.submit(channel, &encoded(&commands), commands.len() as u32);
    }
}

fn records(counters: bool) -> u32 {
    if counters { regs::ACCESS_RING_BASE } else { regs::FAULT_RING_BASE }
}

/// A reset of the device has cleared what drivers set up, but for what goes on counting.
fn after_reset(machine: &Machine) {
    let registers = |base: u32, registers: &'static [Register]| registers.iter().map(move |register| (base, register));
    let channels = (0..CHANNELS).map(|channel| (reg(channel, regs::RING_BASE), regs::CHANNEL_REGISTERS));
    let spaces = (0..256).map(|asid| (space_reg(asid, regs::ADDRESS_SPACE_ROOT), regs::ADDRESS_SPACE_REGISTERS));
    let rings = [false, true].map(|counters| (records(counters), regs::NOTIFICATION_REGISTERS));
    for (base, register) in channels.chain(spaces).chain(rings).flat_map(|(base, block)| registers(base, block)) {
        let offset = base + register.offset;
        let value = if register.width == 8 { machine.read64(offset) } else { machine.read32(offset).into() };
        assert_eq!(value, 0, "{} at {offset:#x}", register.name);
    }
    for register in [regs::INVALIDATE_REQUESTED, regs::INVALIDATE_ACKNOWLEDGED, regs::FAULTED_CHANNELS] {
        assert_eq!(machine.read64(register.offset), 0, "{}", register.name);
    }
    assert_eq!(machine.read32(regs::ACCESS_COUNTER_CONTROL.offset), 0);
}

fuzz_target!(|steps: Vec<Step>| {
    let machine = Machine::new();
    machine.switch_on();
    machine.unmask_interrupts();
    let root = tables::build(&machine);
    fill_rings(&machine);
    for step in steps.iter().take(100) {
        match *step {
            Step::Read { bar, offset, length } => {
                machine.gpu.bar_read(bar, offset, &mut vec![0; length.into()]);
            }
            Step::Write { bar, offset, data, length } => {
                machine.gpu.bar_write(bar, offset, &data[..usize::from(length).min(data.len())]);
            }
            Step::Channel { channel, register, value } => {
                let channel = u32::from(channel) % (CHANNELS + 1);
                machine.write32(reg(channel, regs::RING_BASE) + u32::from(register % 16) * 4, value);
            }
            Step::Setup { channel, register, page } => {
                let offset = reg(u32::from(channel) % CHANNELS, regs::RING_BASE) + u32::from(register % 2) * 8;
                machine.write64(offset, u64::from(page) << 12);
            }
            Step::Enable { channel, engine, asid, priority } => {
                let channel = u32::from(channel) % CHANNELS;
                let engine = (COMPUTE + u32::from(engine % 4)) % 4;
                let binding = Binding { engine, asid: u32::from(asid) % 3, priority: u32::from(priority) % 4 };
                machine.enable(channel, binding);
            }
            Step::Device { register, value, shift, half } => {
                let value = u64::from(value) << (shift % 64);
                write(&machine, 0, pick(regs::DEVICE_REGISTERS, register), value, half);
            }
            Step::Notification { counters, register, value, half } => {
                write(&machine, records(counters), pick(regs::NOTIFICATION_REGISTERS, register), value.into(), half);
            }
            Step::Notify { counters, order } => {
                let base = records(counters);
                machine.write64(base + regs::NOTIFICATION_BASE.offset, if counters { 0x1_0000 } else { 0x2_0000 });
                machine.write32(base + regs::NOTIFICATION_ORDER.offset, 3 + u32::from(order % 15));
                machine.write32(base + regs::NOTIFICATION_CONTROL.offset, 1);
            }
            Step::Space { asid, register, value, half } => {
                let register = pick(regs::ADDRESS_SPACE_REGISTERS, register);
                let base = space_reg(asid.into(), *register) - register.offset;
                write(&machine, base, register, value.into(), half);
            }
            Step::Translate { asid, control } => {
                let asid = u32::from(asid) % 3;
                machine.write64(space_reg(asid, regs::ADDRESS_SPACE_ROOT), root);
                machine.write32(space_reg(asid, regs::ADDRESS_SPACE_CONTROL), u32::from(control % 16) ^ 0b1001);
            }
            Step::AccessCounters { flags, order, threshold } => {
                let control = u32::from(flags % 4) ^ 3 | u32::from(order % 34) << 8 | u32::from(threshold) << 16;
                machine.write32(regs::ACCESS_COUNTER_CONTROL.offset, control);
            }
            Step::Pause => std::thread::sleep(Duration::from_micros(100)),
            Step::Doorbell { channel } => {
                let channel = u32::from(channel) % (CHANNELS + 1);
                machine.write32(doorbell(channel), 1);
            }
            Step::Event => machine.gpu.doorbells()[0].event.write(1).expect("an event"),
            Step::Msix { dword, value } => {
                machine.gpu.bar_write(4, u64::from(dword) * 4, &value.to_le_bytes());
            }
            Step::Memory { address, word } => {
                let address = u64::from(address) % (RAM - 7);
                machine.memory.write_obj(word, GuestAddress(address)).expect("RAM");
            }
            Step::Master(on) => {
                machine.gpu.config_write(4, &[if on { 0b110 } else { 0b010 }, 0]);
            }
            Step::Power(on) => {
                machine.gpu.config_write(0x44, &[if on { 0 } else { 3 }]);
            }
            Step::FunctionReset => {
                machine.gpu.config_write(0x69, &[0x80]);
                machine.switch_on();
            }
            Step::DeviceReset => {
                machine.write32(regs::CONTROL.offset, 1);
            }
        }
    }
    machine.gpu.config_write(0x44, &[0]);
    machine.switch_on();
    machine.check();
    machine.write32(regs::CONTROL.offset, 1);
    machine.must("the reset", |machine| machine.read32(regs::CONTROL.offset) == 0);
    after_reset(&machine);
    assert!(machine.gpu.counter(Counter::Fences) <= machine.gpu.counter(Counter::Commands));
    machine.still_works();
});

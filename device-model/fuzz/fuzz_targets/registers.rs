// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any traffic on the BARs, with guest memory full of whatever: no access hangs, and a reset always leads back.
#![no_main]

use arbitrary::Arbitrary;
use ersatz_abi::counter::Counter;
use ersatz_device_model::bus::PciFunction;
use ersatz_device_model_fuzz::{Machine, RAM};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};

#[derive(Arbitrary, Debug)]
enum Step {
    Read { bar: u8, offset: u64, length: u8 },
    Write { bar: u8, offset: u64, data: [u8; 16], length: u8 },
    Channel { channel: u8, register: u8, value: u32 },
    Setup { channel: u8, register: u8, page: u8 },
    Doorbell { channel: u8 },
    Event,
    Msix { dword: u8, value: u32 },
    Memory { address: u32, word: u64 },
    Master(bool),
    Power(bool),
    FunctionReset,
    DeviceReset,
}

fuzz_target!(|steps: Vec<Step>| {
    let machine = Machine::new();
    machine.switch_on();
    for step in steps.iter().take(100) {
        match *step {
            Step::Read { bar, offset, length } => {
                machine.gpu.bar_read(bar, offset, &mut vec![0; length.into()]);
            }
            Step::Write { bar, offset, data, length } => {
                machine.gpu.bar_write(bar, offset, &data[..usize::from(length).min(data.len())]);
            }
            Step::Channel { channel, register, value } => {
                machine.write32(0x1000 + u32::from(channel % 3) * 0x40 + u32::from(register % 16) * 4, value);
            }
            Step::Setup { channel, register, page } => {
                let offset = 0x1000 + u32::from(channel % 2) * 0x40 + u32::from(register % 2) * 8;
                machine.write64(offset, u64::from(page) << 12);
            }
            Step::Doorbell { channel } => machine.write32(0x1_0000 + u32::from(channel % 3) * 0x1000, 1),
            Step::Event => machine.gpu.doorbells()[0].event.write(1).expect("an event"),
            Step::Msix { dword, value } => {
                machine.gpu.bar_write(4, u64::from(dword) * 4, &value.to_le_bytes());
            }
            Step::Memory { address, word } => {
                let address = u64::from(address) % (RAM - 8);
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
                machine.write32(0x18, 1);
            }
        }
    }
    machine.gpu.config_write(0x44, &[0]);
    machine.switch_on();
    machine.check();
    machine.write32(0x18, 1);
    machine.must("the reset", |machine| machine.read32(0x18) == 0);
    assert!(machine.gpu.counter(Counter::Fences) <= machine.gpu.counter(Counter::Commands));
    machine.still_works();
});

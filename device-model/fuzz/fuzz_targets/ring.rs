// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rings and lists of any content: the channel ends idle or in error, or a reset ends it.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use ersatz_abi::channel::{CONTROL_BLOCK_PUT, ChannelState};
use ersatz_abi::regs;
use ersatz_device_model_fuzz::{BLOCK, Machine, RAM, READ_ONLY, RING, reg};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};

/// Where lists lie.
const LISTS: u64 = 0x4000;

#[derive(Arbitrary, Debug)]
enum Words {
    /// Anything.
    Raw([u64; 8]),
    /// Close to a command that is valid.
    Near { opcode: u8, flags: u8, count: u16, fence: u8, list: u16, pattern: u64 },
}

#[derive(Arbitrary, Debug)]
enum Entry {
    Raw([u64; 4]),
    Near { source: Place, destination: Place, words: u16, tag: u64 },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Place {
    Vram(u32),
    Ram(u32),
    ReadOnly(u8),
    Edge(u8),
    /// The shared pages themselves.
    Shared(u16),
}

impl Place {
    fn location(self) -> (u64, u64) {
        match self {
            Self::Vram(at) => (u64::from(at) % (3 << 20) & !7, 0),
            Self::Ram(at) => (u64::from(at) % RAM & !7, 1),
            Self::ReadOnly(at) => (READ_ONLY + u64::from(at) * 8, 1),
            Self::Edge(at) => (RAM - u64::from(at) * 8, 1),
            Self::Shared(at) => (RING + u64::from(at) % 0x2000 & !7, 1),
        }
    }
}

impl Words {
    fn words(&self) -> [u64; 8] {
        match *self {
            Self::Raw(words) => words,
            Self::Near { opcode, flags, count, fence, list, pattern } => {
                let header = u64::from(opcode % 5) | u64::from(flags & 3) << 8 | u64::from(flags >> 5) << 16;
                let fence = if flags & 1 != 0 { u64::from(fence) } else { 0 };
                let pattern = if opcode % 5 == 2 { pattern } else { 0 };
                let (count, list) = match opcode % 5 {
                    0 => (0, 0),
                    _ => (u64::from(count % 300), LISTS + u64::from(list % 600) * 32),
                };
                [header | count << 32, fence, list, pattern, 0x7a6, 0, 0, 0]
            }
        }
    }
}

impl Entry {
    fn words(&self) -> [u64; 4] {
        match *self {
            Self::Raw(words) => words,
            Self::Near { source, destination, words, tag } => {
                let ((source, from), (destination, to)) = (source.location(), destination.location());
                [source, destination, u64::from(words) * 8 | from << 32 | to << 36, tag]
            }
        }
    }
}

#[derive(Arbitrary, Debug)]
struct Input {
    commands: Vec<Words>,
    entries: Vec<Entry>,
    put: Option<u32>,
    disable: bool,
}

fuzz_target!(|input: Input| {
    let machine = Machine::new();
    machine.switch_on();
    let write = |address: u64, words: &[u64]| {
        for (number, word) in (0..).zip(words) {
            machine.memory.write_obj(word.to_le(), GuestAddress(address + number * 8)).expect("RAM");
        }
    };
    for (slot, command) in (0..16).zip(&input.commands) {
        write(RING + slot * 64, &command.words());
    }
    for (slot, entry) in (0..1000).zip(&input.entries) {
        write(LISTS + slot * 32, &entry.words());
    }
    let put = input.put.unwrap_or(input.commands.len().min(16) as u32);
    machine.memory.write_obj(put.to_le(), GuestAddress(BLOCK + CONTROL_BLOCK_PUT)).expect("RAM");
    machine.enable();
    machine.write32(regs::DOORBELL_BASE, 0);
    if input.disable {
        machine.write32(reg(0, regs::CHANNEL_CONTROL), 0);
    }
    // The engine may be at it for long, legally; then the reset has something to interrupt.
    machine.within(Duration::from_millis(5), |machine| machine.status(0).state() != Some(ChannelState::Busy));
    machine.check();
    machine.write32(reg(0, regs::CHANNEL_CONTROL), 2);
    machine.must("the reset", |machine| machine.read32(reg(0, regs::CHANNEL_CONTROL)) == 0);
    assert_eq!(machine.status(0).state(), Some(ChannelState::Disabled));
    machine.check();
    machine.still_works();
});

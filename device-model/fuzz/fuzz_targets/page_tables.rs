// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Page tables of any content, changed while kernels and lists go through them: every access ends, in memory that is there, or with
//! a fault that can be replayed and cancelled, and a reset always leads back.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use ersatz_abi::channel::{CONTROL_BLOCK_PUT, ChannelState};
use ersatz_abi::command::{
    Aperture, COMMAND_BYTES, Cause, Command, LIST_ENTRY_BYTES, List, ListEntry, Location, Operation,
};
use ersatz_abi::kernel::Kernel;
use ersatz_abi::mmu::{
    AddressSpaceControl, InvalidateTarget, Invalidation, Page, PageSize, PageTableEntry, TABLE_BYTES,
};
use ersatz_abi::pci::BAR_VRAM;
use ersatz_abi::regs;
use ersatz_device_model::bus::PciFunction;
use ersatz_device_testing::small_machine::{Machine, RAM, READ_ONLY, VRAM, reg};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};

/// Channel 0 works on a compute engine, channel 1 on a copy engine; ring, then control block, of each.
const RINGS: [u64; 2] = [0x1000, 0x3000];
/// Commands of a ring.
const SLOTS: u64 = 16;
/// The list of channel 1.
const LIST: u64 = 0x6000;
/// The fault buffer, one page.
const FAULTS: u64 = 0x7000;
/// See [`FAULTS`].
const FAULT_ORDER: u32 = 7;
/// Tables in RAM; in VRAM they begin at zero.
const TABLES: u64 = 0x8000;
/// Words of all the small pages.
const PAGES_WORDS: u16 = 16 * 512 - 1;
/// Tables in either memory.
const TABLE_COUNT: u64 = 8;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Value {
    Raw(u64),
    /// An entry that points to one of the tables.
    Table {
        number: u8,
        vram: bool,
    },
    /// An entry that maps something, which is mostly there.
    Page {
        place: u8,
        aperture: u8,
        bits: u8,
        peer: u8,
    },
}

impl Value {
    fn entry(self) -> u64 {
        match self {
            Self::Raw(value) => value,
            Self::Table { number, vram } => PageTableEntry::table(table(number, vram)).0,
            Self::Page { place, aperture, bits, peer } => {
                let place = match place {
                    // The tables themselves, the end of either memory, memory that can only be read, and what lies beyond.
                    0..16 => TABLES / TABLE_BYTES + u64::from(place),
                    16..32 => u64::from(place) - 16,
                    32..64 => RAM / TABLE_BYTES - 8 + u64::from(place - 32) % 16,
                    64..96 => VRAM / TABLE_BYTES - 8 + u64::from(place - 64) % 16,
                    96..112 => READ_ONLY / TABLE_BYTES,
                    _ => u64::from(place) << 4,
                };
                PageTableEntry(u64::from(bits))
                    .with_valid(true)
                    .with_leaf(true)
                    .with_raw_aperture(u64::from(aperture) % 4)
                    .with_frame(place)
                    .with_peer(u64::from(peer) % 2)
                    .0
            }
        }
    }
}

fn table(number: u8, vram: bool) -> Location {
    let offset = u64::from(number) % TABLE_COUNT * TABLE_BYTES;
    if vram { Location::vram(offset) } else { Location::system(TABLES + offset) }
}

/// A virtual address: by its indices into tables, most of which are zero, and an offset.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Address {
    Raw(u64),
    Near { indices: [bool; 5], page: u8, offset: u8 },
}

impl Address {
    fn get(self) -> u64 {
        match self {
            Self::Raw(address) => address & !7,
            Self::Near { indices, page, offset } => {
                let upper = (0..).zip(indices).map(|(level, set)| u64::from(set) << (12 + 9 * level)).sum::<u64>();
                // To the end of a page, and over it.
                upper + (u64::from(page % 40) << 12) + u64::from(offset) * 16
            }
        }
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Work {
    Read(Address, u16),
    Write(Address, u16),
    Set(Address, u16),
    Sum(Address, u16, Address),
    Saxpy(Address, Address, u8),
    AtomicAdd(Address, u16),
    CompareAndSwap(Address, Address),
    Chase(Address, u8, Address),
    RandomUpdate(Address, u8, u8),
    Prefetch(Address, u16),
    Copy(Address, Address, u16),
    Invalidate(Address, u32),
    InvalidateSpace(u8),
}

impl Work {
    fn operation(self) -> Operation {
        let bytes = |words: u16| u64::from(words) * 8 + 8;
        Operation::Kernel(match self {
            Self::Read(source, words) => Kernel::Read { source: source.get(), length: bytes(words) },
            Self::Write(at, words) => Kernel::Write { destination: at.get(), length: bytes(words), seed: 1 },
            Self::Set(at, words) => Kernel::Set { destination: at.get(), length: bytes(words), pattern: !0 },
            Self::Sum(source, words, result) => {
                Kernel::Sum { source: source.get(), length: bytes(words), result: result.get() }
            }
            Self::Saxpy(x, y, words) => {
                Kernel::Saxpy { x: x.get(), y: y.get(), length: bytes(words.into()), factor: 0x4000_0000 }
            }
            Self::AtomicAdd(target, words) => {
                Kernel::AtomicAdd { target: target.get(), length: bytes(words), addend: 1 }
            }
            Self::CompareAndSwap(target, result) => Kernel::CompareAndSwap {
                target: target.get(),
                expected: 0,
                replacement: PageTableEntry::table(table(0, true)).0,
                result: result.get(),
            },
            Self::Chase(start, steps, result) => {
                Kernel::Chase { start: start.get(), steps: u64::from(steps) + 1, result: result.get() }
            }
            Self::RandomUpdate(at, order, updates) => Kernel::RandomUpdate {
                table: at.get(),
                length: 8 << (order % 16),
                seed: u64::from(updates) + 1,
                updates: u64::from(updates) + 1,
            },
            Self::Prefetch(address, words) => Kernel::Prefetch { address: address.get(), length: bytes(words) },
            Self::Copy(source, destination, words) => {
                Kernel::Copy { source: source.get(), destination: destination.get(), length: bytes(words) }
            }
            Self::Invalidate(address, length) => {
                let length = u64::from(length) + 1;
                return Operation::Invalidate(Invalidation::Range { asid: 1, address: address.get(), length });
            }
            Self::InvalidateSpace(asid) => return Operation::Invalidate(Invalidation::AddressSpace(asid)),
        })
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Store {
        number: u8,
        vram: bool,
        index: u16,
        value: Value,
    },
    Work(Work),
    /// One more copy, by virtual addresses.
    Copy {
        source: Address,
        destination: Address,
        words: u16,
    },
    Invalidate {
        scope: u8,
        address: Address,
        length: u32,
    },
    Switch {
        control: u8,
    },
    Replay,
    Cancel(u8),
}

/// All zero is an enabled address space with tables that lead to pages: [`Guest::build`]. What is wrong comes on top of that.
#[derive(Arbitrary, Debug)]
struct Input {
    five_levels: bool,
    no_track: bool,
    not_replayable: bool,
    root: Option<Value>,
    steps: Vec<Step>,
}

struct Guest<'a> {
    machine: &'a Machine,
    put: [u32; 2],
    entries: u64,
}

impl Guest<'_> {
    fn store(&self, at: Location, value: u64) {
        if at.aperture == Aperture::Vram {
            self.machine.gpu.bar_write(BAR_VRAM, at.address, &value.to_le_bytes());
        } else {
            self.machine.memory.write_obj(value.to_le(), GuestAddress(at.address)).expect("RAM");
        }
    }

    /// Tables, in RAM and VRAM by turns, the first entry of each pointing to the next; in the last one pages of RAM and
    /// of the tables themselves, some of 64 KiB, and beside that one a page of 2 MiB: all of VRAM.
    fn build(&self, levels: u8) {
        for number in 0..levels - 1 {
            let next = PageTableEntry::table(table(number + 1, number % 2 == 0));
            self.store(table(number, number % 2 != 0), next.0);
        }
        let entry_at = |number: u8, index: u64| {
            let table = table(number, number % 2 != 0);
            Location { address: table.address + index * 8, ..table }
        };
        let page = |location, size| PageTableEntry::page(Page { location, size, write: true, atomic: true }).0;
        for index in 0..16 {
            let small = Location::system(RAM / 2 + index * TABLE_BYTES);
            self.store(entry_at(levels - 1, index), page(small, PageSize::Small));
            let big = if index < 8 { Location::vram(0) } else { Location::system(0) };
            self.store(entry_at(levels - 1, 16 + index), page(big, PageSize::Big));
        }
        self.store(entry_at(levels - 2, 1), page(Location::vram(0), PageSize::Huge));
    }

    fn enable(&self, channel: u32, engine: u32) {
        let ring = RINGS[channel as usize];
        for (register, value) in [(regs::RING_BASE, ring), (regs::CONTROL_BLOCK, ring + 0x1000)] {
            self.machine.write64(reg(channel, register), value);
        }
        for (register, value) in [
            (regs::RING_ORDER, SLOTS.ilog2()),
            (regs::VECTOR, 1 + channel),
            (regs::ENGINE, engine),
            (regs::ASID, 1),
            (regs::CHANNEL_CONTROL, 1),
        ] {
            self.machine.write32(reg(channel, register), value);
        }
    }

    /// Drops what finds no room in the ring.
    fn submit(&mut self, channel: usize, operation: Operation) {
        if u64::from(self.put[channel]) >= SLOTS {
            return;
        }
        let command = Command { operation, cause: Cause::Other, fence: None, interrupt: true, tag: 0 };
        let slot = RINGS[channel] + u64::from(self.put[channel]) * COMMAND_BYTES;
        for (number, word) in (0..).zip(command.encode()) {
            self.store(Location::system(slot + number * 8), word);
        }
        self.put[channel] += 1;
        let put = GuestAddress(RINGS[channel] + 0x1000 + CONTROL_BLOCK_PUT);
        self.machine.memory.write_obj(self.put[channel].to_le(), put).expect("RAM");
        self.machine.write32(regs::doorbell(channel as u32).expect("a channel"), 0);
    }

    fn copy(&mut self, source: Address, destination: Address, words: u16) {
        let [source, destination] = [source, destination].map(|address| Location::virtual_address(address.get()));
        let entry = ListEntry { source, destination, length: u32::from(words) * 8, tag: 0 };
        let address = LIST + self.entries % 64 * LIST_ENTRY_BYTES;
        self.entries += 1;
        for (number, word) in (0..).zip(entry.encode()) {
            self.store(Location::system(address + number * 8), word);
        }
        self.submit(1, Operation::Copy(List { address, count: 1 }));
    }

    fn step(&mut self, step: Step) {
        let machine = self.machine;
        match step {
            Step::Store { number, vram, index, value } => {
                let at = table(number, vram);
                let index = u64::from(index % 512);
                self.store(Location { address: at.address + index * 8, ..at }, value.entry());
            }
            Step::Work(work) => self.submit(0, work.operation()),
            Step::Copy { source, destination, words } => self.copy(source, destination, words),
            Step::Invalidate { scope, address, length } => {
                machine.write64(regs::INVALIDATE_ADDRESS.offset, address.get());
                machine.write64(regs::INVALIDATE_LENGTH.offset, length.into());
                let target = InvalidateTarget(0).with_raw_scope(scope.into()).with_asid((scope & 1).into());
                machine.write32(regs::INVALIDATE.offset, target.0 as u32);
            }
            Step::Switch { control } => self.switch(control.into()),
            Step::Replay => machine.write32(regs::FAULT_REPLAY.offset, 1),
            Step::Cancel(channel) => machine.write32(regs::FAULT_CANCEL.offset, u32::from(channel) % 3),
        }
    }

    fn switch(&self, control: u32) {
        let register = regs::address_space_register(1, regs::ADDRESS_SPACE_CONTROL).expect("an address space");
        self.machine.write32(register, control);
    }
}

fuzz_target!(|input: Input| {
    let machine = Machine::new();
    machine.switch_on();
    let mut guest = Guest { machine: &machine, put: [0; 2], entries: 0 };
    let configuration = regs::Configuration(machine.read32(regs::CONFIGURATION.offset));
    guest.build(if input.five_levels { 5 } else { 4 });
    let root = regs::address_space_register(1, regs::ADDRESS_SPACE_ROOT).expect("an address space");
    machine.write64(root, input.root.unwrap_or(Value::Table { number: 0, vram: false }).entry());
    let control = AddressSpaceControl(0)
        .with_enable(true)
        .with_five_levels(input.five_levels)
        .with_track(!input.no_track)
        .with_replayable(!input.not_replayable);
    guest.switch(control.0);
    let fault_ring = |register: regs::Register| regs::FAULT_RING_BASE + register.offset;
    machine.write64(fault_ring(regs::NOTIFICATION_BASE), FAULTS);
    machine.write32(fault_ring(regs::NOTIFICATION_ORDER), FAULT_ORDER);
    machine.write32(fault_ring(regs::NOTIFICATION_CONTROL), 1);
    guest.enable(0, configuration.copy_engines());
    guest.enable(1, 0);
    // Something is cached when the steps begin, and whatever they leave behind is gone through once more.
    let start = Address::Near { indices: [false; 5], page: 0, offset: 0 };
    guest.submit(0, Work::Read(start, PAGES_WORDS).operation());
    for step in input.steps.iter().take(64) {
        guest.step(*step);
    }
    guest.submit(0, Work::AtomicAdd(start, PAGES_WORDS).operation());
    guest.copy(start, Address::Near { indices: [false; 5], page: 16, offset: 0 }, 0x2000);
    let rests = |machine: &Machine, channel: u32, put: u32| {
        let stopped =
            [Some(ChannelState::Error), Some(ChannelState::Faulted)].contains(&machine.status(channel).state());
        stopped || machine.read32(reg(channel, regs::GET)) == put
    };
    let puts = guest.put;
    machine
        .within(Duration::from_millis(5), |machine| (0..).zip(puts).all(|(channel, put)| rests(machine, channel, put)));
    machine.check();
    // Whatever the tables say, invalidations are acknowledged.
    machine.write32(regs::INVALIDATE.offset, 0);
    let mut number = [0; 8];
    machine.gpu.bar_read(0, regs::INVALIDATE_REQUESTED.offset.into(), &mut number);
    let number = u64::from_le_bytes(number);
    machine.must("the acknowledgement", |machine| {
        let mut acknowledged = [0; 8];
        machine.gpu.bar_read(0, regs::INVALIDATE_ACKNOWLEDGED.offset.into(), &mut acknowledged);
        u64::from_le_bytes(acknowledged) >= number
    });
    for channel in [0, 1] {
        machine.write32(reg(channel, regs::CHANNEL_CONTROL), 2);
        machine.must("the reset", |machine| machine.read32(reg(channel, regs::CHANNEL_CONTROL)) == 0);
    }
    machine.check();
    machine.still_works();
});

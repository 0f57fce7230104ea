// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rings and lists of any content on two channels, on engines of either kind, over page tables of which some are valid:
//! each channel ends idle, in error, or waiting at a fault, or a reset ends it.
#![no_main]

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use ersatz_abi::channel::{CONTROL_BLOCK_PUT, ChannelState};
use ersatz_abi::command::{LIST_ENTRY_BYTES, Opcode};
use ersatz_abi::list::{Aperture, EntryShape, Location};
use ersatz_abi::mmu::{AddressSpaceControl, InvalidateTarget, PageTableEntry};
use ersatz_abi::regs;
use ersatz_device_testing::small_machine::{
    Binding, CHANNELS, COMPUTE, ENGINES, Machine, Neighbour, PEER, RAM, READ_ONLY, VRAM, block, doorbell, reg, ring,
    space_reg, tables,
};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};

/// The fault buffer, and behind it the access counters' ring, one page each.
const RECORDS: u64 = 0x1_0000;
/// Where lists lie.
const LISTS: u64 = 0x1_8000;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum TestAddress {
    Vram(u32),
    Ram(u32),
    ReadOnly(u8),
    /// The end of RAM or of VRAM.
    Edge(bool, u8),
    /// Rings and control blocks themselves.
    Shared(u16),
    /// The page tables themselves.
    Tables(u16),
    Peer(u32),
    /// By a number that may be no peer's.
    OtherPeer(u8),
    /// What [`tables::build`] maps, and a little beyond.
    Virtual(u32),
    Anywhere(u64),
}

impl TestAddress {
    fn location(self) -> Location {
        let words = |offset: u32, size: u64| (u64::from(offset) % size) & !7;
        match self {
            Self::Vram(at) => Location::vram(words(at, VRAM + 4096)),
            Self::Ram(at) => Location::system(words(at, RAM)),
            Self::ReadOnly(at) => Location::system(READ_ONLY + u64::from(at) * 8),
            Self::Edge(true, at) => Location::system(RAM - u64::from(at) * 8),
            Self::Edge(false, at) => Location::vram(VRAM - u64::from(at) * 8),
            Self::Shared(at) => Location::system(ring(0) + words(at.into(), 0x4000)),
            Self::Tables(at) => Location::system(tables::TABLES + words(at.into(), tables::LEVELS << 12)),
            Self::Peer(at) => Location::peer(PEER, words(at, VRAM + 4096)),
            Self::OtherPeer(number) => Location::peer(number % 10, 0),
            Self::Virtual(at) => Location::virtual_address(words(at, 7 << 20)),
            Self::Anywhere(address) => Location::virtual_address(address),
        }
    }

    /// An address for a kernel, which are virtual all: of memory itself what maps it.
    fn virtual_address(self) -> u64 {
        let location = self.location();
        match location.aperture {
            Aperture::Virtual => location.address,
            Aperture::Vram => (2 << 20) + location.address,
            Aperture::Peer => (4 << 20) + location.address,
            Aperture::System => location.address % (16 << 12),
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Words {
    /// Anything, or nothing.
    Raw(Rare<[u64; 8]>),
    /// Close to a command of a copy engine that is valid.
    Listed { opcode: u8, flags: u8, count: u16, fence: u8, list: u16, pattern: u64 },
    /// Close to an invalidation that is valid.
    Invalidate { flags: u8, fence: u8, scope: u8, asid: u8, address: TestAddress, length: u32 },
    /// Close to a kernel that is valid.
    Kernel {
        opcode: u8,
        flags: u8,
        fence: u8,
        first: TestAddress,
        value: u16,
        second: TestAddress,
        count: u16,
        result: TestAddress,
    },
    /// A kernel that takes long.
    Long { opcode: u8, first: TestAddress, count: u64 },
}

fn header(opcode: u64, flags: u8, fence: u8, slot: u8) -> (u64, u64) {
    let fence = if flags & 1 != 0 { u64::from(slot) * 200 + u64::from(fence) } else { 0 };
    (opcode | u64::from(flags & 3) << 8 | u64::from(flags >> 5) << 16, fence)
}

impl Words {
    /// The command in this slot; fences mostly rise from slot to slot.
    fn words(&self, slot: u8) -> [u64; 8] {
        const READ: u64 = Opcode::Read as u64;
        const KERNELS: u64 = Opcode::KernelCopy as u64 - READ + 1;
        match *self {
            Self::Raw(Rare(words)) => words.unwrap_or_default(),
            Self::Listed { opcode, flags, count, fence, list, pattern } => {
                let opcode = u64::from(opcode) % 4;
                let (header, fence) = header(opcode, flags, fence, slot);
                let pattern = if opcode == Opcode::Fill as u64 { pattern } else { 0 };
                let (count, list) = match opcode {
                    0 => (0, 0),
                    _ => (u64::from(count % 300), LISTS + u64::from(list % 600) * LIST_ENTRY_BYTES),
                };
                [header | count << 32, fence, list, pattern, 0x7a6, 0, 0, 0]
            }
            Self::Invalidate { flags, fence, scope, asid, address, length } => {
                let (header, fence) = header(Opcode::Invalidate as u64, flags, fence, slot);
                let scope = u64::from(scope % 4);
                let (address, length) = if scope == 2 { (address.virtual_address(), length.into()) } else { (0, 0) };
                let target = InvalidateTarget(0).with_raw_scope(scope).with_asid(u64::from(asid % 2));
                [header, fence, address, target.0, 0x7a6, 0, length, 0]
            }
            Self::Kernel { opcode, flags, fence, first, value, second, count, result } => {
                let opcode = READ + u64::from(opcode) % KERNELS;
                let (header, fence) = header(opcode, flags, fence, slot);
                let count = u64::from(count);
                let [first, second, result] = [first, second, result].map(TestAddress::virtual_address);
                let value = u64::from(value);
                // Read, write, set, sum, saxpy, atomic-add, compare-and-swap, chase, random-update, prefetch,
                // kernel-copy.
                let [value, second, count, result] = match opcode - READ {
                    1 | 2 | 5 => [value, 0, count * 8, 0],
                    3 => [0, 0, count * 8, result],
                    4 => [value, second, count * 8, 0],
                    6 => [value, second, 0, result],
                    7 => [0, 0, count, result],
                    8 => [value, 8 << (second % 20), count, 0],
                    10 => [0, second, count * 8, 0],
                    _ => [0, 0, count * 8, 0],
                };
                [header, fence, first, value, 0x7a6, second, count, result]
            }
            Self::Long { opcode, first, count } => {
                let opcode = READ + u64::from(opcode) % KERNELS;
                [opcode, 0, first.virtual_address(), 0, 0x7a6, 0, (count % (1 << 41)) & !7, 0]
            }
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Entry {
    Raw([u64; 4]),
    Near { source: TestAddress, destination: TestAddress, words: u16, tag: u64 },
}

impl Entry {
    fn words(&self) -> [u64; 4] {
        match *self {
            Self::Raw(words) => words,
            Self::Near { source, destination, words, tag } => {
                let (source, destination) = (source.location(), destination.location());
                let shape = EntryShape(0)
                    .with_length(u64::from(words) * 8)
                    .with_raw_source(source.aperture as u64)
                    .with_raw_destination(destination.aperture as u64)
                    .with_source_peer(source.peer.into())
                    .with_destination_peer(destination.peer.into());
                [source.address, destination.address, shape.0, tag]
            }
        }
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum TableEntry {
    Raw(u64),
    Page(TestAddress, u8),
    Table(TestAddress),
}

impl TableEntry {
    fn value(self) -> u64 {
        let put = |entry: PageTableEntry, place: TestAddress| {
            let location = place.location();
            entry
                .with_valid(true)
                .with_raw_aperture(location.aperture as u64)
                .with_frame(location.address >> 12)
                .with_peer(location.peer.into())
        };
        match self {
            Self::Raw(value) => value,
            // Any of its flags, the reserved one among them.
            Self::Page(place, flags) => put(PageTableEntry(flags.into()).with_leaf(true), place).0,
            Self::Table(place) => put(PageTableEntry(0), place).0,
        }
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Ring(bool),
    Put(bool, u8),
    Disable(bool),
    Enable(bool),
    Engine(bool, u8),
    Reset(bool),
    Replay,
    Cancel(u8),
    Store {
        table: u8,
        index: u16,
        entry: TableEntry,
    },
    Invalidate {
        scope: u8,
        asid: u8,
    },
    SwitchSpace {
        asid: bool,
        control: u8,
    },
    /// The driver has read all records of a ring.
    Acknowledge(bool),
    SwitchRecords {
        counters: bool,
        enable: bool,
    },
    ForgetRegion(TestAddress),
    PeerSleeps(bool),
    /// Engines have a moment.
    Pause,
}

/// What is wrong so thoroughly that little comes behind it: in one of eight inputs.
#[derive(Clone, Copy, Debug)]
struct Rare<T>(Option<T>);

impl<'a, T: Arbitrary<'a>> Arbitrary<'a> for Rare<T> {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let present = u8::arbitrary(input)? % 8 == 7;
        Ok(Self(present.then(|| T::arbitrary(input)).transpose()?))
    }
}

#[derive(Arbitrary, Debug)]
struct Channel {
    commands: [Words; 3],
    more: Vec<Words>,
    put: Rare<u32>,
    engine: Rare<u8>,
    priority: Rare<u8>,
    second_space: bool,
}

/// All zero is two address spaces with the tables of [`tables::build`], tracked and replayable, and both notification rings on.
#[derive(Arbitrary, Debug)]
struct Input {
    channels: [Channel; CHANNELS as usize],
    entries: Vec<Entry>,
    stores: Vec<(u8, u16, TableEntry)>,
    roots: [Rare<TableEntry>; 2],
    controls: [u8; 2],
    record_order: u8,
    region_order: u8,
    threshold: u8,
    steps: Vec<Step>,
}

fn set_up(machine: &Machine, input: &Input) {
    let root = tables::build(machine);
    for (table, index, entry) in input.stores.iter().take(64) {
        machine.store(tables::entry((*table).into(), (*index).into()), entry.value());
    }
    for (asid, (entry, flags)) in (0..).zip(input.roots.iter().zip(input.controls)) {
        machine.write64(space_reg(asid, regs::ADDRESS_SPACE_ROOT), entry.0.map_or(root, TableEntry::value));
        let rarely = |bits| flags & bits == bits;
        let control = AddressSpaceControl(0)
            .with_enable(true)
            .with_five_levels(rarely(0b111))
            .with_track(!rarely(0b1000))
            .with_replayable(!rarely(0b11_0000));
        machine.write32(space_reg(asid, regs::ADDRESS_SPACE_CONTROL), control.0);
    }
    for (number, base) in (0..).zip([regs::FAULT_RING_BASE, regs::ACCESS_RING_BASE]) {
        machine.write64(base + regs::NOTIFICATION_BASE.offset, RECORDS + number * 0x1000);
        machine.write32(base + regs::NOTIFICATION_ORDER.offset, 4 + u32::from(input.record_order % 4));
        machine.write32(base + regs::NOTIFICATION_VECTOR.offset, 5);
        machine.write32(base + regs::NOTIFICATION_CONTROL.offset, 1);
    }
    let region_order = 16 + u32::from(input.region_order) % 15;
    let control = 3 | region_order << 8 | (1 + u32::from(input.threshold)) << 16;
    machine.write32(regs::ACCESS_COUNTER_CONTROL.offset, control);
    for (slot, entry) in (0..1000).zip(&input.entries) {
        machine.store_words(LISTS + slot * LIST_ENTRY_BYTES, &entry.words());
    }
    for (number, channel) in (0..).zip(&input.channels) {
        let commands = (0..16).zip(channel.commands.iter().chain(&channel.more));
        let commands: Vec<_> = commands.map(|(slot, command)| command.words(slot)).collect();
        machine.submit(number, &commands, channel.put.0.unwrap_or(commands.len() as u32));
        let usual = if number == 0 { COMPUTE } else { 0 };
        let engine = channel.engine.0.map_or(usual, |engine| u32::from(engine) % (ENGINES + 1));
        let priority = channel.priority.0.map_or(1, |priority| u32::from(priority % 4));
        machine.enable(number, Binding { engine, asid: channel.second_space.into(), priority });
        machine.write32(doorbell(number), 0);
    }
}

fn carry_out(machine: &Machine, step: Step) {
    let control = |channel: bool, value| machine.write32(reg(channel.into(), regs::CHANNEL_CONTROL), value);
    let records = |counters| if counters { regs::ACCESS_RING_BASE } else { regs::FAULT_RING_BASE };
    match step {
        Step::Ring(channel) => machine.write32(doorbell(channel.into()), 0),
        Step::Put(channel, put) => {
            let address = GuestAddress(block(channel.into()) + CONTROL_BLOCK_PUT);
            machine.memory.write_obj(u32::from(put).to_le(), address).expect("RAM");
        }
        Step::Disable(channel) => control(channel, 0),
        Step::Enable(channel) => control(channel, 1),
        Step::Engine(channel, engine) => machine.write32(reg(channel.into(), regs::ENGINE), u32::from(engine % 4)),
        Step::Reset(channel) => control(channel, 2),
        Step::Replay => machine.write32(regs::FAULT_REPLAY.offset, 1),
        Step::Cancel(channel) => machine.write32(regs::FAULT_CANCEL.offset, u32::from(channel % 3)),
        Step::Store { table, index, entry } => machine.store(tables::entry(table.into(), index.into()), entry.value()),
        Step::Invalidate { scope, asid } => {
            let target = InvalidateTarget(0).with_raw_scope(u64::from(scope % 4)).with_asid(u64::from(asid % 2));
            machine.write32(regs::INVALIDATE.offset, target.0 as u32);
        }
        Step::SwitchSpace { asid, control } => {
            machine.write32(space_reg(asid.into(), regs::ADDRESS_SPACE_CONTROL), u32::from(control % 16));
        }
        Step::Acknowledge(counters) => {
            let put = machine.read32(records(counters) + regs::NOTIFICATION_PUT.offset);
            machine.write32(records(counters) + regs::NOTIFICATION_GET.offset, put);
        }
        Step::SwitchRecords { counters, enable } => {
            machine.write32(records(counters) + regs::NOTIFICATION_CONTROL.offset, enable.into());
        }
        Step::ForgetRegion(place) => {
            machine.write64(regs::ACCESS_COUNTER_CLEAR.offset, place.virtual_address() & !0xffff);
        }
        Step::PeerSleeps(asleep) => Neighbour::get().sleep(asleep),
        Step::Pause => std::thread::sleep(Duration::from_micros(100)),
    }
}

fuzz_target!(|input: Input| {
    let machine = Machine::new();
    machine.switch_on();
    machine.unmask_interrupts();
    set_up(&machine, &input);
    for step in input.steps.iter().take(32) {
        carry_out(&machine, *step);
    }
    // An engine may be at it for long, legally; then the reset has something to interrupt.
    machine.within(Duration::from_millis(5), |machine| {
        (0..CHANNELS).all(|channel| machine.status(channel).state() != Some(ChannelState::Busy))
    });
    machine.check();
    for channel in 0..CHANNELS {
        machine.reset_channel(channel);
        assert_eq!(machine.status(channel).state(), Some(ChannelState::Disabled));
        assert_eq!(machine.read64(regs::FAULTED_CHANNELS.offset) >> channel & 1, 0);
    }
    machine.check();
    for base in [regs::FAULT_RING_BASE, regs::ACCESS_RING_BASE] {
        // Nobody accesses anything any more: no record is under way.
        machine.write32(base + regs::NOTIFICATION_CONTROL.offset, 0);
        assert_eq!(machine.read32(base + regs::NOTIFICATION_CONTROL.offset), 0);
    }
    machine.still_works();
});

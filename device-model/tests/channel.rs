// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A channel at work: commands in, data moved, fences and interrupts out.

use ersatz_abi::channel::ChannelState;
use ersatz_abi::command::{Aperture, Cause, Command, List, ListEntry, Location, MAX_ENTRY_BYTES, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::mmu::{AddressSpaceControl, Page, PageSize};
use ersatz_abi::regs;
use ersatz_device_model::bus::PciFunction;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{DATA, Host, LISTS, ORDER, command, entry, reg, system, vram};

fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed).wrapping_add((at >> 8) as u8)).collect()
}

fn ram(host: &Host, address: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    host.memory.read_slice(&mut data, GuestAddress(address)).unwrap();
    data
}

fn in_vram(host: &Host, address: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    host.gpu.bar_read(2, address, &mut data);
    data
}

fn enabled() -> Host {
    let host = Host::new();
    host.enable(0, 3);
    host
}

#[test]
fn pages_go_to_vram_and_come_back() {
    let mut host = enabled();
    let data = pattern(7, 3 * 4096);
    host.memory.write_slice(&data, GuestAddress(DATA)).unwrap();
    let to: Vec<_> = (0..3).map(|page| entry(system(DATA + page * 4096), vram((2 - page) * 4096), 4096)).collect();
    let list = host.list(LISTS, &to);
    host.execute(Operation::Copy(list), 1);
    let back = DATA + 0x10_0000;
    let from: Vec<_> = (0..3).map(|page| entry(vram(page * 4096), system(back + page * 4096), 4096)).collect();
    let list = host.list(LISTS, &from);
    host.execute(Operation::Copy(list), 2);
    for page in 0..3 {
        assert_eq!(ram(&host, back + (2 - page as u64) * 4096, 4096), data[page * 4096..][..4096]);
    }
    assert_eq!(host.counter(Counter::BytesToVram), 3 * 4096);
    assert_eq!(host.counter(Counter::BytesToSystem), 3 * 4096);
    assert_eq!(host.counter(Counter::CopyEntries), 6);
    assert_eq!(host.interrupts.seen(), [3, 3]);
    host.wait_until("idle", |host| host.status(0).state() == Some(ChannelState::Idle));
    assert_eq!(host.status(0).error(), Some(ErrorCode::None));
}

#[test]
fn a_huge_page_moves_in_one_entry() {
    let mut host = enabled();
    let size = MAX_ENTRY_BYTES as usize;
    let data = pattern(1, size);
    host.memory.write_slice(&data, GuestAddress(DATA)).unwrap();
    let (there, back) = (vram(32 << 20), system(DATA + (4 << 20)));
    let steps = [(system(DATA), there), (there, vram(0)), (vram(0), back), (back, system(DATA + (8 << 20)))];
    for (fence, (from, to)) in (1..).zip(steps) {
        let list = host.list(LISTS, &[entry(from, to, MAX_ENTRY_BYTES)]);
        host.execute(Operation::Copy(list), fence);
    }
    assert!(ram(&host, DATA + (8 << 20), size) == data);
    let moved = [Counter::BytesToVram, Counter::BytesWithinVram, Counter::BytesToSystem, Counter::BytesWithinSystem];
    assert_eq!(moved.map(|counter| host.counter(counter)), [u64::from(MAX_ENTRY_BYTES); 4]);
}

#[test]
fn fills_repeat_the_pattern() {
    let mut host = enabled();
    let value = 0x0123_4567_89ab_cdef_u64;
    let list = host.list(LISTS, &[entry(vram(0), vram(8), 200_000), entry(vram(0), system(DATA + 8), 24)]);
    host.execute(Operation::Fill(list, value), 1);
    assert!(in_vram(&host, 8, 200_000).chunks(8).all(|word| word == value.to_le_bytes()));
    assert_eq!(in_vram(&host, 0, 8), [0; 8]);
    assert_eq!(in_vram(&host, 200_008, 8), [0; 8]);
    let bytes = value.to_le_bytes();
    assert_eq!(ram(&host, DATA, 40), [[0; 8], bytes, bytes, bytes, [0; 8]].concat());
    assert_eq!(host.counter(Counter::BytesFilled), 200_024);
}

/// The published check value of CRC-32C: that of the digits "123456789".
#[test]
fn digests_are_crc32c() {
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    let mut host = enabled();
    let data = pattern(3, 300_000);
    host.memory.write_slice(&data, GuestAddress(DATA)).unwrap();
    host.gpu.bar_write(2, 4096, &data[..8000]);
    let result = DATA + (8 << 20);
    let entries = [entry(system(DATA), system(result), 300_000), entry(vram(4096), vram(0), 8000)];
    let list = host.list(LISTS, &entries);
    host.execute(Operation::Digest(list), 1);
    assert_eq!(ram(&host, result, 8), u64::from(crc32c::crc32c(&data)).to_le_bytes());
    assert_eq!(in_vram(&host, 0, 8), u64::from(crc32c::crc32c(&data[..8000])).to_le_bytes());
    assert_eq!(host.counter(Counter::BytesDigested), 308_000);
}

#[test]
fn the_ring_wraps_many_times() {
    let mut host = enabled();
    let mut fence = 0;
    for batch in [1_u64, 64, 13, 64, 51, 64, 64] {
        for _ in 0..batch {
            fence += 1;
            host.push_words(Command { fence: Some(fence), ..command(Operation::Nop) }.encode());
        }
        host.ring_doorbell(0);
        host.wait_until("the batch", |host| host.get() == host.put[0]);
        assert_eq!(host.fence(), fence);
    }
    assert!(host.put[0] > 4 << ORDER);
    assert_eq!(host.counter(Counter::Commands), fence);
    assert_eq!(host.counter(Counter::Fences), fence);
    assert_eq!(host.read32(reg(0, regs::GET)), host.put[0]);
}

#[test]
fn commands_put_in_before_the_channel_is_enabled_are_found() {
    let mut host = Host::new();
    host.enable(0, 3);
    host.wait_until("idle", |host| host.status(0).state() == Some(ChannelState::Idle));
    host.write32(reg(0, regs::CHANNEL_CONTROL), 0);
    host.wait_until("disabled", |host| host.status(0).state() == Some(ChannelState::Disabled));
    host.push_words(Command { fence: Some(1), ..command(Operation::Nop) }.encode());
    host.ring_doorbell(0);
    host.write32(reg(0, regs::CHANNEL_CONTROL), 1);
    host.wait_until("the command", |host| host.fence() == 1);
}

#[test]
fn an_interrupt_comes_when_asked_for_and_after_the_fence() {
    let mut host = enabled();
    for fence in 1..=100 {
        let interrupt = fence % 2 == 0;
        host.submit(Command { fence: Some(fence), interrupt, ..command(Operation::Nop) });
        if interrupt {
            host.interrupts.wait_for(fence as usize / 2);
            assert!(host.fence() >= fence && u64::from(host.get()) >= fence);
        }
    }
    // An interrupt is counted a moment after it shows.
    host.wait_until("its count", |host| host.counter(Counter::Interrupts) == 50);
    assert_eq!(host.interrupts.seen(), [3; 50]);
}

#[test]
fn the_cause_decides_what_is_counted() {
    let mut host = enabled();
    for (round, (cause, counter)) in (1..).zip([
        (Cause::MigrateToDevice, Some(Counter::BytesMigratedToDevice)),
        (Cause::MigrateToSystem, Some(Counter::BytesMigratedToSystem)),
        (Cause::CpuFault, Some(Counter::BytesCpuFault)),
        (Cause::Evict, Some(Counter::BytesEvicted)),
        (Cause::Unbind, Some(Counter::BytesUnbind)),
        (Cause::DeviceFault, Some(Counter::BytesDeviceFault)),
        (Cause::AccessCounter, Some(Counter::BytesHotMemory)),
        (Cause::Other, None),
        (Cause::Inspect, None),
    ]) {
        let list = host.list(LISTS, &[entry(system(DATA), vram(0), 4096)]);
        host.submit(Command { fence: Some(round), cause, ..command(Operation::Copy(list)) });
        host.wait_until("the copy", |host| host.fence() == round);
        if let Some(counter) = counter {
            assert_eq!(host.counter(counter), 4096, "{}", cause.name());
        }
        assert_eq!(host.counter(Counter::BytesToVram), 4096 * round);
    }
}

/// The smallest machine that could have done the same: three arrays of bytes.
struct Model {
    vram: Vec<u8>,
    system: Vec<u8>,
    /// What is mapped from [`VIRTUAL`] on, wherever that really is.
    mapped: Vec<u8>,
}

const VIRTUAL: u64 = 0x1234_5678_8000;
const ASID: u8 = 1;

const WINDOW: u64 = 1 << 16;

impl Model {
    fn at(&mut self, location: Location) -> &mut [u8] {
        match location.aperture {
            Aperture::Vram => &mut self.vram[location.address as usize..],
            Aperture::System => &mut self.system[(location.address - DATA) as usize..],
            Aperture::Virtual => &mut self.mapped[(location.address - VIRTUAL) as usize..],
            Aperture::Peer => unreachable!("the strategy makes none"),
        }
    }

    fn run(&mut self, operation: u8, pattern: u64, entry: &ListEntry) {
        let length = entry.length as usize;
        match operation {
            0 => {
                let data = self.at(entry.source)[..length].to_vec();
                self.at(entry.destination)[..length].copy_from_slice(&data);
            }
            1 => {
                let words = self.at(entry.destination)[..length].chunks_mut(8);
                words.for_each(|word| word.copy_from_slice(&pattern.to_le_bytes()));
            }
            _ => {
                let digest = u64::from(crc32c::crc32c(&self.at(entry.source)[..length]));
                self.at(entry.destination)[..8].copy_from_slice(&digest.to_le_bytes());
            }
        }
    }
}

fn location() -> impl Strategy<Value = Location> {
    (0..3_u8, 0..WINDOW / 16).prop_map(|(aperture, slot)| match aperture {
        0 => vram(slot * 8),
        1 => system(DATA + slot * 8),
        _ => Location::virtual_address(VIRTUAL + slot * 8),
    })
}

/// The pages of the virtual window, with their addresses: it begins in the middle of a 64 KiB page, and goes on in 4
/// KiB pages, by turns in VRAM and in the system. None of this memory is in the other two windows.
fn pages() -> impl Iterator<Item = (u64, Page)> {
    let big = page(Location::system(DATA + (2 << 20)), PageSize::Big);
    let small = (0..8).map(|number| {
        let away = (3 << 20) + number * 5 % 8 * 4096;
        let home = if number % 2 == 0 { Location::vram(away) } else { Location::system(DATA + away) };
        (VIRTUAL + 0x8000 + number * 4096, page(home, PageSize::Small))
    });
    std::iter::once((VIRTUAL - 0x8000, big)).chain(small)
}

/// What is in the virtual window.
fn mapped(host: &Host) -> Vec<u8> {
    let content = pages().flat_map(|(_, Page { location: Location { aperture, address, .. }, size, .. })| {
        let length = size.bytes() as usize;
        if aperture == Aperture::Vram { in_vram(host, address, length) } else { ram(host, address, length) }
    });
    content.skip(0x8000).collect()
}

fn work() -> impl Strategy<Value = (u8, u64, Vec<ListEntry>)> {
    let entry = (location(), location(), 1..2000_u32)
        .prop_map(|(source, destination, words)| entry(source, destination, words * 8))
        .prop_filter("no overlap", |entry| {
            entry.source.aperture != entry.destination.aperture
                || entry.source.address.abs_diff(entry.destination.address) >= entry.length.into()
        });
    (0..3_u8, any::<u64>(), proptest::collection::vec(entry, 1..150))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn lists_do_what_three_arrays_would(commands in proptest::collection::vec(work(), 1..6)) {
        let mut host = Host::new();
        let mut space = Space::new(&host, ASID, AddressSpaceControl(0), vram(32 << 20));
        pages().for_each(|(address, page)| space.map(&host, address, page));
        host.write32(reg(0, regs::ASID), ASID.into());
        host.enable(0, 1);
        let zeros = || vec![0; WINDOW as usize];
        let mut model = Model { vram: zeros(), system: pattern(9, WINDOW as usize), mapped: zeros() };
        host.memory.write_slice(&model.system, GuestAddress(DATA)).unwrap();
        for (fence, (operation, pattern, entries)) in (1..).zip(&commands) {
            let list: List = host.list(LISTS, entries);
            entries.iter().for_each(|entry| model.run(*operation, *pattern, entry));
            host.execute(
                match operation {
                    0 => Operation::Copy(list),
                    1 => Operation::Fill(list, *pattern),
                    _ => Operation::Digest(list),
                },
                fence,
            );
        }
        prop_assert!(ram(&host, DATA, WINDOW as usize) == model.system);
        prop_assert!(in_vram(&host, 0, WINDOW as usize) == model.vram);
        prop_assert!(mapped(&host) == model.mapped);
    }
}

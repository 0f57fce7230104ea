// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that comes and goes under a channel: its ring, its control block, its lists, and what they name.
//!
//! A copy waits at a fault of its first entry, which gives the machine time to change the maps; then it is replayed.

use ersatz_abi::channel::Priority;
use ersatz_abi::command::{Command, List, ListEntry, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::PageSize;
use ersatz_abi::regs;
use ersatz_device_model::dma::MapAccess;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use ersatz_device_testing::faults::{BASE, COPY, bind, is_faulted, replayable, with_buffer};
use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{BLOCK, Host, RAM, command, entry, reg};

/// Where memory is that comes and goes: one page.
const ELSEWHERE: u64 = 0x1_0000_0000;

/// A page of memory by itself, with this list at its start.
fn page_with(entries: &[ListEntry]) -> GuestMemoryMmap {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(ELSEWHERE), 4096)]).unwrap();
    for (number, entry) in (0..).zip(entries) {
        let words: Vec<u8> = entry.encode().iter().flat_map(|word| word.to_le_bytes()).collect();
        memory.write_slice(&words, GuestAddress(ELSEWHERE + number * 32)).unwrap();
    }
    memory
}

fn map(host: &Host, memory: &GuestMemoryMmap) {
    let region = memory.iter().next().unwrap();
    host.space.map_region(region.start_addr().0, region.get_mmap(), MapAccess::ReadWrite).unwrap();
}

/// Copies from [`BASE`], where nothing is mapped, and then to other places in VRAM, from `sources`.
fn entries(sources: [Location; 2]) -> [ListEntry; 3] {
    let to = |slot: u64| Location::vram(0x10_0000 + slot * 4096);
    [entry(Location::virtual_address(BASE), to(0), 8), entry(sources[0], to(1), 8), entry(sources[1], to(2), 8)]
}

/// Channel 0 waits at the first entry of the list at [`ELSEWHERE`].
fn waiting(entries: &[ListEntry]) -> (Host, Space) {
    let (mut host, space) = with_buffer(replayable());
    map(&host, &page_with(entries));
    bind(&host, 0, COPY, Priority::Low);
    let list = List { address: ELSEWHERE, count: entries.len() as u32 };
    host.submit(Command { fence: Some(1), ..command(Operation::Copy(list)) });
    host.wait_until("the fault", |host| is_faulted(host, 0));
    (host, space)
}

fn replay(host: &Host, space: &mut Space) {
    space.map(host, BASE, page(Location::vram(0), PageSize::Small));
    host.write32(regs::FAULT_REPLAY.offset, 1);
}

fn expect_error(host: &Host, code: ErrorCode, entry: u64, address: u64) {
    host.wait_until(code.name(), |host| host.status(0).error() == Some(code));
    assert_eq!(host.read64(reg(0, regs::ERROR_POSITION)), entry << 32);
    assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), address);
    assert_eq!(host.counter(Counter::CopyEntries), entry, "those before it were executed");
}

/// The entry that was begun goes on as it was; those behind it are not there any more.
#[test]
fn a_list_is_taken_away() {
    let (host, mut space) = waiting(&entries([Location::vram(8), Location::vram(16)]));
    assert_eq!(host.space.unmap(ELSEWHERE, 4096).unwrap(), 1);
    replay(&host, &mut space);
    expect_error(&host, ErrorCode::DmaRead, 1, ELSEWHERE + 32);
}

/// A map that is taken away and made again is the same to the device.
#[test]
fn a_list_is_taken_away_and_given_back() {
    let sources = [Location::vram(8), Location::vram(16)];
    let (host, mut space) = waiting(&entries(sources));
    host.store(sources[1], 77);
    assert_eq!(host.space.unmap(ELSEWHERE, 4096).unwrap(), 1);
    map(&host, &page_with(&entries(sources)));
    replay(&host, &mut space);
    host.wait_until("its end", |host| host.fence() == 1);
    assert_eq!(host.load(Location::vram(0x10_2000)), 77);
}

#[test]
fn what_a_list_names_is_taken_away() {
    let beside = GuestMemoryMmap::from_ranges(&[(GuestAddress(ELSEWHERE + 4096), 4096)]).unwrap();
    let source = Location::system(ELSEWHERE + 4096);
    let (host, mut space) = waiting(&entries([Location::vram(8), source]));
    map(&host, &beside);
    assert_eq!(host.space.unmap(source.address, 4096).unwrap(), 1);
    replay(&host, &mut space);
    expect_error(&host, ErrorCode::DmaRead, 2, source.address);
}

/// All of memory is, with ring, control block and page tables.
#[test]
fn a_control_block_is_taken_away_and_given_back() {
    let (mut host, mut space) = waiting(&entries([Location::vram(8), Location::vram(16)]));
    replay(&host, &mut space);
    host.wait_until("its end", |host| host.fence() == 1);
    assert_eq!(host.space.unmap(0, RAM).unwrap(), 1);
    host.ring_doorbell(0);
    host.wait_until("the error", |host| host.status(0).error() == Some(ErrorCode::DmaRead));
    assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), BLOCK, "PUT cannot be read");
    assert_eq!(host.read64(reg(0, regs::ERROR_POSITION)), 1, "the command that was done is behind it");
    host.wait_until("the interrupt", |host| host.interrupts.seen().contains(&10));
    let region = host.memory.iter().next().unwrap();
    host.space.map_region(0, region.get_mmap(), MapAccess::ReadWrite).unwrap();
    host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
    host.wait_until("the reset", |host| host.read32(reg(0, regs::CHANNEL_CONTROL)) == 0);
    host.put[0] = 0;
    bind(&host, 0, COPY, Priority::Low);
    host.submit(Command { fence: Some(1), ..command(Operation::Nop) });
    host.wait_until("new work", |host| host.fence() == 1);
}

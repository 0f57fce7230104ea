// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every error a channel can stop with, how a driver brings it about, and what the error registers then say.

use ersatz_abi::channel::{CONTROL_BLOCK_FENCE, CONTROL_BLOCK_GET, CONTROL_BLOCK_PUT, ChannelState};
use ersatz_abi::command::{Cause, Command, LIST_ENTRY_BYTES, List, MAX_ENTRY_BYTES, MAX_LIST_ENTRIES, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::regs::{self, Status};
use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::dma::MapAccess;
use vm_memory::{Bytes, GuestAddress};

use ersatz_device_testing::{BLOCK, COMMAND, DATA, Host, LISTS, RAM, RING, command, entry, reg, system, vram};

const VRAM: u64 = 64 << 20;

/// Waits for the error, and checks all that a driver can see of it.
fn expect(host: &Host, code: ErrorCode, position: u32, list_entry: u32, address: u64) {
    host.wait_until(code.name(), |host| host.status(0).state() == Some(ChannelState::Error));
    assert_eq!(host.status(0).error(), Some(code));
    let place = host.read64(reg(0, regs::ERROR_POSITION));
    assert_eq!((place as u32, (place >> 32) as u32), (position, list_entry), "{code:?}: position, entry");
    assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), address, "{code:?}: address");
    assert!(Status(host.read32(regs::STATUS.offset)).channel_error());
    assert_eq!(host.interrupts.wait_for(1), [9], "the channel's vector");
    // An error may be counted after the state shows it, but not after its interrupt.
    assert_eq!(host.counter(Counter::ChannelErrors), 1);
    assert_eq!(host.read32(reg(0, regs::CHANNEL_CONTROL)), 0);
}

fn enabled() -> Host {
    let host = Host::new();
    host.enable(0, 9);
    host
}

fn copy(list: List) -> Command {
    command(Operation::Copy(list))
}

/// The error of a list of copies whose second entry is `words`.
fn second_entry(words: [u64; 4], code: ErrorCode, address: u64) {
    let mut host = enabled();
    host.list(LISTS, &[entry(system(DATA), vram(0), 4096)]);
    for (number, word) in (0..).zip(words) {
        host.memory.write_obj(word, GuestAddress(LISTS + LIST_ENTRY_BYTES + number * 8)).unwrap();
    }
    host.submit(copy(List { address: LISTS, count: 2 }));
    expect(&host, code, 0, 1, address);
    assert_eq!(host.counter(Counter::CopyEntries), 1, "what came before it was done");
}

#[test]
fn bad_setup() {
    type Change = (u32, u64, u64);
    let changes: [Change; 9] = [
        (regs::RING_BASE.offset, RING + 64, RING + 64),
        (regs::RING_BASE.offset, 4096_u64.wrapping_neg(), 4096_u64.wrapping_neg()),
        (regs::CONTROL_BLOCK.offset, BLOCK + 8, BLOCK + 8),
        (regs::CONTROL_BLOCK.offset, 4096_u64.wrapping_neg(), 4096_u64.wrapping_neg()),
        (regs::RING_ORDER.offset, 3, 0),
        (regs::RING_ORDER.offset, 17, 0),
        (regs::RING_ORDER.offset, 0xffff_ffff, 0),
        (regs::VECTOR.offset, 32, 0),
        (regs::VECTOR.offset, 0x1_0000, 0),
    ];
    for (register, value, address) in changes {
        let host = Host::new();
        host.write64(reg(0, regs::RING_BASE), RING);
        host.write64(reg(0, regs::CONTROL_BLOCK), BLOCK);
        host.write32(reg(0, regs::RING_ORDER), 7); // 8 KiB
        host.write32(reg(0, regs::VECTOR), 9);
        match register {
            offset if offset < regs::RING_ORDER.offset => host.write64(regs::CHANNEL_BASE + offset, value),
            offset => host.write32(regs::CHANNEL_BASE + offset, value as u32),
        }
        host.write32(reg(0, regs::CHANNEL_CONTROL), 1);
        assert_eq!(host.status(0).error(), Some(ErrorCode::BadSetup), "{register:#x} = {value:#x}");
        assert_eq!(host.status(0).state(), Some(ChannelState::Error));
        assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), address);
        assert_eq!(host.read64(reg(0, regs::ERROR_POSITION)) >> 32, u64::from(register), "the register that is wrong");
        // A vector that does not exist cannot be told; the device's own is.
        let vector = if register == regs::VECTOR.offset { 0 } else { 9 };
        assert_eq!(host.interrupts.seen(), [vector]);
    }
}

#[test]
fn bad_put() {
    for put in [65_u32, 1 << 31, u32::MAX] {
        let host = enabled();
        host.memory.write_obj(put, GuestAddress(BLOCK + CONTROL_BLOCK_PUT)).unwrap();
        host.ring_doorbell(0);
        expect(&host, ErrorCode::BadPut, 0, 0, BLOCK + CONTROL_BLOCK_PUT);
    }
}

#[test]
fn bad_command() {
    for header in [5_u64, 0xff, (Cause::ALL.len() as u64) << 16] {
        let mut host = enabled();
        host.push_words([0; 8]);
        host.push_words([header, 0, 0, 0, 0, 0, 0, 0]);
        host.ring_doorbell(0);
        expect(&host, ErrorCode::BadCommand, 1, 0, RING + 64);
        assert_eq!(host.get(), 1);
    }
}

#[test]
fn reserved_bits() {
    let fill = command(Operation::Fill(List { address: LISTS, count: 1 }, 0)).encode();
    let nop = command(Operation::Nop).encode();
    let with = |mut words: [u64; 8], at: usize, bits: u64| {
        words[at] |= bits;
        words
    };
    for words in [
        with(nop, 0, 1 << 10),
        with(nop, 0, 1 << 24),
        with(nop, 0, 1 << 32),
        with(nop, 1, 1),
        with(nop, 2, 32),
        with(nop, 3, 1),
        with(fill, 5, 1),
        with(fill, 6, 1 << 63),
        with(fill, 7, 1),
    ] {
        let mut host = enabled();
        host.push_words(words);
        host.ring_doorbell(0);
        expect(&host, ErrorCode::ReservedBits, 0, 0, RING);
    }
    second_entry([DATA, 0, 4096 | 1 << 32 | 1 << 48, 0], ErrorCode::ReservedBits, LISTS + LIST_ENTRY_BYTES);
}

#[test]
fn bad_count() {
    for count in [0, MAX_LIST_ENTRIES + 1, u32::MAX] {
        let mut host = enabled();
        host.submit(copy(List { address: LISTS, count }));
        expect(&host, ErrorCode::BadCount, 0, 0, RING);
    }
}

#[test]
fn bad_list_address() {
    for address in [LISTS + 8, LISTS + 1, 64_u64.wrapping_neg()] {
        let mut host = enabled();
        host.submit(copy(List { address, count: 2 }));
        expect(&host, ErrorCode::BadListAddress, 0, 0, address);
    }
}

#[test]
fn bad_aperture() {
    for bits in [4 << 32, 4 << 36, 0xf << 32, 1 << 40, 2 << 32 | 8 << 40] {
        second_entry([DATA, 0, 4096 | bits, 0], ErrorCode::BadAperture, LISTS + LIST_ENTRY_BYTES);
    }
}

#[test]
fn bad_alignment() {
    for (source, destination, length) in [(1, 0, 8), (0, 4, 8), (0, 0, 12)] {
        let words = [DATA + source, destination, length | 1 << 32, 0];
        second_entry(words, ErrorCode::BadAlignment, LISTS + LIST_ENTRY_BYTES);
    }
}

#[test]
fn bad_length() {
    let end = 8_u64.wrapping_neg();
    for (source, destination, length) in
        [(0, 0, 0), (0, 0, u64::from(MAX_ENTRY_BYTES) + 8), (0, 0, 0xffff_fff8), (end, 0, 16), (0, end, 16)]
    {
        second_entry([source, destination, length | 1 << 32, 0], ErrorCode::BadLength, LISTS + LIST_ENTRY_BYTES);
    }
}

#[test]
fn vram_range() {
    let cases = [
        (entry(system(DATA), vram(VRAM - 8), 16), VRAM - 8),
        (entry(system(DATA), vram(1 << 62), 8), 1 << 62),
        (entry(vram(VRAM), system(DATA), 8), VRAM),
        (entry(vram(0), vram(VRAM), 8), VRAM),
    ];
    for (bad, address) in cases {
        second_entry(bad.encode(), ErrorCode::VramRange, address);
    }
    let mut host = enabled();
    let list = host.list(LISTS, &[entry(system(DATA), vram(VRAM), 8)]);
    host.submit(command(Operation::Digest(list)));
    expect(&host, ErrorCode::VramRange, 0, 0, VRAM);
    let mut host = enabled();
    let list = host.list(LISTS, &[entry(vram(u64::MAX - 15), vram(VRAM), 8)]);
    host.submit(command(Operation::Fill(list, 1)));
    expect(&host, ErrorCode::VramRange, 0, 0, VRAM);
}

#[test]
fn overlap() {
    for (from, to) in [(0, 0), (0, 4088), (4088, 0)] {
        second_entry(entry(vram(from), vram(to), 4096).encode(), ErrorCode::Overlap, to);
        let (from, to) = (DATA + from, DATA + to);
        second_entry(entry(system(from), system(to), 4096).encode(), ErrorCode::Overlap, to);
    }
}

#[test]
fn dma_read() {
    second_entry(entry(system(RAM - 4096), vram(0), 8192).encode(), ErrorCode::DmaRead, RAM);
    second_entry(entry(system(RAM - 8), system(DATA), 16).encode(), ErrorCode::DmaRead, RAM);
    let mut host = enabled();
    let list = host.list(LISTS, &[entry(system(RAM), vram(0), 8)]);
    host.submit(command(Operation::Digest(list)));
    expect(&host, ErrorCode::DmaRead, 0, 0, RAM);
}

#[test]
fn a_list_that_ends_in_nothing_is_done_as_far_as_it_can_be_read() {
    let mut host = enabled();
    let start = RAM - 3 * LIST_ENTRY_BYTES;
    host.list(start, &[entry(system(DATA), vram(0), 4096); 3]);
    host.submit(copy(List { address: start, count: 5 }));
    expect(&host, ErrorCode::DmaRead, 0, 3, RAM);
    assert_eq!(host.counter(Counter::CopyEntries), 3);
}

#[test]
fn a_ring_that_ends_in_nothing_is_done_as_far_as_it_can_be_read() {
    let host = Host::new();
    let ring = RAM - 4096;
    host.write64(reg(0, regs::RING_BASE), ring);
    host.write64(reg(0, regs::CONTROL_BLOCK), BLOCK);
    host.write32(reg(0, regs::RING_ORDER), 7);
    host.write32(reg(0, regs::VECTOR), 9);
    host.memory.write_obj(70_u32, GuestAddress(BLOCK + CONTROL_BLOCK_PUT)).unwrap();
    host.write32(reg(0, regs::CHANNEL_CONTROL), 1);
    expect(&host, ErrorCode::DmaRead, 64, 0, RAM);
    assert_eq!((host.get(), host.counter(Counter::Commands)), (64, 64));
}

#[test]
fn dma_write() {
    second_entry(entry(vram(0), system(RAM - 4096), 8192).encode(), ErrorCode::DmaWrite, RAM);
    for read_only in [false, true] {
        let mut host = enabled();
        let hole = RAM + (1 << 20);
        if read_only {
            host.map(hole, 4096, MapAccess::ReadOnly);
        }
        let list = host.list(LISTS, &[entry(vram(0), system(hole), 8)]);
        host.submit(command(Operation::Digest(list)));
        expect(&host, ErrorCode::DmaWrite, 0, 0, hole);
    }
}

#[test]
fn a_control_block_that_cannot_be_written() {
    for fence in [None, Some(1)] {
        let host = Host::new();
        let block = RAM + (1 << 20);
        // All is there before the channel is enabled, which makes the engine look: a PUT of one, and the command.
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_at(&file, &1_u32.to_le_bytes(), CONTROL_BLOCK_PUT).unwrap();
        file.set_len(4096).unwrap();
        host.space.map_file(block, 4096, file, 0, MapAccess::ReadOnly).unwrap();
        for (number, word) in (0..).zip((Command { fence, ..command(Operation::Nop) }).encode()) {
            host.memory.write_obj(word, GuestAddress(RING + number * 8)).unwrap();
        }
        host.write64(reg(0, regs::RING_BASE), RING);
        host.write64(reg(0, regs::CONTROL_BLOCK), block);
        host.write32(reg(0, regs::RING_ORDER), 4);
        host.write32(reg(0, regs::VECTOR), 9);
        host.write32(reg(0, regs::CHANNEL_CONTROL), 1);
        host.ring_doorbell(0);
        expect(&host, ErrorCode::DmaWrite, 0, 0, block + CONTROL_BLOCK_GET);
        assert_eq!((host.counter(Counter::Commands), host.counter(Counter::Fences)), (0, 0), "nothing was done");
    }
}

#[test]
fn fence_order() {
    for (first, second) in [(5, 5), (5, 4), (u64::MAX, 1)] {
        let mut host = enabled();
        host.push_words(Command { fence: Some(first), ..command(Operation::Nop) }.encode());
        host.submit(Command { fence: Some(second), ..command(Operation::Nop) });
        expect(&host, ErrorCode::FenceOrder, 1, 0, BLOCK + CONTROL_BLOCK_FENCE);
        assert_eq!(host.fence(), first);
    }
    let mut host = enabled();
    host.submit(Command { fence: Some(0), ..command(Operation::Nop) });
    expect(&host, ErrorCode::FenceOrder, 0, 0, BLOCK + CONTROL_BLOCK_FENCE);
}

/// Disabling a channel changes nothing in what it has signalled; only a reset does.
#[test]
fn fences_rise_across_disabling() {
    let mut host = enabled();
    host.execute(Operation::Nop, 5);
    host.write32(reg(0, regs::CHANNEL_CONTROL), 0);
    host.wait_until("disabled", |host| host.status(0).state() == Some(ChannelState::Disabled));
    host.write32(reg(0, regs::CHANNEL_CONTROL), 1);
    host.submit(Command { fence: Some(5), ..command(Operation::Nop) });
    host.wait_until("the error", |host| host.status(0).error() == Some(ErrorCode::FenceOrder));
    assert_eq!(host.read64(reg(0, regs::ERROR_POSITION)), 1);
}

#[test]
fn not_master() {
    let mut host = enabled();
    host.wait_until("idle", |host| host.status(0).state() == Some(ChannelState::Idle));
    host.gpu.config_write(COMMAND, &0b010_u16.to_le_bytes());
    host.submit(command(Operation::Nop));
    host.wait_until("error", |host| host.status(0).state() == Some(ChannelState::Error));
    assert!(host.interrupts.seen().is_empty(), "an interrupt is a request, too");
    host.gpu
        .config_write(COMMAND, &0b110_u16.to_le_bytes())
        .iter()
        .for_each(|effect| assert_eq!(*effect, ersatz_device_model::bus::Effect::MsixSend { vector: 9 }));
    assert_eq!(host.status(0).error(), Some(ErrorCode::NotMaster));
    assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), BLOCK + CONTROL_BLOCK_PUT);
}

#[test]
fn only_a_reset_leads_out() {
    let mut host = enabled();
    host.submit(copy(List { address: LISTS, count: 0 }));
    expect(&host, ErrorCode::BadCount, 0, 0, RING);
    for control in [0, 1, 0, 1] {
        host.write32(reg(0, regs::CHANNEL_CONTROL), control);
        assert_eq!(host.status(0).state(), Some(ChannelState::Error));
    }
    host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
    host.wait_until("reset", |host| host.read32(reg(0, regs::CHANNEL_CONTROL)) == 0);
    assert_eq!(host.status(0).state(), Some(ChannelState::Disabled));
    assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), 0);
    assert!(!Status(host.read32(regs::STATUS.offset)).channel_error());
    host.put[0] = 0;
    host.enable(0, 9);
    host.execute(Operation::Nop, 1);
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Invalidations that have to wait for an engine: what is acknowledged when, and what resets make of them.
//!
//! The compute engine is held in the middle of a read by virtual address, on behalf of channel 0; channel 1 is a copy engine's.

use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{AddressSpaceControl, InvalidateScope, InvalidateTarget, Invalidation, PageSize};
use ersatz_abi::regs;
use ersatz_device_model::bus::PciFunction;

use ersatz_device_testing::faults::{ASID, BASE, COMPUTE, COPY, bind};
use ersatz_device_testing::held::Holding;
use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{DATA, Host, command, reg};

const FLR_BYTE: u16 = 0x69;

/// The engine is at [`BASE`], and has an old translation of the page behind it, too.
fn held() -> (Host, Holding, Space) {
    let (mut host, holding) = Host::held_at(DATA);
    let mut space = Space::new(&host, ASID, AddressSpaceControl(0), Location::vram(32 << 20));
    space.map(&host, BASE, page(Location::system(DATA), PageSize::Small));
    space.map(&host, BASE + 4096, page(Location::vram(0), PageSize::Small));
    bind(&host, 0, COMPUTE, Priority::Low);
    bind(&host, 1, COPY, Priority::Low);
    let read = |source| command(Operation::Kernel(Kernel::Read { source, length: 8 }));
    host.submit(Command { fence: Some(1), ..read(BASE + 4096) });
    host.submit(Command { fence: Some(2), ..read(BASE) });
    holding.wait_until_held();
    (host, holding, space)
}

fn request_all(host: &Host) -> u64 {
    host.write32(regs::INVALIDATE.offset, InvalidateTarget(0).with_raw_scope(InvalidateScope::All as u64).0 as u32);
    host.read64(regs::INVALIDATE_REQUESTED.offset)
}

fn acknowledged(host: &Host) -> u64 {
    host.read64(regs::INVALIDATE_ACKNOWLEDGED.offset)
}

/// Channel 1 waits for an invalidation that it has asked for. Returns the last number there is.
fn submit_invalidation(host: &mut Host, fence: u64) -> u64 {
    let operation = Operation::Invalidate(Invalidation::AddressSpace(ASID));
    let mut last = request_all(host);
    host.submit_to(1, Command { fence: Some(fence), ..command(operation) });
    host.wait_until("the command to take a number", |host| {
        let before = std::mem::replace(&mut last, request_all(host));
        last == before + 2
    });
    last
}

#[test]
fn none_is_acknowledged_while_an_engine_is_at_an_old_place() {
    let (mut host, holding, mut space) = held();
    space.map(&host, BASE + 4096, page(Location::vram(4096), PageSize::Small));
    let last = submit_invalidation(&mut host, 1);
    assert_eq!((acknowledged(&host), host.fence_of(1)), (0, 0));
    holding.release();
    host.wait_until("the acknowledgement", |host| acknowledged(host) == last);
    host.wait_until("the command's fence", |host| host.fence_of(1) == 1);
    assert_eq!(host.counter(Counter::Invalidations), last);
    let set = Kernel::Set { destination: BASE + 4096, length: 8, pattern: 6 };
    host.submit(Command { fence: Some(3), ..command(Operation::Kernel(set)) });
    host.wait_until("the write", |host| host.fence() == 3);
    assert_eq!([0, 4096].map(|at| host.load(Location::vram(at))), [0, 6], "the new place");
}

#[test]
fn more_than_can_be_kept_apart_are_all_acknowledged() {
    let (host, holding, _space) = held();
    let last = (0..1000).map(|_| request_all(&host)).last();
    assert_eq!((last, acknowledged(&host)), (Some(1000), 0));
    holding.release();
    host.wait_until("the acknowledgement", |host| acknowledged(host) == 1000);
}

/// The reset of the channel that requested it: its command is dropped at once, and the invalidation is carried out all the same.
#[test]
fn the_reset_of_a_channel_that_waits_for_one_waits_for_nobody() {
    let (mut host, holding, _space) = held();
    let last = submit_invalidation(&mut host, 1);
    host.wait_until("the engine to let go", |host| {
        host.write32(reg(1, regs::CHANNEL_CONTROL), 2);
        host.read32(reg(1, regs::CHANNEL_CONTROL)) == 0
    });
    assert_eq!((host.status(1).state(), acknowledged(&host)), (Some(ChannelState::Disabled), 0));
    host.put[1] = 0;
    bind(&host, 1, COPY, Priority::Low);
    host.submit_to(1, Command { fence: Some(9), ..command(Operation::Nop) });
    host.wait_until("new work", |host| host.fence_of(1) == 9);
    holding.release();
    host.wait_until("the acknowledgement", |host| acknowledged(host) == last);
    assert_eq!(host.fence_of(1), 9, "nobody signals for the command that was dropped");
}

#[test]
fn a_channel_that_waits_for_one_is_disabled_behind_it() {
    let (mut host, holding, _space) = held();
    submit_invalidation(&mut host, 1);
    host.push_words_to(1, Command { fence: Some(2), ..command(Operation::Nop) }.encode());
    host.write32(reg(1, regs::CHANNEL_CONTROL), 0);
    assert_eq!(host.status(1).state(), Some(ChannelState::Busy));
    holding.release();
    host.wait_until("disabled", |host| host.status(1).state() == Some(ChannelState::Disabled));
    assert_eq!((host.fence_of(1), host.read32(reg(1, regs::GET))), (1, 1), "its command, and no other one");
}

#[test]
fn a_reset_of_the_device_leaves_nothing_to_wait_for() {
    let (mut host, holding, _space) = held();
    submit_invalidation(&mut host, 1);
    host.write32(regs::CONTROL.offset, 1);
    let before = host.counter(Counter::BadAccesses);
    host.write32(regs::INVALIDATE.offset, 0);
    assert_eq!(host.counter(Counter::BadAccesses), before + 1, "not while a reset is under way");
    holding.release();
    host.wait_until("the reset", |host| host.read32(regs::CONTROL.offset) == 0);
    assert_eq!((acknowledged(&host), host.read64(regs::INVALIDATE_REQUESTED.offset)), (0, 0));
    assert_eq!(request_all(&host), 1, "numbers begin again");
    host.wait_until("the acknowledgement", |host| acknowledged(host) == 1);
    assert_eq!(host.fence_of(1), 0);
}

/// An address space that is disabled while an engine is in it: what is cached remains in use until it is invalidated.
#[test]
fn a_disabled_address_space_lives_on_in_the_tlb() {
    let (mut host, holding, _space) = held();
    host.write32(regs::address_space_register(ASID.into(), regs::ADDRESS_SPACE_CONTROL).unwrap(), 0);
    holding.release();
    let set = |at, pattern| command(Operation::Kernel(Kernel::Set { destination: at, length: 8, pattern }));
    host.submit(Command { fence: Some(3), ..set(BASE + 4096, 7) });
    host.wait_until("the write", |host| host.fence() == 3);
    assert_eq!(host.load(Location::vram(0)), 7);
    host.invalidate(Invalidation::AddressSpace(ASID));
    host.submit(set(BASE + 4096, 8));
    host.wait_until("the error", |host| host.status(0).state() == Some(ChannelState::Error));
    assert_eq!(host.load(Location::vram(0)), 7);
}

#[test]
fn resets_empty_the_tlbs() {
    for how in ["device", "function", "bus"] {
        let (mut host, holding, _space) = held();
        holding.release();
        host.wait_until("its end", |host| host.fence() == 2);
        match how {
            "device" => host.write32(regs::CONTROL.offset, 1),
            "function" => drop(host.gpu.config_write(FLR_BYTE, &[0x80])),
            _ => drop(host.gpu.reset()),
        }
        host.start();
        host.wait_until("the reset", |host| host.read32(regs::CONTROL.offset) == 0);
        let mut space = Space::new(&host, ASID, AddressSpaceControl(0), Location::vram(48 << 20));
        space.map(&host, BASE + 4096, page(Location::vram(4096), PageSize::Small));
        host.put[0] = 0;
        bind(&host, 0, COMPUTE, Priority::Low);
        let set = Kernel::Set { destination: BASE + 4096, length: 8, pattern: 6 };
        host.submit(Command { fence: Some(1), ..command(Operation::Kernel(set)) });
        host.wait_until("the write", |host| host.fence() == 1);
        assert_eq!([0, 4096].map(|at| host.load(Location::vram(at))), [0, 6], "{how}");
    }
}

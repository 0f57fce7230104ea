// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Faults as a driver lives with them: records, replays, cancels, several channels, prefetches; and translations that went stale.

use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::{AccessKind, FaultKind, FaultRecord};
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{AddressSpaceControl, Invalidation, Page, PageSize, PageTableEntry};
use ersatz_abi::regs::{self, ChannelStatus};
use ersatz_device_model::bus::PciFunction;

use ersatz_device_testing::faults::{
    ASID, BASE, COMPUTE, COPY, FAULT_VECTOR, bind, is_faulted, kernel, records, replayable, ring, set, with_buffer,
};
use ersatz_device_testing::tables::page;
use ersatz_device_testing::{DATA, Host, LISTS, command, entry, reg};

#[test]
fn a_fault_is_recorded_served_and_replayed() {
    let (mut host, mut space) = with_buffer(replayable());
    bind(&host, 4, COMPUTE, Priority::Low);
    host.submit_to(4, set(BASE + 0x10, 8, 77));
    assert_eq!(host.interrupts.wait_for(1), [FAULT_VECTOR]);
    host.wait_until("the fault", |host| is_faulted(host, 4));
    let found = records(&host);
    let FaultRecord { timestamp, .. } = found[0];
    let expected = FaultRecord {
        address: BASE + 0x10,
        asid: ASID,
        channel: 4,
        engine: COMPUTE as u8,
        access: AccessKind::Write,
        kind: FaultKind::NotPresent,
        level: 3,
        timestamp,
        number: 1,
    };
    assert_eq!(found, [expected]);
    assert!(timestamp > 0 && timestamp <= host.read64(regs::TIMESTAMP.offset));
    assert_eq!(host.read64(regs::FAULTED_CHANNELS.offset), 1 << 4);
    assert_eq!(host.fence_of(4), 0);
    space.map(&host, BASE, page(Location::vram(0), PageSize::Small));
    host.write32(regs::FAULT_REPLAY.offset, 1);
    assert_eq!(host.interrupts.wait_for(2), [FAULT_VECTOR, 14]);
    assert_eq!((host.fence_of(4), host.load(Location::vram(0x10))), (1, 77));
    assert_eq!(host.read64(regs::FAULTED_CHANNELS.offset), 0);
    assert_eq!((host.counter(Counter::Faults), host.counter(Counter::Replays)), (1, 1));
}

#[test]
fn a_replay_with_nothing_mended_faults_again() {
    let (mut host, _space) = with_buffer(replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    host.submit(set(BASE, 8, 1));
    for number in 1..=3 {
        host.wait_until("a record", |host| host.counter(Counter::Faults) == number);
        host.wait_until("the fault", |host| is_faulted(host, 0));
        host.write32(regs::FAULT_REPLAY.offset, 1);
    }
    host.wait_until("a record", |host| host.counter(Counter::Faults) == 4);
    let found = records(&host);
    assert_eq!(found.iter().map(|record| record.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(found.iter().all(|record| record.address == BASE), "the same access, each time");
}

#[test]
fn accesses_in_flight_are_reported_too_and_bring_duplicates() {
    let (mut host, mut space) = with_buffer(replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    bind(&host, 1, COMPUTE, Priority::Low);
    space.map(&host, BASE + 0x2000, page(Location::vram(0), PageSize::Small));
    host.submit(set(BASE + 8, 0x4000 - 8, 1));
    host.wait_until("the fault", |host| is_faulted(host, 0));
    host.submit_to(1, set(BASE, 0x1000, 1));
    host.wait_until("the fault", |host| is_faulted(host, 1));
    let found: Vec<_> = records(&host).iter().map(|record| (record.channel, record.address - BASE)).collect();
    assert_eq!(found, [(0, 8), (0, 0x1000), (0, 0x3000), (1, 0)], "not the page that is there");
}

#[test]
fn a_channel_that_waits_stops_no_other_one() {
    let (mut host, mut space) = with_buffer(replayable());
    space.map(&host, BASE, page(Location::vram(0), PageSize::Small));
    for channel in 0..4 {
        bind(&host, channel, if channel == 3 { COPY } else { COMPUTE }, Priority::Normal);
    }
    host.submit_to(0, set(BASE + 0x10_0000, 8, 1));
    let list = host.list(LISTS, &[entry(Location::virtual_address(BASE + 0x20_0000), Location::vram(0), 4096)]);
    host.submit_to(3, Command { fence: Some(1), ..command(Operation::Copy(list)) });
    host.wait_until("two faults", |host| is_faulted(host, 0) && is_faulted(host, 3));
    for fence in 1..100 {
        host.submit_to(1, Command { fence: Some(fence), ..set(BASE, 4096, fence) });
        host.wait_until("the other channel", |host| host.fence_of(1) == fence);
    }
    assert_eq!(host.read64(regs::FAULTED_CHANNELS.offset), 0b1001);
    // A disabled channel ends what it began.
    host.write32(reg(0, regs::CHANNEL_CONTROL), 0);
    space.map(&host, BASE + 0x10_0000, page(Location::vram(4096), PageSize::Small));
    space.map(&host, BASE + 0x20_0000, page(Location::vram(8192), PageSize::Small));
    host.write32(regs::FAULT_REPLAY.offset, 1);
    host.wait_until("both", |host| host.fence_of(0) == 1 && host.fence_of(3) == 1);
    host.wait_until("disabled", |host| host.status(0).state() == Some(ChannelState::Disabled));
}

#[test]
fn a_cancelled_fault_is_an_error_of_its_channel_alone() {
    let (mut host, _space) = with_buffer(replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    bind(&host, 1, COMPUTE, Priority::Low);
    host.submit(set(BASE, 8, 1));
    host.submit_to(1, set(BASE + 64, 8, 1));
    host.wait_until("two faults", |host| is_faulted(host, 0) && is_faulted(host, 1));
    host.write32(regs::FAULT_CANCEL.offset, 1);
    assert_eq!(host.status(1).error(), Some(ErrorCode::FaultCancelled));
    assert_eq!(host.read64(reg(1, regs::ERROR_ADDRESS)), BASE + 64);
    assert!(host.interrupts.seen().contains(&11));
    assert!(is_faulted(&host, 0));
    host.write32(regs::FAULT_CANCEL.offset, 1);
    host.write32(regs::FAULT_CANCEL.offset, 2);
    assert_eq!(host.counter(Counter::FaultsCancelled), 1, "those that do not wait stay as they are");
    assert_eq!(host.counter(Counter::BadAccesses), 0);
    host.write32(regs::FAULT_CANCEL.offset, 16);
    host.write32(regs::FAULT_REPLAY.offset, 2);
    assert_eq!(host.counter(Counter::BadAccesses), 2, "no such channel, no such request");
}

/// The records of two rounds may lie side by side in the buffer; where a channel waits must not be guessed from them.
#[test]
fn a_faulted_channel_tells_where_it_waits() {
    let (mut host, mut space) = with_buffer(replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    let address = |host: &Host| host.read64(reg(0, regs::ERROR_ADDRESS));
    assert_eq!(address(&host), 0);
    host.submit(set(BASE + 0x10, 3 * 4096, 1));
    for page in 0..4 {
        host.wait_until("the fault", |host| is_faulted(host, 0));
        assert_eq!(address(&host), if page == 0 { BASE + 0x10 } else { BASE + page * 4096 });
        space.map(&host, BASE + page * 4096, self::page(Location::vram(page * 4096), PageSize::Small));
        host.write32(regs::FAULT_REPLAY.offset, 1);
        host.wait_until("the next wait, or the end", |host| {
            host.counter(Counter::Faults) > 0 && (host.fence() == 1 || is_faulted(host, 0))
        });
    }
    host.wait_until("the fence", |host| host.fence() == 1);
    assert_eq!(address(&host), 0, "it waits no more");
}

#[test]
fn a_reset_ends_the_waiting() {
    let (mut host, _space) = with_buffer(replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    host.submit(set(BASE, 8, 1));
    host.wait_until("the fault", |host| is_faulted(host, 0));
    host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
    host.wait_until("the reset", |host| host.status(0).state() == Some(ChannelState::Disabled));
    assert_eq!(host.read64(regs::FAULTED_CHANNELS.offset), 0);
    host.put[0] = 0;
    bind(&host, 0, COMPUTE, Priority::Low);
    host.submit(Command { fence: Some(2), ..command(Operation::Nop) });
    host.wait_until("new work", |host| host.fence() == 2);
    host.submit(Command { fence: Some(3), ..set(BASE, 8, 1) });
    host.wait_until("the fault", |host| is_faulted(host, 0));
    host.gpu.reset();
    host.start();
    assert_eq!(host.status(0).state(), Some(ChannelState::Disabled));
    assert_eq!(host.read32(ring(regs::NOTIFICATION_CONTROL)), 0);
}

#[test]
fn faults_that_are_not_replayable_are_errors() {
    let (mut host, mut space) = with_buffer(AddressSpaceControl(0));
    space.map(&host, BASE, Page { write: false, ..page(Location::vram(0), PageSize::Small) });
    for (channel, address) in [(0, BASE), (1, BASE + 4096), (2, 1 << 48)] {
        bind(&host, channel, COMPUTE, Priority::Low);
        host.submit_to(channel, set(address, 8, 1));
        host.wait_until("the error", |host| host.status(channel).error() == Some(ErrorCode::MmuFault));
        assert_eq!(host.read64(reg(channel, regs::ERROR_ADDRESS)), address);
    }
    assert_eq!((host.counter(Counter::Faults), host.counter(Counter::FaultsDropped)), (0, 0));
}

#[test]
fn each_kind_of_fault() {
    let (mut host, mut space) = with_buffer(replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    let plain = page(Location::vram(0), PageSize::Small);
    space.map(&host, BASE, Page { write: false, atomic: false, ..plain });
    space.map(&host, BASE + 0x1000, Page { atomic: false, ..plain });
    space.map(&host, BASE + 0x2000, page(Location::peer(5, 0), PageSize::Small));
    let broken = space.entry(BASE + 0x3000, PageSize::Small);
    host.store(broken, PageTableEntry::page(plain).0 | 1 << 60);
    let read = |at| kernel(Kernel::Read { source: at, length: 8 });
    let add = |at| kernel(Kernel::AtomicAdd { target: at, length: 8, addend: 1 });
    let cases = [
        (read(BASE + 0x4000), AccessKind::Read, FaultKind::NotPresent, 0),
        (set(BASE, 8, 1), AccessKind::Write, FaultKind::WriteProtect, 0),
        (add(BASE), AccessKind::Atomic, FaultKind::WriteProtect, 0),
        (add(BASE + 0x1000), AccessKind::Atomic, FaultKind::AtomicDenied, 0),
        (read(BASE + 0x2000), AccessKind::Read, FaultKind::BadAperture, 0),
        (read(BASE + 0x3000), AccessKind::Read, FaultKind::BadTable, 0),
        (read(1 << 47), AccessKind::Read, FaultKind::NotPresent, 3),
        (read(1 << 48), AccessKind::Read, FaultKind::BadAddress, 3),
    ];
    for (command, access, kind, level) in cases {
        host.submit(command);
        host.wait_until("the fault", |host| is_faulted(host, 0));
        let found = records(&host);
        assert_eq!((found.len(), found[0].access, found[0].kind, found[0].level), (1, access, kind, level));
        assert_eq!(host.status(0).fault(), Some((access, kind)));
        assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), found[0].address);
        host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
        host.wait_until("the reset", |host| host.status(0).state() == Some(ChannelState::Disabled));
        assert_eq!(host.status(0), ChannelStatus::new(ChannelState::Disabled, ErrorCode::None));
        host.put[0] = 0;
        bind(&host, 0, COMPUTE, Priority::Low);
    }
}

#[test]
fn a_full_buffer_loses_records_and_no_fault() {
    let (mut host, mut space) = with_buffer(replayable());
    for channel in 0..8 {
        bind(&host, channel, COMPUTE, Priority::Low);
        host.submit_to(channel, set(BASE + u64::from(channel) * 0x4000, 0x4000, 9));
    }
    host.wait_until("all to wait", |host| host.read64(regs::FAULTED_CHANNELS.offset) == 0xff);
    assert_eq!((host.counter(Counter::Faults), host.counter(Counter::FaultsDropped)), (16, 16));
    assert_eq!(host.read32(ring(regs::NOTIFICATION_STATUS)), 1, "overflow");
    host.write32(ring(regs::NOTIFICATION_STATUS), 1);
    let mut served = 0;
    while host.read64(regs::FAULTED_CHANNELS.offset) != 0 || (0..8).any(|channel| host.fence_of(channel) == 0) {
        for record in records(&host) {
            let number = (record.address - BASE) / 4096;
            space.map(&host, record.address & !0xfff, page(Location::vram(number * 4096), PageSize::Small));
            served += 1;
        }
        host.write32(regs::FAULT_REPLAY.offset, 1);
    }
    assert!(served >= 32);
    assert!((0..32).all(|number| host.load(Location::vram(number * 4096)) == 9));
}

/// What real hardware does with a driver that forgets: this device does it, too.
#[test]
fn stale_translations_last_until_they_are_invalidated() {
    let (mut host, mut space) = with_buffer(replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    let small = |at| page(Location::vram(at), PageSize::Small);
    space.map(&host, BASE, small(0));
    let mut fence = 0;
    let mut write = |host: &mut Host, pattern| {
        fence += 1;
        host.submit(Command { fence: Some(fence), ..set(BASE, 8, pattern) });
        host.wait_until("its end", |host| host.fence() == fence || is_faulted(host, 0));
    };
    write(&mut host, 1);
    space.map(&host, BASE, small(4096));
    write(&mut host, 2);
    assert_eq!((host.load(Location::vram(0)), host.load(Location::vram(4096))), (2, 0), "the old page");
    host.invalidate(Invalidation::Range { asid: ASID, address: BASE + 0x1000, length: 4096 });
    host.invalidate(Invalidation::AddressSpace(ASID + 1));
    write(&mut host, 3);
    assert_eq!(host.load(Location::vram(0)), 3, "other ranges, other address spaces: the old page still");
    host.invalidate(Invalidation::Range { asid: ASID, address: BASE + 0xfff, length: 1 });
    write(&mut host, 4);
    assert_eq!((host.load(Location::vram(0)), host.load(Location::vram(4096))), (3, 4), "the new page");
    // Narrowed, and not invalidated: it can still be written. Widened, and not invalidated: it cannot.
    space.map(&host, BASE, Page { write: false, ..small(4096) });
    write(&mut host, 5);
    assert_eq!(host.load(Location::vram(4096)), 5);
    host.invalidate(Invalidation::All);
    write(&mut host, 6);
    assert!(is_faulted(&host, 0));
    assert_eq!(records(&host)[0].kind, FaultKind::WriteProtect);
}

#[test]
fn a_command_invalidates_and_its_fence_is_the_acknowledgement() {
    let (mut host, mut space) = with_buffer(replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    bind(&host, 1, COPY, Priority::Low);
    for round in 0..200_u64 {
        let at = round % 16 * 4096;
        space.map(&host, BASE, page(Location::vram(at), PageSize::Small));
        let invalidation = match round % 3 {
            0 => Invalidation::All,
            1 => Invalidation::AddressSpace(ASID),
            _ => Invalidation::Range { asid: ASID, address: BASE, length: 1 },
        };
        host.submit_to(1, Command { fence: Some(round + 1), ..command(Operation::Invalidate(invalidation)) });
        host.wait_until("the invalidation", |host| host.fence_of(1) == round + 1);
        host.submit(Command { fence: Some(round + 1), ..set(BASE, 8, round) });
        host.wait_until("the write", |host| host.fence() == round + 1);
        assert_eq!(host.load(Location::vram(at)), round);
    }
    assert_eq!(host.counter(Counter::Invalidations), 200);
}

#[test]
fn entries_tell_what_was_accessed() {
    let (mut host, mut space) = with_buffer(replayable().with_track(true));
    bind(&host, 0, COMPUTE, Priority::Low);
    let big = page(Location::system(DATA), PageSize::Big);
    space.map(&host, BASE, big);
    let at = |host: &Host, address| {
        let entry = PageTableEntry(host.load(space.entry(address, PageSize::Big)));
        (entry.accessed(), entry.dirty())
    };
    host.submit(kernel(Kernel::Read { source: BASE + 0x3000, length: 8 }));
    host.wait_until("the read", |host| host.fence() == 1);
    assert_eq!(at(&host, BASE + 0x3000), (true, false));
    host.submit(Command { fence: Some(2), ..set(BASE + 0x5000, 8, 1) });
    host.wait_until("the write", |host| host.fence() == 2);
    assert_eq!(at(&host, BASE + 0x5000), (true, true), "in the entry it was walked by");
    assert_eq!(at(&host, BASE + 0x3000), (true, false), "and not in its fifteen brothers");
}

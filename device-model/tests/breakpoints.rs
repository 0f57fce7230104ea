// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Breakpoints: what is held at each step, what runs on meanwhile, and how holds end.

use std::sync::Arc;
use std::time::Duration;

use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{InvalidateScope, InvalidateTarget, Invalidation, PageSize};
use ersatz_abi::regs;
use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::clock::ManualClock;
use ersatz_device_model::inject::{Breakpoint, DEFAULT_DEADLINE_NS, Hold, SetError, Step};
use ersatz_device_model::trace::Filter;
use ersatz_device_model::trace::range::Range;
use vm_memory::{Bytes, GuestAddress};

use ersatz_device_testing::faults::{
    ASID, BASE, COMPUTE, COPY, bind, is_faulted, records, replayable, set, with_buffer,
};
use ersatz_device_testing::tables::page;
use ersatz_device_testing::{DATA, Host, LISTS, command, entry, reg, system, vram};

const FLR_BYTE: u16 = 0x69;

fn set_at(host: &Host, step: Step) -> u64 {
    host.gpu.inject().set_breakpoint(Breakpoint::new(step.name(), step)).unwrap()
}

/// A breakpoint for channel 0 alone.
fn set_for_first(host: &Host, step: Step) -> u64 {
    let when = Filter { channels: vec![0], ..Filter::default() };
    host.gpu.inject().set_breakpoint(Breakpoint { when, ..Breakpoint::new(step.name(), step) }).unwrap()
}

/// Waits for a hold, which is the only one.
fn held(host: &Host) -> Hold {
    host.wait_until("the hold", |host| !host.gpu.inject().holds().is_empty());
    let mut holds = host.gpu.inject().holds();
    assert_eq!(holds.len(), 1, "{holds:?}");
    holds.remove(0)
}

fn resume(host: &Host, hold: &Hold) {
    assert!(host.gpu.inject().resume(hold.number));
    assert!(!host.gpu.inject().resume(hold.number), "a hold ends once");
}

/// Channels 0 and 1 on one copy engine, and a copy for channel 0 of two entries to VRAM.
fn copying() -> (Host, Command) {
    copying_on(Host::new())
}

fn copying_on(host: Host) -> (Host, Command) {
    for channel in [0, 1] {
        bind(&host, channel, COPY, Priority::Low);
    }
    host.memory.write_slice(&[7; 8192], GuestAddress(DATA)).unwrap();
    let entries = [0, 4096].map(|at| entry(system(DATA + at), vram(at), 4096));
    let list = host.list(LISTS, &entries);
    (host, Command { fence: Some(1), interrupt: true, ..command(Operation::Copy(list)) })
}

/// Whether another channel of the engine executes a command now.
fn runs_on(host: &mut Host, fence: u64) {
    host.submit_to(1, Command { fence: Some(fence), ..command(Operation::Nop) });
    host.wait_until("another channel's command", |host| host.fence_of(1) == fence);
}

fn first_words(host: &Host) -> [bool; 2] {
    [0, 4096].map(|at| host.load(Location::vram(at)) != 0)
}

#[test]
fn a_command_is_held_at_each_of_its_steps() {
    let steps = [
        (Step::CommandFetched, [false; 2], (0, 0)),
        (Step::BeforePiece, [false; 2], (0, 0)),
        (Step::AfterPiece, [true, false], (0, 0)),
        (Step::BeforeFence, [true; 2], (0, 0)),
        (Step::BeforeGet, [true; 2], (1, 0)),
        (Step::BeforeInterrupt, [true; 2], (1, 1)),
    ];
    for (step, copied, (fence, get)) in steps {
        let (mut host, copy) = copying();
        let number = set_for_first(&host, step);
        host.submit(copy);
        let hold = held(&host);
        assert_eq!((hold.step, hold.breakpoint, hold.channel, hold.engine), (step, number, Some(0), Some(COPY as u8)));
        runs_on(&mut host, 1);
        assert_eq!((first_words(&host), host.fence(), host.get()), (copied, fence, get), "{step:?}");
        assert_eq!((host.interrupts.seen().len(), host.status(0).state()), (0, Some(ChannelState::Busy)), "{step:?}");
        assert!(host.gpu.inject().clear_breakpoint(number));
        resume(&host, &hold);
        host.interrupts.wait_for(1);
        assert_eq!((first_words(&host), host.fence(), host.get()), ([true; 2], 1, 1), "{step:?}");
    }
}

/// Each piece is held in turn, and passed once.
#[test]
fn a_breakpoint_holds_every_arrival_or_the_nth() {
    for (nth, holds) in [(None, 2), (Some(2), 1), (Some(3), 0)] {
        let (mut host, copy) = copying();
        let breakpoint = Breakpoint { nth, ..Breakpoint::new("piece", Step::BeforePiece) };
        host.gpu.inject().set_breakpoint(breakpoint).unwrap();
        host.submit(copy);
        for _ in 0..holds {
            let hold = held(&host);
            assert_eq!(host.gpu.inject().resume_breakpoint("piece"), 1, "{hold:?}");
        }
        host.interrupts.wait_for(1);
        assert!(host.gpu.inject().holds().is_empty());
    }
}

#[test]
fn a_breakpoint_holds_what_its_conditions_want() {
    let wanted = |when| Breakpoint { when, ..Breakpoint::new("some", Step::BeforePiece) };
    let filter = Filter::default;
    let about = |first| Filter { addresses: Some(Range::with_length(first, 8)), ..filter() };
    for (when, holds) in [
        (about(DATA + 4096), 1),
        (about(DATA + 8192), 0),
        (Filter { channels: vec![0], engines: vec![COPY as u8], ..filter() }, 2),
        (Filter { channels: vec![1], ..filter() }, 0),
        (Filter { engines: vec![COMPUTE as u8], ..filter() }, 0),
        (Filter { causes: vec![ersatz_abi::command::Cause::Evict], ..filter() }, 2),
        (Filter { causes: vec![ersatz_abi::command::Cause::Unbind], ..filter() }, 0),
    ] {
        let (mut host, copy) = copying();
        host.gpu.inject().set_breakpoint(wanted(when.clone())).unwrap();
        host.submit(Command { cause: ersatz_abi::command::Cause::Evict, ..copy });
        for _ in 0..holds {
            resume(&host, &held(&host));
        }
        host.interrupts.wait_for(1);
        assert!(host.gpu.inject().holds().is_empty(), "{when:?}");
    }
}

#[test]
fn a_forgotten_hold_ends_at_its_deadline() {
    let clock = Arc::new(ManualClock::new());
    let (mut host, copy) = copying_on(Host::with_clock(clock.clone()));
    set_for_first(&host, Step::BeforeFence);
    host.submit(copy);
    let hold = held(&host);
    assert_eq!((hold.since_ns, hold.deadline_ns), (0, DEFAULT_DEADLINE_NS));
    clock.advance_to(DEFAULT_DEADLINE_NS - 1);
    runs_on(&mut host, 1);
    assert_eq!((host.fence(), held(&host)), (0, hold));
    clock.advance(Duration::from_nanos(1));
    host.interrupts.wait_for(1);
    assert!(host.gpu.inject().holds().is_empty());
}

#[test]
fn a_reset_drops_holds() {
    for how in ["channel", "device", "function", "bus"] {
        let (mut host, copy) = copying();
        let number = set_at(&host, Step::BeforeFence);
        host.submit(copy);
        let hold = held(&host);
        match how {
            "channel" => host.write32(reg(0, regs::CHANNEL_CONTROL), 2),
            "device" => host.write32(regs::CONTROL.offset, 1),
            "function" => drop(host.gpu.config_write(FLR_BYTE, &[0x80])),
            _ => drop(host.gpu.reset()),
        }
        host.start();
        host.wait_until(how, |host| host.gpu.inject().holds().is_empty());
        host.wait_until(how, |host| host.read32(regs::CONTROL.offset) == 0);
        assert!(!host.gpu.inject().resume(hold.number), "{how}");
        // The breakpoint is still there.
        host.put[0] = 0;
        host.wait_until(how, |host| host.read32(reg(0, regs::CHANNEL_CONTROL)) == 0);
        bind(&host, 0, COPY, Priority::Low);
        host.submit(copy);
        let hold = held(&host);
        assert_eq!((hold.breakpoint, host.fence()), (number, 0));
        resume(&host, &hold);
        host.interrupts.wait_for(1);
    }
}

fn request(host: &Host, asid: u8) -> u64 {
    let target = InvalidateTarget(0).with_raw_scope(InvalidateScope::AddressSpace as u64).with_asid(asid.into());
    host.write32(regs::INVALIDATE.offset, target.0 as u32);
    host.read64(regs::INVALIDATE_REQUESTED.offset)
}

fn acknowledged(host: &Host) -> u64 {
    host.read64(regs::INVALIDATE_ACKNOWLEDGED.offset)
}

/// Those before it are acknowledged, and those behind it with it.
#[test]
fn an_acknowledgement_is_held() {
    let (mut host, copy) = copying();
    let when = Filter { asids: vec![9], ..Filter::default() };
    let breakpoint = Breakpoint { when, ..Breakpoint::new("ack", Step::BeforeInvalidationAck) };
    host.gpu.inject().set_breakpoint(breakpoint).unwrap();
    let numbers = [8, 9, 8, 9].map(|asid| request(&host, asid));
    let hold = held(&host);
    assert_eq!((hold.channel, hold.asid), (None, Some(9)));
    host.wait_until("the one before it", |host| acknowledged(host) == numbers[0]);
    host.submit(Command { fence: Some(1), ..command(Operation::Invalidate(Invalidation::All)) });
    runs_on(&mut host, 1);
    assert_eq!((acknowledged(&host), host.fence()), (numbers[0], 0));
    resume(&host, &hold);
    host.wait_until("up to the next one", |host| acknowledged(host) == numbers[2]);
    resume(&host, &held(&host));
    host.wait_until("the command", |host| host.fence() == 1);
    assert_eq!(acknowledged(&host), numbers[3] + 1);
    host.submit(Command { fence: Some(2), ..copy });
    host.interrupts.wait_for(1);
}

#[test]
fn a_reset_drops_an_acknowledgement_that_is_held() {
    let host = Host::new();
    set_at(&host, Step::BeforeInvalidationAck);
    request(&host, 1);
    held(&host);
    host.write32(regs::CONTROL.offset, 1);
    host.wait_until("the reset", |host| host.read32(regs::CONTROL.offset) == 0);
    assert!(host.gpu.inject().holds().is_empty());
    assert_eq!(request(&host, 1), 1);
    resume(&host, &held(&host));
    host.wait_until("the acknowledgement", |host| acknowledged(host) == 1);
}

/// The record is there, and a replay takes effect when the hold ends, whichever comes first.
#[test]
fn a_channel_is_held_behind_its_fault_record_or_before_its_replay() {
    for (step, resumed_first) in
        [(Step::AfterFaultRecord, false), (Step::AfterFaultRecord, true), (Step::BeforeReplay, false)]
    {
        let (mut host, mut space) = with_buffer(replayable());
        bind(&host, 0, COMPUTE, Priority::Low);
        set_at(&host, step);
        host.submit(set(BASE, 8, 77));
        host.wait_until("the fault", |host| is_faulted(host, 0));
        assert_eq!(records(&host).len(), 1);
        space.map(&host, BASE, page(Location::vram(4096), PageSize::Small));
        if resumed_first {
            resume(&host, &held(&host));
            assert!(is_faulted(&host, 0), "it waits for its replay");
        }
        host.write32(regs::FAULT_REPLAY.offset, 1);
        if !resumed_first {
            let hold = held(&host);
            assert_eq!((hold.step, hold.address, hold.asid), (step, Some(BASE), Some(ASID)));
            assert_eq!((is_faulted(&host, 0), host.fence()), (false, 0));
            resume(&host, &hold);
        }
        host.wait_until("its end", |host| host.fence() == 1);
        assert_eq!(host.load(Location::vram(4096)), 77);
    }
}

#[test]
fn a_fault_that_is_cancelled_is_held_no_more() {
    let (mut host, _space) = with_buffer(replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    set_at(&host, Step::AfterFaultRecord);
    host.submit(set(BASE, 8, 77));
    held(&host);
    host.write32(regs::FAULT_CANCEL.offset, 0);
    assert!(host.gpu.inject().holds().is_empty());
    assert_eq!(host.status(0).state(), Some(ChannelState::Error));
}

#[test]
fn changes_are_announced() {
    let (mut host, copy) = copying();
    let seen = host.gpu.inject().changes();
    let number = set_at(&host, Step::BeforeGet);
    let seen = host.gpu.inject().wait_for_change(seen, Duration::ZERO);
    host.submit(copy);
    let held_at = host.gpu.inject().wait_for_change(seen, Duration::from_secs(60));
    assert_eq!((held_at, host.gpu.inject().holds().len()), (seen + 1, 1));
    assert!(host.gpu.inject().change_event().read().is_ok(), "signalled");
    assert_eq!(host.gpu.inject().resume_breakpoint("before-get"), 1);
    assert!(host.gpu.inject().clear_breakpoint(number) && !host.gpu.inject().clear_breakpoint(number));
    assert_eq!(host.gpu.inject().wait_for_change(held_at, Duration::ZERO), held_at + 2);
    host.interrupts.wait_for(1);
}

#[test]
fn names_are_for_one_breakpoint_each() {
    let host = Host::new();
    let inject = host.gpu.inject();
    let first = set_at(&host, Step::BeforeGet);
    let again = Breakpoint::new("before-get", Step::BeforeFence);
    assert_eq!(inject.set_breakpoint(again.clone()), Err(SetError::Taken("before-get".to_owned())));
    assert!(inject.clear_breakpoint(first));
    let second = inject.set_breakpoint(again.clone()).unwrap();
    assert_ne!(first, second);
    assert_eq!(inject.breakpoints(), [(second, again)]);
}

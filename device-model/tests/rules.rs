// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rules: what each action makes of the device. The oracle, which looks at every log here, holds none of it against the device.

use std::sync::Arc;
use std::time::Duration;

use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::AccessKind;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{Invalidation, PageSize};
use ersatz_abi::notification::{NotificationStatus, RECORD_BYTES};
use ersatz_abi::regs;
use ersatz_device_model::bus::{Effect, PciFunction};
use ersatz_device_model::clock::ManualClock;
use ersatz_device_model::inject::{Action, Breakpoint, DmaKind, MAX_FAULTS, Occurrence, Rule, Step};
use ersatz_device_model::trace::Kind;
use ersatz_device_model::trace::range::Range;
use vm_memory::{Bytes, GuestAddress};

use ersatz_device_testing::faults::{
    BASE, BUFFER, COMPUTE, COPY, FAULT_VECTOR, bind, given_buffer, is_faulted, records, replayable, ring, set,
    with_buffer,
};
use ersatz_device_testing::tables::page;
use ersatz_device_testing::{DATA, Host, LISTS, command, entry, reg, system, vram};

const FLR_BYTE: u16 = 0x69;
const LATE_NS: u64 = 1000;
/// The command register of config space, and its bit for memory without that for bus mastering.
const COMMAND: u16 = 4;
const MEMORY: u16 = 2;

/// A rule for events of this kind, at this occurrence alone.
fn nth(kind: &str, nth: u64, action: Action) -> Rule {
    let mut rule = Rule::new("rule", action);
    rule.on.event.kinds = vec![Kind::from_name(kind).unwrap()];
    rule.on.occurrence = Occurrence::Nth(nth);
    rule
}

fn add(host: &Host, rule: Rule) -> u64 {
    host.gpu.inject().add_rule(rule).unwrap()
}

fn fired(host: &Host) -> u64 {
    host.gpu.inject().rules()[0].2
}

fn enabled() -> Host {
    let host = Host::new();
    host.enable(0, 3);
    host
}

/// A host whose clock the test sets, with channel 0 enabled.
fn clocked() -> (Host, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    let host = Host::with_clock(clock.clone());
    host.enable(0, 3);
    (host, clock)
}

/// Whether the record in a slot of the fault buffer is valid.
fn slot_is_valid(host: &Host, slot: u64) -> bool {
    host.memory.read_obj::<u64>(GuestAddress(BUFFER + slot * RECORD_BYTES + 8)).unwrap() >> 63 != 0
}

fn nop(fence: u64) -> Command {
    Command { fence: Some(fence), interrupt: true, ..command(Operation::Nop) }
}

#[test]
fn the_nth_copy_fails_with_a_part_of_it_done() {
    for bytes in [0, 1027, 1 << 40] {
        let mut host = enabled();
        host.memory.write_slice(&[7; 3 * 4096], GuestAddress(DATA)).unwrap();
        let entries = [0, 4096, 8192].map(|at| entry(system(DATA + at), vram(at), 4096));
        let list = host.list(LISTS, &entries);
        add(&host, nth("copy", 2, Action::Fail { error: ErrorCode::DmaWrite, bytes }));
        host.submit(Command { fence: Some(1), ..command(Operation::Copy(list)) });
        host.wait_until("the error", |host| host.status(0).error() == Some(ErrorCode::DmaWrite));
        assert_eq!(host.read64(reg(0, regs::ERROR_POSITION)) >> 32, 1, "the second entry");
        let mut copied = vec![0; 3 * 4096];
        host.gpu.bar_read(2, 0, &mut copied);
        let done = 4096 + usize::try_from(bytes.min(4088)).unwrap() / 8 * 8;
        assert!(copied[..done].iter().all(|byte| *byte == 7) && copied[done..].iter().all(|byte| *byte == 0));
        assert_eq!((host.fence(), fired(&host)), (0, 1));
    }
}

#[test]
fn the_nth_command_fails() {
    let mut host = enabled();
    add(&host, nth("command-start", 2, Action::Fail { error: ErrorCode::BadCommand, bytes: 0 }));
    host.execute(Operation::Nop, 1);
    host.submit(nop(2));
    host.wait_until("the error", |host| host.status(0).error() == Some(ErrorCode::BadCommand));
    assert_eq!(host.fence(), 1);
}

#[test]
fn a_fence_is_late_and_all_behind_it() {
    let (mut host, clock) = clocked();
    host.enable(1, 4);
    let mut rule = nth("fence", 1, Action::Delay { ns: LATE_NS });
    rule.on.event.channels = vec![0];
    add(&host, rule);
    host.submit(nop(1));
    host.wait_until("the rule", |host| fired(host) == 1);
    clock.advance_to(LATE_NS - 1);
    host.submit_to(1, nop(1));
    host.wait_until("another channel", |host| host.fence_of(1) == 1);
    assert_eq!((host.fence(), host.get()), (0, 0));
    clock.advance_to(LATE_NS);
    host.wait_until("the fence", |host| host.fence() == 1);
    host.interrupts.wait_for(2);
}

/// It is held first, late then, and neither again.
#[test]
fn a_fence_is_held_and_late() {
    let (mut host, clock) = clocked();
    host.gpu.inject().set_breakpoint(Breakpoint::new("fence", Step::BeforeFence)).unwrap();
    let mut rule = nth("fence", 1, Action::Delay { ns: LATE_NS });
    rule.on.occurrence = Occurrence::Every;
    add(&host, rule);
    host.submit(nop(1));
    host.wait_until("the hold", |host| !host.gpu.inject().holds().is_empty());
    assert_eq!((host.gpu.inject().resume_breakpoint("fence"), host.fence()), (1, 0));
    host.wait_until("the rule", |host| fired(host) == 1);
    clock.advance_to(LATE_NS);
    host.interrupts.wait_for(1);
    assert_eq!((host.fence(), fired(&host)), (1, 1));
}

#[test]
fn a_fence_does_not_come() {
    let mut host = enabled();
    add(&host, nth("fence", 1, Action::Drop));
    host.submit(nop(1));
    host.interrupts.wait_for(1);
    assert_eq!((host.fence(), host.get()), (0, 1));
    host.execute(Operation::Nop, 2);
    assert_eq!(host.counter(Counter::Fences), 1);
}

#[test]
fn interrupts_are_dropped_and_doubled() {
    for (action, interrupts) in [(Action::Drop, 0), (Action::Double, 2)] {
        let mut host = enabled();
        add(&host, nth("interrupt", 1, action));
        host.submit(nop(1));
        host.wait_until("the command", |host| host.read32(reg(0, regs::GET)) == 1);
        host.submit(nop(2));
        assert_eq!(host.interrupts.wait_for(interrupts + 1).len(), interrupts + 1);
        host.wait_until("idle", |host| host.status(0).state() == Some(ChannelState::Idle));
        assert_eq!(host.interrupts.seen(), vec![3; interrupts + 1]);
    }
}

/// A late interrupt comes when its time does, unless a reset comes first.
#[test]
fn an_interrupt_is_late() {
    for how in ["none", "channel", "device", "function"] {
        let (mut host, clock) = clocked();
        let number = add(&host, nth("interrupt", 1, Action::Delay { ns: LATE_NS }));
        host.submit(nop(1));
        host.wait_until("the rule", |host| fired(host) == 1);
        host.wait_until("idle", |host| host.status(0).state() == Some(ChannelState::Idle));
        match how {
            "channel" => host.write32(reg(0, regs::CHANNEL_CONTROL), 2),
            "device" => host.write32(regs::CONTROL.offset, 1),
            "function" => drop(host.gpu.config_write(FLR_BYTE, &[0x80])),
            _ => {}
        }
        host.start();
        host.wait_until("the reset", |host| {
            host.read32(regs::CONTROL.offset) == 0 && host.read32(reg(0, regs::CHANNEL_CONTROL)) & 2 == 0
        });
        assert_eq!(host.interrupts.seen(), [0; 0]);
        assert!(host.gpu.inject().remove_rule(number));
        // What comes behind it has been seen when it would have been.
        let mut later = Rule::new("later", Action::SpuriousInterrupt { vector: 9 });
        later.on.at_ns = Some(LATE_NS);
        add(&host, later);
        clock.advance_to(LATE_NS);
        let late: &[u16] = if how == "none" { &[3, 9] } else { &[9] };
        let mut seen = host.interrupts.wait_for(late.len());
        seen.sort_unstable();
        assert_eq!(seen, late, "{how}");
    }
}

#[test]
fn an_acknowledgement_is_late() {
    let (mut host, clock) = clocked();
    let acknowledged = |host: &Host| host.read64(regs::INVALIDATE_ACKNOWLEDGED.offset);
    host.invalidate(Invalidation::All);
    add(&host, nth("invalidate-requested", 1, Action::Delay { ns: LATE_NS }));
    host.submit(Command { fence: Some(1), ..command(Operation::Invalidate(Invalidation::All)) });
    host.wait_until("the rule", |host| fired(host) == 1);
    host.enable(1, 4);
    host.submit_to(1, nop(1));
    host.wait_until("another channel", |host| host.fence_of(1) == 1);
    assert_eq!((acknowledged(&host), host.fence()), (1, 0));
    host.wait_until("the acknowledgement", |host| {
        // The delay begins once the invalidation was carried out.
        clock.advance(Duration::from_nanos(LATE_NS));
        acknowledged(host) == 2
    });
    host.wait_until("the command", |host| host.fence() == 1);
}

#[test]
fn fault_records_are_lost_and_doubled() {
    for (action, count, overflow) in [(Action::Drop, 0, false), (Action::Overflow, 0, true), (Action::Double, 2, false)]
    {
        let (mut host, mut space) = with_buffer(replayable());
        bind(&host, 0, COMPUTE, Priority::Low);
        add(&host, nth("fault-recorded", 1, action));
        host.submit(set(BASE, 8, 77));
        host.wait_until("the fault", |host| is_faulted(host, 0));
        assert_eq!(records(&host).len(), count);
        let status = NotificationStatus(host.read32(ring(regs::NOTIFICATION_STATUS)));
        assert_eq!((status.overflow(), host.counter(Counter::FaultsDropped)), (overflow, u64::from(count == 0)));
        // A replay without an answer makes it fault again.
        host.write32(regs::FAULT_REPLAY.offset, 1);
        host.wait_until("another fault", |host| host.counter(Counter::Faults) == count as u64 + 1);
        host.wait_until("the fault", |host| is_faulted(host, 0));
        space.map(&host, BASE, page(Location::vram(4096), PageSize::Small));
        host.write32(regs::FAULT_REPLAY.offset, 1);
        host.wait_until("its end", |host| host.fence() == 1);
    }
}

#[test]
fn a_fault_record_is_late() {
    let (mut host, mut space) = with_buffer(replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    add(&host, nth("fault-recorded", 1, Action::Delay { ns: 1 }));
    host.submit(set(BASE, 8, 77));
    host.wait_until("the record", |host| host.read32(ring(regs::NOTIFICATION_PUT)) == 1);
    assert_eq!(records(&host)[0].address, BASE);
    space.map(&host, BASE, page(Location::vram(4096), PageSize::Small));
    host.wait_until("the fault", |host| is_faulted(host, 0));
    host.write32(regs::FAULT_REPLAY.offset, 1);
    host.wait_until("its end", |host| host.fence() == 1);
}

#[test]
fn a_fault_record_is_announced_before_it_is_there() {
    let clock = Arc::new(ManualClock::new());
    let (mut host, mut space) = given_buffer(Host::with_clock(clock.clone()), replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    add(&host, nth("fault-recorded", 1, Action::AnnounceEarly { ns: LATE_NS }));
    host.submit(set(BASE, 8, 77));
    host.wait_until("the announcement", |host| host.read32(ring(regs::NOTIFICATION_PUT)) == 1);
    assert_eq!(host.interrupts.wait_for(1), [FAULT_VECTOR]);
    host.wait_until("the fault", |host| is_faulted(host, 0));
    assert_eq!((slot_is_valid(&host, 0), host.counter(Counter::Faults)), (false, 0));
    // The ring is not the driver's again before the record has come.
    host.write32(ring(regs::NOTIFICATION_CONTROL), 0);
    assert_eq!(host.read32(ring(regs::NOTIFICATION_CONTROL)), 1);
    host.wait_until("the record", |host| {
        clock.advance(Duration::from_nanos(LATE_NS));
        slot_is_valid(host, 0)
    });
    host.wait_until("the ring to stop", |host| host.read32(ring(regs::NOTIFICATION_CONTROL)) == 0);
    // A record is counted a moment after it shows.
    host.wait_until("its count", |host| host.counter(Counter::Faults) == 1);
    assert_eq!(host.counter(Counter::FaultsDropped), 0);
    space.map(&host, BASE, page(Location::vram(4096), PageSize::Small));
    host.write32(regs::FAULT_REPLAY.offset, 1);
    host.wait_until("its end", |host| host.fence() == 1);
}

#[test]
fn a_record_that_is_announced_is_given_up_with_bus_mastering() {
    let clock = Arc::new(ManualClock::new());
    let (mut host, _space) = given_buffer(Host::with_clock(clock.clone()), replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    add(&host, nth("fault-recorded", 1, Action::AnnounceEarly { ns: LATE_NS }));
    host.submit(set(BASE, 8, 77));
    host.wait_until("the fault", |host| is_faulted(host, 0));
    host.gpu.config_write(COMMAND, &MEMORY.to_le_bytes());
    host.wait_until("its loss", |host| {
        clock.advance(Duration::from_nanos(LATE_NS));
        host.counter(Counter::FaultsDropped) == 1
    });
    let status = NotificationStatus(host.read32(ring(regs::NOTIFICATION_STATUS)));
    assert!(status.dma_error() && !slot_is_valid(&host, 0));
}

#[test]
fn faults_are_reported_at_which_no_channel_waits() {
    let (mut host, mut space) = with_buffer(replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    let (address, access) = (BASE + 0x5000, AccessKind::Write);
    add(&host, nth("mark", 1, Action::Fault { channel: 0, asid: 3, address, access, count: 3 }));
    host.write64(regs::MARK.offset, 1);
    host.wait_until("the records", |host| host.counter(Counter::Faults) == 3);
    let found = records(&host);
    assert_eq!(
        found.iter().map(|record| record.address).collect::<Vec<_>>(),
        [0, 1, 2].map(|page| address + page * 4096)
    );
    assert!(found.iter().all(|record| (record.channel, record.asid, record.access) == (0, 3, access)));
    assert!(!is_faulted(&host, 0));
    // A replay means nothing to a channel that does not wait, and faults of its own go on being answered.
    host.write32(regs::FAULT_REPLAY.offset, 1);
    host.submit(set(BASE, 8, 77));
    host.wait_until("the fault", |host| is_faulted(host, 0));
    space.map(&host, BASE, page(Location::vram(4096), PageSize::Small));
    host.write32(regs::FAULT_REPLAY.offset, 1);
    host.wait_until("its end", |host| host.fence() == 1);
}

#[test]
fn a_storm_of_faults_overflows_the_buffer() {
    let (host, _space) = with_buffer(replayable());
    let storm =
        Action::Fault { channel: 200, asid: 9, address: u64::MAX - 4095, access: AccessKind::Read, count: MAX_FAULTS };
    add(&host, nth("mark", 1, storm));
    host.write64(regs::MARK.offset, 1);
    let reported = |host: &Host| host.counter(Counter::Faults) + host.counter(Counter::FaultsDropped);
    host.wait_until("the storm", |host| reported(host) == u64::from(MAX_FAULTS));
    assert!(NotificationStatus(host.read32(ring(regs::NOTIFICATION_STATUS))).overflow());
    assert_eq!(records(&host)[1].address, 0, "addresses wrap around");
}

#[test]
fn the_next_interrupt_overtakes_one() {
    let mut host = enabled();
    host.enable(1, 4);
    add(&host, nth("interrupt", 1, Action::Reorder { ns: u64::MAX }));
    host.submit(nop(1));
    host.wait_until("the rule", |host| fired(host) == 1);
    assert_eq!(host.interrupts.seen(), [0; 0]);
    host.submit_to(1, nop(1));
    assert_eq!(host.interrupts.wait_for(2), [4, 3]);
}

#[test]
fn an_interrupt_that_nothing_overtakes_comes_in_the_end() {
    let (mut host, clock) = clocked();
    add(&host, nth("interrupt", 1, Action::Reorder { ns: LATE_NS }));
    host.submit(nop(1));
    host.wait_until("the rule", |host| fired(host) == 1);
    clock.advance(Duration::from_nanos(LATE_NS));
    assert_eq!(host.interrupts.wait_for(1), [3]);
    // One that is reset before does not.
    let rule = host.gpu.inject().rules()[0].0;
    host.gpu.inject().remove_rule(rule);
    add(&host, nth("interrupt", 1, Action::Reorder { ns: LATE_NS }));
    host.submit(nop(2));
    host.wait_until("the rule", |host| fired(host) == 1);
    host.gpu.reset();
    host.start();
    clock.advance(Duration::from_nanos(LATE_NS));
    host.put[0] = 0;
    host.enable(0, 3);
    host.execute(Operation::Nop, 1);
    assert_eq!(host.interrupts.wait_for(2), [3, 3], "that of now, and not the one before the reset");
}

#[test]
fn the_next_record_of_a_fault_overtakes_one() {
    let (mut host, mut space) = with_buffer(replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    bind(&host, 1, COMPUTE, Priority::Low);
    add(&host, nth("fault-recorded", 1, Action::Reorder { ns: u64::MAX }));
    host.submit(set(BASE, 8, 1));
    host.wait_until("the fault", |host| is_faulted(host, 0));
    assert_eq!((fired(&host), records(&host).len()), (1, 0));
    host.submit_to(1, set(BASE + 4096, 8, 1));
    host.wait_until("the records", |host| host.read32(ring(regs::NOTIFICATION_PUT)) == 2);
    let found: Vec<_> = records(&host).iter().map(|record| (record.channel, record.address, record.number)).collect();
    assert_eq!(found.iter().map(|found| (found.0, found.1)).collect::<Vec<_>>(), [(1, BASE + 4096), (0, BASE)]);
    assert!(found[0].2 < found[1].2, "each has its number when it is written");
    for at in [0, 4096] {
        space.map(&host, BASE + at, page(vram(4096 + at), PageSize::Small));
    }
    host.write32(regs::FAULT_REPLAY.offset, 1);
    host.wait_until("the end", |host| host.fence() == 1 && host.fence_of(1) == 1);
}

#[test]
fn an_acknowledgement_does_not_come() {
    let mut host = enabled();
    let acknowledged = |host: &Host| host.read64(regs::INVALIDATE_ACKNOWLEDGED.offset);
    add(&host, nth("invalidate-requested", 1, Action::Drop));
    host.submit(Command { fence: Some(1), ..command(Operation::Invalidate(Invalidation::All)) });
    host.wait_until("the rule", |host| fired(host) == 1);
    host.write32(regs::INVALIDATE.offset, Invalidation::All.encode().0.0 as u32);
    // Those behind it wait for it, as they do for one that is late.
    host.enable(1, 4);
    host.submit_to(1, nop(1));
    host.wait_until("another channel", |host| host.fence_of(1) == 1);
    assert_eq!((acknowledged(&host), host.fence()), (0, 0));
    host.gpu.reset();
    host.start();
    host.invalidate(Invalidation::All);
    host.wait_until("one after the reset", |host| acknowledged(host) == 1);
}

/// The other engine works, and the reset of a channel does not mend it.
#[test]
fn an_engine_hangs_until_the_device_is_reset() {
    let mut host = Host::new();
    bind(&host, 0, COPY, Priority::Low);
    bind(&host, 1, COPY, Priority::Low);
    bind(&host, 2, COMPUTE, Priority::Low);
    let mut rule = nth("command-start", 1, Action::Hang);
    rule.on.event.channels = vec![0];
    add(&host, rule);
    host.submit(nop(1));
    host.wait_until("the rule", |host| fired(host) == 1);
    host.submit_to(1, nop(1));
    host.submit_to(2, nop(1));
    host.wait_until("the other engine", |host| host.fence_of(2) == 1);
    assert_eq!((host.fence(), host.fence_of(1)), (0, 0));
    host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
    host.wait_until("the reset", |host| host.read32(reg(0, regs::CHANNEL_CONTROL)) == 0);
    assert_eq!(host.fence_of(1), 0);
    host.write32(regs::CONTROL.offset, 1);
    host.wait_until("the reset", |host| host.read32(regs::CONTROL.offset) == 0);
    host.put = [0; 16];
    bind(&host, 1, COPY, Priority::Low);
    host.submit_to(1, nop(1));
    host.wait_until("work", |host| host.fence_of(1) == 1);
}

#[test]
fn an_event_triggers_an_interrupt_without_a_reason() {
    let mut host = enabled();
    add(&host, nth("mark", 2, Action::SpuriousInterrupt { vector: 7 }));
    host.write64(regs::MARK.offset, 1);
    host.execute(Operation::Nop, 1);
    host.write64(regs::MARK.offset, 2);
    assert_eq!(host.interrupts.wait_for(2), [3, 7]);
}

#[test]
fn the_function_is_gone() {
    let mut host = enabled();
    add(&host, nth("fence", 1, Action::Delay { ns: u64::MAX }));
    host.submit(nop(1));
    let mut timed = Rule::new("gone", Action::Gone);
    timed.on.at_ns = Some(0);
    add(&host, timed);
    host.wait_until("the end", |host| host.read32(regs::ID.offset) == u32::MAX);
    let mut config = [0; 4];
    host.wait_until("the event", |host| host.gpu.event().unwrap().read().is_ok());
    host.gpu.config_read(0, &mut config);
    assert_eq!((config, host.gpu.take_effects()), ([0xff; 4], vec![Effect::Gone]));
    assert_eq!((host.gpu.config_write(4, &[6]), host.gpu.reset(), host.gpu.take_effects()), (vec![], vec![], vec![]));
    assert_eq!((host.fence(), host.interrupts.seen()), (0, vec![]));
}

#[test]
fn the_function_resets_itself() {
    let mut host = enabled();
    add(&host, nth("mark", 1, Action::Reset));
    host.write64(regs::MARK.offset, 1);
    host.wait_until("the event", |host| host.gpu.event().unwrap().read().is_ok());
    assert_eq!(host.gpu.take_effects(), [Effect::Reset]);
    assert_eq!(host.read32(regs::ID.offset), u32::MAX, "memory decoding is off");
    host.start();
    assert_eq!(host.status(0).state(), Some(ChannelState::Disabled));
    host.put[0] = 0;
    host.enable(0, 3);
    host.execute(Operation::Nop, 1);
}

/// Of a copy to the system, which is an access for each entry: the driver sees an error of the bus, as of an access that nothing answers.
#[test]
fn the_nth_dma_access_is_refused() {
    for (kind, occurrence, code, done) in [
        (DmaKind::Write, 2, ErrorCode::DmaWrite, 4096 + 512),
        (DmaKind::Read, 1, ErrorCode::DmaRead, 0),
        (DmaKind::Any, 2, ErrorCode::DmaWrite, 4096 + 512),
    ] {
        let mut host = enabled();
        host.gpu.bar_write(2, 0, &[7; 8192]);
        let entries = [0, 4096].map(|at| entry(vram(at), system(DATA + at), 4096));
        let list = host.list(LISTS, &entries);
        let mut rule = Rule::new("refused", Action::Refuse { bytes: 512 });
        let places = if kind == DmaKind::Read { (LISTS, 4096) } else { (DATA, 8192) };
        rule.on.dma = Some(kind);
        rule.on.event.addresses = Some(Range::with_length(places.0, places.1));
        rule.on.occurrence = Occurrence::Nth(occurrence);
        if kind == DmaKind::Read {
            rule.action = Action::Refuse { bytes: 0 };
        }
        add(&host, rule);
        host.submit(Command { fence: Some(1), ..command(Operation::Copy(list)) });
        host.wait_until("the error", |host| host.status(0).error() == Some(code));
        let address = if kind == DmaKind::Read { LISTS } else { DATA + 4096 + 512 };
        assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), address);
        assert_eq!(host.counter(Counter::DmaErrors), 1);
        let mut copied = vec![0; 8192];
        host.memory.read_slice(&mut copied, GuestAddress(DATA)).unwrap();
        assert!(copied[..done].iter().all(|byte| *byte == 7) && copied[done..].iter().all(|byte| *byte == 0));
    }
}

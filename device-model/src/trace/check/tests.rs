// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each rule: kept, broken, and not broken by what only looks like it.

mod handed_over;
mod memory;

use ersatz_abi::command::{Cause, Location, Opcode};
use ersatz_abi::error::ErrorCode;
use proptest::prelude::*;

use super::*;
use crate::trace::{ActionKind, Identity, InjectionEvent, InterruptOutcome, Kind, ResetSource};

const VRAM: u64 = 1 << 20;

/// A record by itself, and a hole of this many records.
enum Step {
    Is(Event),
    Hole(u64),
}

fn header(claimed: u64, dropped: u64, closed: bool) -> Header {
    Header {
        identity: Identity { device: 0, vram: VRAM, channels: 4, copy_engines: 1 },
        capacity: 1 << 20,
        epoch: 0,
        process: 0,
        abi_version: 0,
        claimed,
        dropped,
        closed,
    }
}

fn check_steps(steps: impl IntoIterator<Item = Step>, dropped: u64, closed: bool) -> Vec<(u64, Rule)> {
    let mut checker = Checker::new(VRAM);
    let mut sequence = 0;
    for step in steps {
        match step {
            Step::Hole(records) => sequence += records,
            Step::Is(event) => {
                sequence += 1;
                checker.add(&Record { sequence, time: sequence * 10, fields: event.to_fields() });
            }
        }
    }
    let verdict = checker.finish(&header(sequence + dropped, dropped, closed));
    assert_eq!(verdict.total, verdict.findings.len() as u64);
    verdict.findings.iter().map(|finding| (finding.sequence, finding.rule)).collect()
}

/// The broken rules of a closed log with these events behind those of [`setup`], whose records are 1 and 2.
fn broken(events: &[Event]) -> Vec<(u64, Rule)> {
    check_steps(setup().into_iter().chain(events.iter().copied()).map(Step::Is), 0, true)
}

/// The warnings about a closed log with these events behind those of [`setup`].
fn warnings(events: &[Event]) -> Vec<(u64, Rule)> {
    let mut checker = Checker::new(VRAM);
    let all: Vec<Event> = setup().into_iter().chain(events.iter().copied()).collect();
    for (event, sequence) in all.iter().zip(1..) {
        checker.add(&Record { sequence, time: sequence * 10, fields: event.to_fields() });
    }
    let verdict = checker.finish(&header(all.len() as u64, 0, true));
    verdict.warnings.iter().map(|finding| (finding.sequence, finding.rule)).collect()
}

#[test]
fn a_driver_that_leaves_in_good_order_is_not_warned() {
    let reset = Event::Reset { source: ResetSource::Register };
    let masterless = Event::BusMaster { enabled: false };
    assert_eq!(warnings(&[reset, masterless, Event::DeviceDropped]), []);
    assert_eq!(warnings(&[Event::ChannelDisabled { channel: 0 }, masterless, Event::DeviceDropped]), []);
    assert_eq!(
        warnings(&[Event::PowerState { state: 3 }, masterless, Event::PowerState { state: 0 }, reset, masterless]),
        []
    );
}

#[test]
fn a_driver_that_leaves_in_bad_order_is_warned() {
    let masterless = Event::BusMaster { enabled: false };
    assert_eq!(warnings(&[]), [(0, Rule::DriverLeaves)], "the log ends with a channel enabled");
    assert_eq!(warnings(&[Event::DeviceDropped]), [(3, Rule::DriverLeaves)]);
    assert_eq!(warnings(&[masterless, Event::DeviceDropped]), [(3, Rule::DriverLeaves)]);
    assert_eq!(warnings(&[Event::Reset { source: ResetSource::FunctionLevel }]), [(3, Rule::DriverLeaves)]);
    let reset = Event::Reset { source: ResetSource::Register };
    assert_eq!(warnings(&[reset, Event::DeviceDropped]), [(4, Rule::DriverLeaves)], "bus mastering is on");
    let bad = Event::BadAccess { bar: 0, offset: 0x20, width: 4, write: true };
    assert_eq!(warnings(&[bad, bad, reset, masterless]), [(5, Rule::BadAccess)], "one warning for both");
}

fn setup() -> [Event; 2] {
    [Event::BusMaster { enabled: true }, enabled()]
}

fn enabled() -> Event {
    Event::ChannelEnabled { channel: 0, ring: 0x1000, control_block: 0x2000, commands: 16, vector: 1 }
}

fn start(position: u32, fence: Option<u64>, interrupt: bool) -> Event {
    Event::CommandStart {
        channel: 0,
        engine: 0,
        position,
        opcode: Opcode::Copy,
        cause: Cause::MigrateToDevice,
        count: 1,
        address: 0x8000,
        fence,
        interrupt,
        tag: 0,
    }
}

fn end(position: u32, error: ErrorCode) -> Event {
    Event::CommandEnd {
        channel: 0,
        engine: 0,
        position,
        opcode: Opcode::Copy,
        cause: Cause::MigrateToDevice,
        error,
        bytes: 4096,
        tag: 0,
    }
}

fn copy(system: u64, vram: u64) -> Event {
    Event::Copy {
        channel: 0,
        engine: 0,
        cause: Cause::MigrateToDevice,
        source: Location::system(system),
        destination: Location::vram(vram),
        length: 4096,
        tag: 0,
    }
}

fn fence(value: u64) -> Event {
    Event::Fence { channel: 0, engine: 0, value, address: 0x2080 }
}

fn interrupt() -> Event {
    Event::Interrupt { vector: 1, channel: Some(0), outcome: InterruptOutcome::Sent }
}

fn error(error: ErrorCode) -> Event {
    Event::ChannelError { channel: 0, error, position: 0, entry: 0, address: 0 }
}

const DONE: ErrorCode = ErrorCode::None;

#[test]
fn good_order_is_not_blamed() {
    assert_eq!(broken(&[]), []);
    let one = [start(0, Some(1), true), copy(0, 0), fence(1), end(0, DONE), interrupt()];
    let two = [start(1, Some(2), true), copy(0, 0), end(1, DONE), fence(2), interrupt()];
    assert_eq!(broken(&[one, two].concat()), [], "the fence may be recorded before the end or after");
    assert_eq!(broken(&[start(0, None, false), end(0, DONE), Event::ChannelDisabled { channel: 0 }]), []);
}

#[test]
fn a_command_must_end() {
    assert_eq!(broken(&[start(0, None, false)]), [(3, Rule::CommandEnds)]);
    assert_eq!(broken(&[start(0, None, false), start(1, None, false), end(1, DONE)]), [(4, Rule::CommandEnds)]);
    assert_eq!(broken(&[start(0, Some(1), true), error(ErrorCode::DmaRead)]), []);
    assert_eq!(broken(&[start(0, Some(1), true), Event::ChannelReset { channel: 0 }]), []);
    assert_eq!(broken(&[start(0, Some(1), true), Event::Reset { source: ResetSource::FunctionLevel }]), []);
}

#[test]
fn a_command_may_be_under_way_when_the_device_goes() {
    let mut checker = Checker::new(VRAM);
    let events = [setup()[0], enabled(), start(0, Some(1), true), copy(0, 0), Event::DeviceDropped];
    for (sequence, event) in (1..).zip(events) {
        checker.add(&Record { sequence, time: 0, fields: event.to_fields() });
    }
    let verdict = checker.finish(&header(5, 0, true));
    assert_eq!((verdict.total, verdict.under_way), (0, 1));
    let promised = [start(0, Some(1), false), end(0, DONE), Event::DeviceDropped];
    assert_eq!(broken(&promised), [(5, Rule::Signals)], "what had completed had to signal");
}

#[test]
fn a_log_that_was_cut_off_does_not_blame_what_it_cannot_know() {
    let steps = || setup().into_iter().chain([start(0, Some(1), true)]).map(Step::Is);
    assert_eq!(check_steps(steps(), 0, false), []);
    assert_eq!(check_steps(steps(), 5, true), [(0, Rule::Complete)], "only the drops themselves");
}

#[test]
fn holes_are_findings_and_end_what_is_known() {
    let steps = [Step::Is(enabled()), Step::Hole(3), Step::Is(copy(0, 0)), Step::Is(end(7, DONE)), Step::Is(fence(9))];
    assert_eq!(check_steps(steps, 0, true), [(5, Rule::Complete)]);
    assert_eq!(check_steps([Step::Is(enabled()), Step::Hole(1)], 0, true), [(0, Rule::Complete)], "also at the end");
    assert_eq!(check_steps([Step::Hole(1), Step::Is(enabled())], 0, true), [(2, Rule::Complete)], "also at the start");
}

#[test]
fn promised_signals_must_come() {
    assert_eq!(broken(&[start(0, Some(1), false), end(0, DONE)]), [(4, Rule::Signals)]);
    assert_eq!(broken(&[start(0, None, true), end(0, DONE)]), [(4, Rule::Signals)]);
    let next = [start(0, Some(1), true), end(0, DONE), start(1, None, false), end(1, DONE)];
    assert_eq!(broken(&next), [(5, Rule::Signals), (5, Rule::Signals)]);
    assert_eq!(broken(&[start(0, None, false), end(0, DONE), fence(3)]), [(5, Rule::Signals)], "nor unasked");
}

#[test]
fn fences_rise_until_the_channel_begins_anew() {
    let one = |position, value| [start(position, Some(value), false), fence(value), end(position, DONE)];
    assert_eq!(broken(&[one(0, 5), one(1, 6)].concat()), []);
    assert_eq!(broken(&[one(0, 5), one(1, 5)].concat()), [(7, Rule::FenceRises)]);
    assert_eq!(broken(&[one(0, 5), one(1, 4)].concat()), [(7, Rule::FenceRises)]);
    let mut anew = one(0, 5).to_vec();
    anew.extend([Event::ChannelReset { channel: 0 }, enabled()]);
    anew.extend(one(0, 1));
    assert_eq!(broken(&anew), []);
}

#[test]
fn commands_run_on_enabled_channels() {
    let run = [start(0, None, false), end(0, DONE)];
    assert_eq!(check_steps(run.map(Step::Is), 0, true), [(1, Rule::CommandOrder)], "never enabled");
    assert_eq!(broken(&[&[Event::ChannelReset { channel: 0 }], &run[..]].concat()), [(4, Rule::CommandOrder)]);
    assert_eq!(broken(&[&[error(ErrorCode::BadPut)], &run[..]].concat()), [(4, Rule::CommandOrder)]);
    let disabled = Event::ChannelDisabled { channel: 0 };
    assert_eq!(broken(&[&[disabled], &run[..]].concat()), [], "it may have been fetched before");
    assert_eq!(broken(&[&[disabled], &run[..], &run[..]].concat()), [(6, Rule::CommandOrder)], "this one not");
    assert_eq!(broken(&[end(0, DONE)]), [(3, Rule::CommandOrder)]);
    assert_eq!(broken(&[start(0, None, false), end(1, DONE)]), [(4, Rule::CommandOrder)]);
}

#[test]
fn work_belongs_to_a_command() {
    assert_eq!(broken(&[copy(0, 0)]), [(3, Rule::WorkInCommand)]);
    let after = [start(0, None, false), Event::ChannelReset { channel: 0 }, copy(0, 0)];
    assert_eq!(broken(&after), [(5, Rule::WorkInCommand)]);
}

#[test]
fn dma_ends_with_bus_mastering() {
    let off = Event::BusMaster { enabled: false };
    let late = [start(0, None, false), off, copy(0, 0), end(0, DONE)];
    assert_eq!(broken(&late), [], "that copy may have been under way");
    let later = [start(0, None, false), off, copy(0, 0), copy(0, 0), end(0, DONE)];
    assert_eq!(broken(&later), [(6, Rule::BusMaster)], "the second one was not");
    let again = [off, setup()[0], start(0, None, false), copy(0, 0), end(0, DONE)];
    assert_eq!(broken(&again), []);
    let run = [enabled(), start(0, None, false), copy(0, 0), end(0, DONE)];
    let after = |source| broken(&[&[Event::Reset { source }], &run[..]].concat());
    assert_eq!(after(ResetSource::FunctionLevel), [(6, Rule::BusMaster)], "a reset takes mastership away");
    assert_eq!(after(ResetSource::Register), [], "but that of the register keeps config space");
    let never = [enabled(), start(0, None, false), copy(0, 0), end(0, DONE)];
    assert_eq!(check_steps(never.map(Step::Is), 0, true), [(3, Rule::BusMaster)]);
    let within = Event::Fill {
        channel: 0,
        engine: 0,
        cause: Cause::Other,
        destination: Location::vram(0),
        length: 8,
        pattern: 0,
        tag: 0,
    };
    assert_eq!(broken(&[off, start(0, None, false), within, end(0, DONE)]), [], "VRAM needs no bus");
}

#[test]
fn dma_stays_in_mapped_memory() {
    let map = |address, writable| Event::DmaMap { address, length: 0x1000, writable };
    let run = |address| [start(0, None, false), copy(address, 0), end(0, DONE)];
    let with = |events: &[Event], address| broken(&[events, &run(address)].concat());
    assert_eq!(with(&[map(0x1000, true)], 0x1000), []);
    assert_eq!(with(&[map(0x1000, false), map(0x2000, true)], 0x1800), [], "maps side by side");
    assert_eq!(with(&[map(0x1000, true), map(0x3000, true)], 0x1800), [(6, Rule::DmaMapped)], "a gap");
    assert_eq!(with(&[map(0x1000, true)], 0), [(5, Rule::DmaMapped)]);
    let unmap = Event::DmaUnmap { address: 0x1000, length: 0x1000 };
    assert_eq!(with(&[map(0x1000, true), unmap], 0x1000), [(6, Rule::DmaMapped)]);
    let race = [map(0x1000, true), start(0, None, false), unmap, copy(0x1000, 0), copy(0x1000, 0), end(0, DONE)];
    assert_eq!(broken(&race), [(7, Rule::DmaMapped)], "the first one may have been under way");
    let signal = [map(0x2000, false), start(0, Some(1), false), fence(1), end(0, DONE)];
    assert_eq!(broken(&signal), [(5, Rule::DmaMapped)], "a fence is written");
    assert_eq!(broken(&[Event::DmaMap { address: u64::MAX, length: 2, writable: true }]), [(3, Rule::DmaMapped)]);
}

#[test]
fn vram_accesses_stay_in_vram() {
    assert_eq!(broken(&[start(0, None, false), copy(0, VRAM - 4096), end(0, DONE)]), []);
    assert_eq!(broken(&[start(0, None, false), copy(0, VRAM - 8), end(0, DONE)]), [(4, Rule::VramRange)]);
    assert_eq!(broken(&[start(0, None, false), copy(0, u64::MAX - 8), end(0, DONE)]), [(4, Rule::VramRange)]);
}

#[test]
fn findings_are_bounded() {
    let mut checker = Checker::new(0);
    for sequence in 1..=MAX_FINDINGS as u64 + 10 {
        checker.add(&Record { sequence, time: 0, fields: copy(0, 0).to_fields() });
    }
    let verdict = checker.finish(&header(MAX_FINDINGS as u64 + 10, 0, true));
    assert_eq!(verdict.findings.len(), MAX_FINDINGS);
    assert!(verdict.total > MAX_FINDINGS as u64);
}

proptest! {
    #[test]
    fn any_records_are_survived(records in proptest::collection::vec((proptest::array::uniform8(any::<u64>()), 0u8..96), 0..200)) {
        let mut checker = Checker::new(VRAM);
        let mut summary = crate::trace::Summary::default();
        for (words, kind) in &records {
            let mut record = Record::from_words(words);
            record.fields.kind = *kind;
            record.fields.cause %= 1 + Cause::ALL.len() as u8;
            record.fields.status %= 16;
            record.fields.detail &= 0x11;
            checker.add(&record);
            summary.add(&record);
        }
        summary.finish(&header(u64::MAX, 1, true));
        prop_assert_eq!(summary.records, records.len() as u64);
        prop_assert_eq!(checker.finish(&header(u64::MAX, 1, true)).records, records.len() as u64);
    }
}

#[test]
fn what_a_rule_makes_the_device_do_is_not_held_against_it() {
    let fired = |action, at: &str| {
        let at = Kind::from_name(at).unwrap().number();
        Event::from(InjectionEvent::RuleFired { rule: 1, action, at, channel: Some(0) })
    };
    let command = [start(0, Some(1), true), end(0, ErrorCode::None)];
    let check = |between: &[Event]| broken(&[&command[..1], between, &command[1..]].concat()).len();
    let fence = Event::Fence { channel: 0, engine: 0, value: 1, address: 0x2000 };
    assert_eq!(check(&[]), 2, "neither fence nor interrupt");
    assert_eq!(check(&[fence]), 1);
    assert_eq!(check(&[fence, fired(ActionKind::Drop, "interrupt")]), 0);
    assert_eq!(check(&[fence, fired(ActionKind::Delay, "interrupt")]), 0, "it may come later");
    assert_eq!(check(&[fence, fired(ActionKind::Reorder, "interrupt")]), 0, "it may come behind the next one");
    assert_eq!(check(&[fired(ActionKind::Drop, "fence"), fired(ActionKind::Drop, "interrupt")]), 0);
    assert_eq!(
        check(&[fired(ActionKind::Delay, "fence"), fired(ActionKind::Drop, "interrupt")]),
        1,
        "late is not never"
    );
    assert_eq!(check(&[fired(ActionKind::Double, "fence")]), 2);
}

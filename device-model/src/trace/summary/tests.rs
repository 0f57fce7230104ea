// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What each event adds to the figures.

use ersatz_abi::command::Location;
use ersatz_abi::fault::{FaultKind, FaultRecord};

use super::*;
use crate::trace::{Identity, Loss, NotificationEvent};

fn header(claimed: u64) -> Header {
    Header {
        identity: Identity::default(),
        capacity: 100,
        epoch: 0,
        process: 0,
        abi_version: 0,
        claimed,
        dropped: 2,
        closed: true,
    }
}

fn summary(events: &[(u64, Event)]) -> Summary {
    let mut summary = Summary::default();
    for (index, (time, event)) in events.iter().enumerate() {
        summary.add(&Record { sequence: index as u64 + 1, time: *time, fields: event.to_fields() });
    }
    summary.finish(&header(events.len() as u64 + 3));
    summary
}

fn start(channel: u8) -> Event {
    Event::CommandStart {
        channel,
        engine: 0,
        position: 0,
        opcode: Opcode::Copy,
        cause: Cause::CpuFault,
        count: 1,
        address: 0,
        fence: None,
        interrupt: false,
        tag: 0,
    }
}

fn end(channel: u8, error: ErrorCode) -> Event {
    Event::CommandEnd {
        channel,
        engine: 0,
        position: 0,
        opcode: Opcode::Copy,
        cause: Cause::CpuFault,
        error,
        bytes: 0,
        tag: 0,
    }
}

fn copy(source: Aperture, destination: Aperture, cause: Cause, length: u64) -> Event {
    let at = |aperture| Location { aperture, peer: 0, address: 0 };
    Event::Copy { channel: 0, engine: 0, cause, source: at(source), destination: at(destination), length, tag: 0 }
}

#[test]
fn copies_are_kept_apart_by_direction_and_cause() {
    use Aperture::{System, Vram};
    let summary = summary(&[
        (0, copy(System, Vram, Cause::MigrateToDevice, 2 << 20)),
        (1, copy(System, Vram, Cause::MigrateToDevice, 4096)),
        (2, copy(Vram, System, Cause::CpuFault, 4096)),
        (3, copy(Vram, System, Cause::Evict, 8)),
        (4, copy(Vram, Vram, Cause::Other, 4096)),
        (5, copy(System, System, Cause::Other, 4096)),
    ]);
    let to_vram = summary.copied(Direction::ToVram);
    assert_eq!(to_vram, Traffic { entries: 2, pages: 513, bytes: (2 << 20) + 4096 });
    assert_eq!(summary.copied(Direction::ToSystem).bytes, 4104);
    assert_eq!(summary.copied_for(Cause::Evict), Traffic { entries: 1, pages: 1, bytes: 8 });
    assert_eq!(summary.copied_in_all().entries, 6);
    assert_eq!(summary.dma_read, (2 << 20) + 4096 + 4096);
    assert_eq!(summary.dma_written, 4096 + 8 + 4096);
}

#[test]
fn active_time_is_that_of_any_command() {
    let done = ErrorCode::None;
    let summary = summary(&[
        (100, start(0)),
        (110, start(1)),
        (150, end(0, done)),
        (160, end(1, ErrorCode::DmaRead)),
        (1000, start(0)),
        (1005, Event::ChannelReset { channel: 0 }),
        (2000, start(0)),
        (2007, Event::Mark { value: 0 }),
    ]);
    assert_eq!((summary.duration(), summary.active), (1907, 60 + 5 + 7));
    assert_eq!(summary.commands_in_all(), Commands { started: 4, completed: 1, failed: 1 });
    assert_eq!(summary.cpu_fault_commands, 1);
}

#[test]
fn what_the_log_lacks_is_told_apart() {
    let mut unknown = Event::DeviceDropped.to_fields();
    unknown.kind = 200;
    let mut summary = Summary::default();
    summary.add(&Record { sequence: 2, time: 0, fields: unknown });
    summary.finish(&header(5));
    assert_eq!((summary.records, summary.unknown, summary.dropped, summary.missing), (1, 1, 2, 2));
}

#[test]
fn a_released_interrupt_was_raised_before() {
    let interrupt = |outcome| Event::Interrupt { vector: 1, channel: None, outcome };
    let summary = summary(&[
        (0, interrupt(InterruptOutcome::Pending)),
        (1, interrupt(InterruptOutcome::Released)),
        (2, interrupt(InterruptOutcome::Sent)),
        (3, interrupt(InterruptOutcome::Lost)),
    ]);
    assert_eq!(summary.interrupts_raised(), 2);
}

#[test]
fn virtual_memory_has_its_figures() {
    assert!(!summary(&[(0, start(0))]).memory.is_used());
    let access = |kind, location| {
        MmuEvent::Access { channel: 0, engine: 0, asid: 1, kind, address: 0, location, length: 100 }.into()
    };
    let record = FaultRecord {
        address: 0,
        asid: 1,
        channel: 0,
        engine: 0,
        access: AccessKind::Prefetch,
        kind: FaultKind::NotPresent,
        level: 3,
        timestamp: 0,
        number: 1,
    };
    let summary = summary(&[
        (0, access(AccessKind::Read, Location::system(0))),
        (1, access(AccessKind::Atomic, Location::system(0))),
        (2, access(AccessKind::Write, Location::vram(0))),
        (3, NotificationEvent::FaultRecorded { record, position: 0 }.into()),
        (4, NotificationEvent::FaultDropped { record, loss: Loss::HalfFull }.into()),
        (5, NotificationEvent::Replay { channels: 1 }.into()),
    ]);
    assert_eq!((summary.dma_read, summary.dma_written), (200, 100), "an atomic reads and writes");
    let memory = summary.memory;
    assert_eq!(memory.accessed[&(AccessKind::Write, Aperture::Vram)], 100);
    assert_eq!((memory.faults_in_all(), memory.prefetch_faults, memory.replays), (1, 1, 1));
    assert_eq!(memory.faults_dropped, [(Loss::HalfFull, 1)].into());
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The rules of memory that the host demands.

use super::*;
use crate::trace::MemoryEvent;

const DONE: ErrorCode = ErrorCode::None;

fn handed_over(address: u64, length: u64) -> Event {
    MemoryEvent::HandedOver { page: Location::vram(address), length }.into()
}

fn returned(address: u64, length: u64) -> Event {
    MemoryEvent::Returned { page: Location::vram(address), length }.into()
}

/// A command before these events, and one behind them that copies to VRAM.
fn copied_behind(events: &[Event], vram: u64) -> Vec<(u64, Rule)> {
    let first = [start(0, None, false), copy(0, 0x8_0000), end(0, DONE)];
    let second = [start(1, None, false), copy(0, vram), end(1, DONE)];
    broken(&[&first, events, &second].concat())
}

#[test]
fn memory_that_was_handed_over_is_not_accessed() {
    let handed = [handed_over(0x4000, 0x4000)];
    assert_eq!(copied_behind(&handed, 0x6000), [(8, Rule::HandedOver)]);
    assert_eq!(copied_behind(&handed, 0x3008), [(8, Rule::HandedOver)], "a part of it");
    for beside in [0x3000, 0x8000] {
        assert_eq!(copied_behind(&handed, beside), []);
    }
    let work = [start(0, None, false), handed[0], copy(0, 0x4000), end(0, DONE)];
    assert_eq!(broken(&work), [], "it may have been done before");
}

#[test]
fn memory_that_was_returned_is() {
    let handed = [handed_over(0x2000, 0x2000), handed_over(0x1000, 0x4000), returned(0x3000, 0x1000)];
    assert_eq!(copied_behind(&handed, 0x3000), []);
    for other in [0x1000, 0x2000, 0x4000] {
        assert_eq!(copied_behind(&handed, other).len(), 1, "{other:#x}");
    }
    assert_eq!(copied_behind(&[handed[0], returned(0, 0x10_0000)], 0x2000), []);
    let reset = Event::Reset { source: ResetSource::Register };
    assert_eq!(
        copied_behind(&[handed[0], reset, enabled()], 0x2000),
        [(10, Rule::HandedOver)],
        "a reset returns nothing"
    );
}

#[test]
fn a_demand_is_answered_in_time_by_a_driver_that_was_told() {
    let range = Location::vram(0);
    let demanded = |number| MemoryEvent::Demanded { number, range, length: VRAM, bytes: 4096, deadline: 5 }.into();
    let expired = |number| MemoryEvent::Expired { number, given: 0, deadline: 5 }.into();
    let answered = |number| MemoryEvent::Answered { number, given: 4096 }.into();
    let told = |outcome| Event::Interrupt { vector: 0, channel: None, outcome };
    let sent = told(InterruptOutcome::Sent);
    let reset = Event::Reset { source: ResetSource::Register };
    let late = |events: &[Event]| {
        let all = [events, &[reset, Event::BusMaster { enabled: false }]].concat();
        warnings(&all)
    };
    assert_eq!(late(&[demanded(1), sent, expired(1)]), [(5, Rule::DemandAnswered)]);
    assert_eq!(
        late(&[demanded(1), told(InterruptOutcome::Pending), told(InterruptOutcome::Released), expired(1)]).len(),
        1
    );
    for in_order in [
        &[demanded(1), sent, answered(1)][..],
        &[sent, demanded(1), expired(1)],
        &[demanded(1), told(InterruptOutcome::Lost), expired(1)],
        &[demanded(1), sent, reset, expired(1)],
        &[demanded(1), sent, answered(1), demanded(2), expired(2)],
    ] {
        assert_eq!(late(in_order), [], "{in_order:?}");
    }
    let refused =
        Event::ChannelError { channel: 0, error: ErrorCode::HandedOver, position: 0, entry: 0, address: 0x4000 };
    assert_eq!(late(&[handed_over(0x4000, 0x1000), refused]), [(4, Rule::HandedOver)]);
}

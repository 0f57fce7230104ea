// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each kind of event comes back from its record, and nothing else does; what has been written once stays readable.

use std::collections::BTreeSet;

use ersatz_abi::access_counter::AccessRecord;
use ersatz_abi::command::Aperture;
use ersatz_abi::fault::{AccessKind, FaultKind, FaultRecord};
use ersatz_abi::mmu::{Invalidation, PageSize};
use proptest::prelude::*;
use proptest::strategy::{Union, ValueTree};
use proptest::test_runner::TestRunner;

use super::*;
use crate::trace::filter::Filter;
use crate::trace::{ActionKind, HoldEnd, Kind, Loss, Record, Step};

const FAULT: FaultRecord = FaultRecord {
    address: 0x7fff_ffff_f000,
    asid: 255,
    channel: 63,
    engine: 3,
    access: AccessKind::Prefetch,
    kind: FaultKind::BadAddress,
    level: 4,
    timestamp: u64::MAX,
    number: u64::MAX - 1,
};

const HOT: AccessRecord = AccessRecord {
    region: 0x1_0000,
    asid: 254,
    channel: 62,
    engine: 2,
    aperture: Aperture::Peer,
    timestamp: u64::MAX,
    count: 65_535,
};

/// The words of the records of [`examples`] behind sequence number and time, as the first version of the log wrote them.
const RECORDS: &str = include_str!("records.txt");

/// Events of each kind that [`RECORDS`] has, with fields that differ from one another.
fn examples() -> Vec<Event> {
    let (channel, engine, cause, tag) = (5, 1, Cause::Evict, 77);
    let (source, destination) = (Location::peer(7, 0x1000), Location::vram(0x2000));
    let mut events = vec![
        Event::DeviceCreated { vram: 1 << 40 },
        Event::DeviceDropped,
        Event::Reset { source: ResetSource::Transport },
        Event::BusMaster { enabled: true },
        Event::PowerState { state: 3 },
        Event::BarMoved { bar: 2, address: Some(0), size: 1 << 30 },
        Event::BarMoved { bar: 2, address: None, size: 1 << 30 },
        Event::RegisterWrite { offset: 0x8000, value: u64::MAX, channel: None },
        Event::BadAccess { bar: 4, offset: 3, width: 2, write: true },
        Event::Mark { value: 1 },
        Event::ChannelEnabled { channel, ring: 1, control_block: 2, commands: 3, vector: 4 },
        Event::ChannelDisabled { channel },
        Event::ChannelReset { channel },
        Event::ChannelError { channel, error: ErrorCode::MmuFault, position: 1, entry: 2, address: 3 },
        Event::Doorbell { channel, rings: 2 },
        Event::CommandStart {
            channel,
            engine,
            position: 1,
            opcode: Opcode::Prefetch,
            cause,
            count: 1 << 40,
            address: 3,
            fence: Some(4),
            interrupt: true,
            tag,
        },
        Event::CommandEnd {
            channel,
            engine,
            position: 1,
            opcode: Opcode::Chase,
            cause,
            error: ErrorCode::DmaRead,
            bytes: 2,
            tag,
        },
        Event::Copy { channel, engine, cause, source, destination, length: 8, tag },
        Event::Fill { channel, engine, cause, destination: source, length: 8, pattern: 9, tag },
        Event::Digest { channel, engine, cause, source, destination, length: 8, digest: 9, tag },
        Event::Fence { channel, engine, value: 1, address: 2 },
        Event::Interrupt { vector: 31, channel: Some(channel), outcome: InterruptOutcome::Lost },
        Event::DmaMap { address: 1, length: 2, writable: true },
        Event::DmaUnmap { address: 1, length: 2 },
    ];
    let range = Invalidation::Range { asid: 9, address: 0x1000, length: 1 };
    let access = |kind| MmuEvent::Access { channel, engine, asid: 9, kind, address: 1, location: source, length: 3 };
    let page =
        |page, size, write, atomic| MmuEvent::TlbFill { engine, asid: 9, address: 1 << 21, page, size, write, atomic };
    events.extend(
        [
            MmuEvent::AddressSpaceEnabled { asid: 9, root: u64::MAX, control: u32::MAX },
            MmuEvent::AddressSpaceDisabled { asid: 9 },
            page(source, PageSize::Small, false, true),
            page(Location::system(0x4000), PageSize::Big, true, false),
            page(destination, PageSize::Huge, true, true),
            access(AccessKind::Write),
            access(AccessKind::Atomic),
            MmuEvent::InvalidateRequested { number: 4, invalidation: range, channel: Some(channel) },
            MmuEvent::InvalidateRequested { number: 5, invalidation: Invalidation::AddressSpace(9), channel: None },
            MmuEvent::InvalidateRequested { number: 6, invalidation: Invalidation::All, channel: None },
            MmuEvent::InvalidateAcknowledged { number: 4 },
        ]
        .map(Event::from),
    );
    events.extend(
        [
            NotificationEvent::FaultRecorded { record: FAULT, position: u32::MAX },
            NotificationEvent::FaultDropped { record: FAULT, loss: Loss::HalfFull },
            NotificationEvent::Replay { channels: u64::MAX },
            NotificationEvent::FaultCancelled { channel, address: 3, position: 4 },
            NotificationEvent::AccessNotification { record: HOT, position: u32::MAX },
            NotificationEvent::AccessNotificationDropped { record: HOT, loss: Loss::DmaError },
        ]
        .map(Event::from),
    );
    events.extend(
        [
            InjectionEvent::BreakpointHeld {
                breakpoint: 3,
                hold: 4,
                step: Step::BeforeReplay,
                channel: Some(channel),
                engine: Some(engine),
                address: Some(0x1000),
            },
            InjectionEvent::BreakpointHeld {
                breakpoint: 3,
                hold: 5,
                step: Step::BeforeInvalidationAck,
                channel: None,
                engine: None,
                address: None,
            },
            InjectionEvent::BreakpointResumed {
                breakpoint: 3,
                hold: 4,
                step: Step::CommandFetched,
                how: HoldEnd::Deadline,
                channel: Some(channel),
            },
            InjectionEvent::RuleFired { rule: 6, action: ActionKind::SetState, at: 37, channel: None },
        ]
        .map(Event::from),
    );
    events
}

#[test]
fn every_kind_comes_back_from_its_record() {
    let mut kinds = BTreeSet::new();
    for event in examples() {
        let words = event.to_fields().to_words(1, 2);
        assert_eq!(Record::from_words(&words).event(), Some(event));
        kinds.insert(event.kind());
    }
    for strategy in Event::strategies() {
        let event = strategy.new_tree(&mut TestRunner::deterministic()).unwrap().current();
        kinds.insert(event.kind());
    }
    assert_eq!(kinds, Kind::ALL.iter().copied().collect(), "each kind has an example");
}

#[test]
fn records_keep_their_layout() {
    let examples = examples();
    assert_eq!(RECORDS.lines().count(), examples.len());
    for (line, event) in RECORDS.lines().zip(examples) {
        let mut words = [0; 8];
        for (word, text) in words[2..].iter_mut().zip(line.split(' ')) {
            *word = u64::from_str_radix(text, 16).unwrap();
        }
        assert_eq!(event.to_fields().to_words(0, 0), words, "{event:?}");
        assert_eq!(Record::from_words(&words).event(), Some(event));
    }
}

#[test]
fn an_event_knows_its_channel_and_address_space() {
    let fault = Event::from(NotificationEvent::FaultDropped { record: FAULT, loss: Loss::Off });
    assert_eq!((fault.channel(), fault.asid()), (Some(63), Some(255)));
    let disabled = Event::from(MmuEvent::AddressSpaceDisabled { asid: 9 });
    assert_eq!((disabled.channel(), disabled.asid()), (None, Some(9)));
    let all =
        Event::from(MmuEvent::InvalidateRequested { number: 1, invalidation: Invalidation::All, channel: Some(3) });
    assert_eq!((all.channel(), all.asid()), (Some(3), None));
}

proptest! {
    /// A record of any known kind with some byte or word changed is refused, or is an event with that very record.
    #[test]
    fn a_damaged_record_is_refused_or_says_something_else(
        index in any::<prop::sample::Index>(),
        word in 2usize..8,
        value: u64,
        byte in prop::option::of(0u32..8),
    ) {
        let examples = examples();
        let mut words = index.get(&examples).to_fields().to_words(1, 2);
        match byte {
            Some(byte) => words[word] = words[word] & !(0xff << (8 * byte)) | (value & 0xff) << (8 * byte),
            None => words[word] = value,
        }
        if let Some(event) = Record::from_words(&words).event() {
            prop_assert_eq!(Event::from_fields(&event.to_fields()), Some(event));
            prop_assert_eq!(event.kind().number(), (words[2] & 0xff) as u8);
        }
    }

    /// Any event of any kind comes back from its record, is shown with every name once, and is found by what it is about.
    #[test]
    fn every_event_is_written_read_shown_and_found(event in Union::new(Event::strategies()), device: u8) {
        let mut fields = event.to_fields();
        fields.device = device;
        let record = Record::from_words(&fields.to_words(1, 2));
        prop_assert_eq!(record.event(), Some(event));
        prop_assert_eq!(record.kind(), Some(event.kind()));
        let shown = event.shown();
        let columns = ["sequence", "time_ns", "device", "kind", "channel", "cause"];
        let names: BTreeSet<&str> = shown.iter().map(|(name, _)| *name).chain(columns).collect();
        prop_assert_eq!(names.len(), shown.len() + columns.len(), "a name for two fields in {:?}", shown);
        let (kind, subject) = (event.kind().name().parse().unwrap(), event.subject());
        let filter = Filter {
            kinds: vec![kind],
            causes: subject.cause.into_iter().collect(),
            channels: subject.channel.into_iter().collect(),
            engines: subject.engine.into_iter().collect(),
            asids: subject.asid.into_iter().collect(),
            ..Filter::default()
        };
        prop_assert!(filter.matches(&record, 0));
        for (name, value) in shown {
            if let (Value::Address(address), true) = (value, ["address", "tag", "ring", "region"].contains(&name)) {
                prop_assert!(event.is_about(Range::point(address)), "{} {:#x}", name, address);
            }
        }
    }
}

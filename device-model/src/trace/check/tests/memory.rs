// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The rules of virtual memory: translations, what is accessed through them, and faults.

use ersatz_abi::access_counter::AccessRecord;
use ersatz_abi::command::Aperture;
use ersatz_abi::fault::{AccessKind, FaultKind, FaultRecord};
use ersatz_abi::mmu::{Invalidation, PageSize};

use super::*;
use crate::trace::{Loss, MmuEvent, NotificationEvent};

const ENGINE: u8 = 1;
const ASID: u8 = 7;
const PAGE: u64 = 0x7f00_0020_0000;

fn filled(address: u64, page: Location, size: PageSize) -> Event {
    MmuEvent::TlbFill { engine: ENGINE, asid: ASID, address, page, size, write: true, atomic: false }.into()
}

/// A page of 4 KiB at [`PAGE`] that leads to the start of VRAM.
fn small() -> Event {
    filled(PAGE, Location::vram(0), PageSize::Small)
}

fn accessed(kind: AccessKind, offset: u64, location: Location, length: u64) -> Event {
    let address = PAGE + offset;
    MmuEvent::Access { channel: 0, engine: ENGINE, asid: ASID, kind, address, location, length }.into()
}

/// The first bytes of [`PAGE`] were read from the start of VRAM.
fn read() -> Event {
    accessed(AccessKind::Read, 0, Location::vram(0), 8)
}

fn request(number: u64, invalidation: Invalidation) -> Event {
    MmuEvent::InvalidateRequested { number, invalidation, channel: None }.into()
}

fn acknowledge(number: u64) -> Event {
    MmuEvent::InvalidateAcknowledged { number }.into()
}

fn range(address: u64, length: u64) -> Invalidation {
    Invalidation::Range { asid: ASID, address, length }
}

/// The broken rules when these happen in a command, whose start is record 3.
#[track_caller]
fn in_command(events: &[Event]) -> Vec<(u64, Rule)> {
    broken(&[&[start(0, None, false)], events, &[end(0, DONE)]].concat())
}

const STALE: Rule = Rule::StaleTranslation;

#[test]
fn an_access_rests_on_a_translation_of_its_engine() {
    assert_eq!(in_command(&[small(), read(), read()]), []);
    assert_eq!(in_command(&[read()]), [(4, STALE)], "never filled");
    assert_eq!(in_command(&[read(), small()]), [(4, STALE)], "filled too late");
    let other = |engine, asid| {
        let page = Location::vram(0);
        MmuEvent::TlbFill { engine, asid, address: PAGE, page, size: PageSize::Huge, write: true, atomic: true }
    };
    assert_eq!(in_command(&[other(ENGINE + 1, ASID).into(), read()]), [(5, STALE)], "another engine's");
    assert_eq!(in_command(&[other(ENGINE, ASID + 1).into(), read()]), [(5, STALE)], "another address space's");
}

#[test]
fn an_access_stays_in_its_page_and_its_rights() {
    let write = |offset, at, length| accessed(AccessKind::Write, offset, Location::vram(at), length);
    assert_eq!(in_command(&[small(), write(8, 8, 4088)]), []);
    assert_eq!(in_command(&[small(), write(8, 8, 4089)]), [(5, STALE)], "beyond the page");
    assert_eq!(in_command(&[small(), write(8, 16, 8)]), [(5, STALE)], "elsewhere in it");
    assert_eq!(in_command(&[small(), accessed(AccessKind::Read, 0, Location::system(0), 8)]), [(5, STALE)]);
    assert_eq!(in_command(&[small(), accessed(AccessKind::Atomic, 0, Location::vram(0), 8)]), [(5, STALE)]);
    let read_only = MmuEvent::TlbFill {
        engine: ENGINE,
        asid: ASID,
        address: PAGE,
        page: Location::vram(0),
        size: PageSize::Small,
        write: false,
        atomic: true,
    };
    assert_eq!(in_command(&[read_only.into(), read()]), []);
    assert_eq!(in_command(&[read_only.into(), write(0, 0, 8)]), [(5, STALE)]);
    assert_eq!(in_command(&[read_only.into(), accessed(AccessKind::Atomic, 0, Location::vram(0), 8)]), [(5, STALE)]);
}

#[test]
fn what_was_forgotten_is_not_used() {
    for invalidation in [Invalidation::All, Invalidation::AddressSpace(ASID), range(PAGE, 1), range(PAGE + 4095, 9)] {
        let (request, acknowledge) = (request(1, invalidation), acknowledge(1));
        assert_eq!(in_command(&[small(), request, acknowledge, read()]), [(7, STALE)], "{invalidation:?}");
        assert_eq!(in_command(&[small(), request, read(), acknowledge]), [], "not acknowledged yet");
        assert_eq!(in_command(&[small(), request, acknowledge, small(), read()]), [], "filled again");
        assert_eq!(in_command(&[request, small(), acknowledge, read()]), [], "perhaps filled after it was forgotten");
    }
    for invalidation in
        [Invalidation::AddressSpace(ASID + 1), range(PAGE + 4096, 4096), range(PAGE - 1, 1), range(0, PAGE)]
    {
        let events = [small(), request(1, invalidation), acknowledge(1), read()];
        assert_eq!(in_command(&events), [], "{invalidation:?} is about something else");
    }
}

#[test]
fn an_acknowledgement_covers_all_that_was_asked_for_before() {
    let (one, all) = (request(1, range(PAGE, 8)), request(2, Invalidation::AddressSpace(ASID + 1)));
    assert_eq!(in_command(&[small(), one, all, acknowledge(2), read()]), [(8, STALE)]);
    assert_eq!(in_command(&[small(), one, all, acknowledge(1), read()]), [(8, STALE)]);
    assert_eq!(in_command(&[small(), all, request(3, range(PAGE, 8)), acknowledge(2), read()]), []);
}

#[test]
fn large_pages_are_forgotten_by_any_byte() {
    let huge = filled(PAGE, Location::vram(0), PageSize::Huge);
    let far = accessed(AccessKind::Read, 0x8000, Location::vram(0x8000), 8);
    let elsewhere = request(1, range(PAGE + (1 << 21) - 1, 1));
    assert_eq!(in_command(&[huge, far, elsewhere, acknowledge(1), far]), [(8, STALE)]);
    let big = filled(PAGE, Location::vram(0), PageSize::Big);
    assert_eq!(in_command(&[big, elsewhere, acknowledge(1), far]), [], "outside of a page of 64 KiB");
}

#[test]
fn any_of_several_translations_may_be_used() {
    let huge = filled(PAGE, Location::vram(0x8_0000), PageSize::Huge);
    let there = accessed(AccessKind::Read, 0, Location::vram(0x8_0000), 8);
    assert_eq!(in_command(&[small(), huge, read(), there, read()]), [], "the driver has not invalidated yet");
    let forget = [request(1, range(PAGE, 1)), acknowledge(1)];
    let huge_again = [&[small(), huge], &forget[..], &[huge, read()]].concat();
    assert_eq!(in_command(&huge_again), [(9, STALE)], "now it has");
}

#[test]
fn a_reset_forgets_translations_and_invalidations() {
    let reset = Event::Reset { source: ResetSource::Register };
    let run = |events: &[Event]| broken(&[&[small(), reset, enabled(), start(0, None, false)], events].concat());
    assert_eq!(run(&[read(), end(0, DONE)]), [(7, STALE)]);
    assert_eq!(run(&[small(), acknowledge(1), read(), end(0, DONE)]), []);
}

#[test]
fn behind_a_hole_translations_are_not_known_until_all_are_forgotten() {
    let steps = |events: &[Event]| {
        let begin = [Step::Is(setup()[0]), Step::Is(enabled()), Step::Is(start(0, None, false)), Step::Hole(1)];
        check_steps(begin.into_iter().chain(events.iter().copied().map(Step::Is)), 0, false)
    };
    let hole = (5, Rule::Complete);
    assert_eq!(steps(&[read(), read()]), [hole]);
    assert_eq!(steps(&[read(), request(9, range(PAGE, 8)), acknowledge(9), read()]), [hole], "not all of them");
    assert_eq!(steps(&[read(), request(9, Invalidation::All), acknowledge(9), read()]), [hole, (8, STALE)]);
    assert_eq!(steps(&[small(), request(9, range(PAGE, 8)), acknowledge(9), read()]), [hole, (8, STALE)]);
}

#[test]
fn accesses_are_work_and_obey_its_rules() {
    assert_eq!(broken(&[small(), read()]), [(4, Rule::WorkInCommand)]);
    let mapped = |writable| Event::DmaMap { address: 0x1000, length: 0x1000, writable };
    let page = filled(PAGE, Location::system(0x1000), PageSize::Small);
    let at = |kind| accessed(kind, 0, Location::system(0x1000), 8);
    assert_eq!(in_command(&[mapped(false), page, at(AccessKind::Read)]), []);
    assert_eq!(in_command(&[mapped(false), page, at(AccessKind::Write)]), [(6, Rule::DmaMapped)]);
    let beyond = filled(PAGE, Location::system(0x2000), PageSize::Small);
    let there = accessed(AccessKind::Read, 0, Location::system(0x2000), 8);
    assert_eq!(in_command(&[mapped(true), beyond, there]), [(6, Rule::DmaMapped)]);
    let off = Event::BusMaster { enabled: false };
    let both = [page, off, at(AccessKind::Read), at(AccessKind::Read)];
    assert_eq!(in_command(&both), [(7, Rule::BusMaster)], "the first may have been under way");
    let end = filled(PAGE, Location::vram(VRAM), PageSize::Small);
    assert_eq!(in_command(&[end, accessed(AccessKind::Read, 0, Location::vram(VRAM), 8)]), [(5, Rule::VramRange)]);
}

fn record(access: AccessKind) -> FaultRecord {
    FaultRecord {
        address: PAGE,
        asid: ASID,
        channel: 0,
        engine: ENGINE,
        access,
        kind: FaultKind::NotPresent,
        level: 2,
        timestamp: 0,
        number: 1,
    }
}

fn fault(access: AccessKind) -> Event {
    NotificationEvent::FaultRecorded { record: record(access), position: 0 }.into()
}

/// The broken rules of a life whose driver leaves after these events, in a command whose start is record 3.
fn life(events: &[Event]) -> Vec<(u64, Rule)> {
    let leaves = [Event::BusMaster { enabled: false }, Event::DeviceDropped];
    broken(&[&[start(0, None, false)], events, &leaves].concat())
}

#[test]
fn every_fault_gets_an_answer() {
    let fault = fault(AccessKind::Read);
    assert_eq!(life(&[fault]), [(6, Rule::FaultAnswered)]);
    assert_eq!(life(&[fault, fault]), [(7, Rule::FaultAnswered)], "one finding a channel");
    let replay = |channels| Event::from(NotificationEvent::Replay { channels });
    for answer in [
        replay(0b1),
        NotificationEvent::FaultCancelled { channel: 0, address: 0, position: 0 }.into(),
        Event::ChannelReset { channel: 0 },
        Event::Reset { source: ResetSource::FunctionLevel },
        error(ErrorCode::FaultCancelled),
        end(0, DONE),
    ] {
        assert_eq!(life(&[fault, answer]), [], "{answer:?}");
        assert_eq!(life(&[fault, fault, answer]), [], "all at once");
    }
    for none in
        [replay(0b10), replay(0), NotificationEvent::FaultCancelled { channel: 1, address: 0, position: 0 }.into()]
    {
        assert_eq!(life(&[fault, none]), [(7, Rule::FaultAnswered)], "{none:?} is about another channel");
    }
    assert_eq!(life(&[fault, replay(1), fault]), [(8, Rule::FaultAnswered)], "it faulted again");
}

#[test]
fn records_are_written_with_bus_mastering() {
    let region = AccessRecord {
        region: PAGE,
        asid: ASID,
        channel: 0,
        engine: ENGINE,
        aperture: Aperture::System,
        timestamp: 0,
        count: 9,
    };
    let hot = NotificationEvent::AccessNotification { record: region, position: 0 }.into();
    let off = Event::BusMaster { enabled: false };
    for written in [fault(AccessKind::Prefetch), hot] {
        assert_eq!(in_command(&[written, off, written]), [], "it may have been under way");
        assert_eq!(in_command(&[off, written, written]), [(6, Rule::BusMaster)]);
    }
}

#[test]
fn faults_that_ask_for_no_answer_need_none() {
    assert_eq!(life(&[fault(AccessKind::Prefetch)]), []);
    let lost = NotificationEvent::FaultDropped { record: record(AccessKind::Read), loss: Loss::Overflow };
    assert_eq!(life(&[lost.into()]), [], "the driver does not know of it");
}

#[test]
fn faults_that_a_rule_made_up_need_no_answer() {
    let made_up = |channel| {
        let (action, channel) = (ActionKind::Fault, Some(channel));
        Event::from(InjectionEvent::RuleFired { rule: 1, action, at: 0, channel })
    };
    let fault = fault(AccessKind::Read);
    assert_eq!(life(&[made_up(0), fault, fault]), []);
    assert_eq!(life(&[made_up(1), fault]), [(7, Rule::FaultAnswered)], "they are another channel's");
}

/// How many rules are broken, and how many faults unanswered, when these events follow a command's start and two faults.
fn cut_short(events: &[Event], closed: bool) -> (u64, u64) {
    let begin = [setup()[0], enabled(), start(0, None, false), fault(AccessKind::Write), fault(AccessKind::Write)];
    let mut checker = Checker::new(VRAM);
    let mut records = 0;
    for event in begin.iter().chain(events) {
        records += 1;
        checker.add(&Record { sequence: records, time: 0, fields: event.to_fields() });
    }
    let verdict = checker.finish(&header(records, 0, closed));
    assert_eq!(verdict.under_way, 1);
    (verdict.total, verdict.unanswered)
}

#[test]
fn faults_may_wait_where_a_log_is_cut() {
    assert_eq!(cut_short(&[], false), (0, 2));
}

#[test]
fn faults_may_wait_when_the_device_goes_under_its_driver() {
    assert_eq!(cut_short(&[Event::DeviceDropped], true), (0, 2));
    let resumed = [false, true].map(|enabled| Event::BusMaster { enabled });
    assert_eq!(cut_short(&[resumed[0], resumed[1], Event::DeviceDropped], true), (0, 2), "it had not left for good");
    assert_eq!(cut_short(&[resumed[0], Event::DeviceDropped], true), (1, 0), "it had");
    let steps = [Step::Hole(1), Step::Is(fault(AccessKind::Read)), Step::Is(Event::DeviceDropped)];
    assert_eq!(check_steps(steps, 0, true), [(2, Rule::Complete)], "nobody knows whether it had");
}

/// A TLB as engines have one, an invalidation that takes its time, and a log of both.
#[derive(Clone, Copy, Debug)]
enum Action {
    /// Access a page; walk if it is not held.
    Access(u64),
    /// The driver maps the page elsewhere.
    Remap(u64),
    Request(u64),
    /// The engine forgets what was asked for.
    Forget,
    Acknowledge,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0_u64..4).prop_map(Action::Access),
        2 => (0_u64..4).prop_map(Action::Remap),
        2 => (0_u64..4).prop_map(Action::Request),
        2 => Just(Action::Forget),
        2 => Just(Action::Acknowledge),
    ]
}

/// The log of a TLB that does these things; one that is `broken` never forgets. And whether it used a translation that
/// it should have forgotten.
fn tlb_log(actions: &[Action], broken: bool) -> (Vec<Event>, bool) {
    let mut tables = [0_u64, 1, 2, 3];
    // What is held, and since which request (if any was made after) it must go.
    let mut held: [Option<(u64, usize)>; 4] = [None; 4];
    let mut requests: Vec<u64> = Vec::new();
    let (mut forgotten, mut acknowledged, mut misused) = (0, 0, false);
    let mut events = vec![setup()[0], enabled(), start(0, None, false)];
    for action in actions {
        match *action {
            Action::Access(page) => {
                let slot = page as usize;
                let (frame, since) = *held[slot].get_or_insert_with(|| {
                    let location = Location::vram(tables[slot] * 4096);
                    events.push(filled(PAGE + page * 4096, location, PageSize::Small));
                    (tables[slot], requests.len())
                });
                misused |= requests.get(since..acknowledged).is_some_and(|done| done.contains(&page));
                events.push(accessed(AccessKind::Write, page * 4096, Location::vram(frame * 4096), 8));
            }
            Action::Remap(page) => tables[page as usize] = (tables[page as usize] + 4) % 64,
            Action::Request(page) => {
                requests.push(page);
                events.push(request(requests.len() as u64, range(PAGE + page * 4096, 1)));
            }
            Action::Forget => {
                for page in &requests[forgotten..] {
                    if !broken {
                        held[*page as usize] = None;
                    }
                }
                forgotten = requests.len();
            }
            Action::Acknowledge => {
                for number in acknowledged..forgotten {
                    events.push(acknowledge(number as u64 + 1));
                }
                acknowledged = forgotten;
            }
        }
    }
    (events, misused)
}

proptest! {
    #[test]
    fn a_tlb_that_forgets_is_never_blamed_and_one_that_does_not_always(
        actions in prop::collection::vec(action(), 0..60),
        broken: bool,
    ) {
        let (events, misused) = tlb_log(&actions, broken);
        let findings = check_steps(events.into_iter().map(Step::Is), 0, false);
        prop_assert!(findings.iter().all(|(_, rule)| *rule == STALE), "{findings:?}");
        prop_assert_eq!(!findings.is_empty(), misused);
        prop_assert!(broken || !misused);
    }
}

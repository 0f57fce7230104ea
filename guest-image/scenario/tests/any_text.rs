// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any scenario is read as it is shown, and any text is a scenario or an error.

use std::time::Duration;

use ersatz_scenario::advice;
use ersatz_scenario::call::{
    Awaited, Call, Expectation, Hold, MapOptions, PagemapBit, Point, Protection, Uffd, UffdMode,
};
use ersatz_scenario::disk::{Transfer, UringTransfer};
use ersatz_scenario::parse::VERBS;
use ersatz_scenario::range::{Part, Range, Unit};
use ersatz_scenario::{Aspect, Guest, Process, Scenario, Shows, Step, Symptom, Thread, parse};
use ersatz_uapi::{Direction, MemoryType, PageState};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// Bytes of the range `r`, which every scenario here has.
const SIZE: u64 = 8 << 20;
const PAGE: u64 = 4096;

fn range() -> impl Strategy<Value = Range> {
    let part = (0..SIZE / PAGE, 1..=SIZE / PAGE, any::<bool>()).prop_filter_map("not empty", |(start, end, bytes)| {
        let unit = if bytes { Unit::Bytes } else { Unit::Pages };
        let scale = if bytes { 1 << 20 } else { PAGE };
        let (start, end) = if bytes { (start % 8, end % 8 + 1) } else { (start, end) };
        (start < end).then_some(Part { start: start * scale, end: end * scale, unit })
    });
    option::of(part).prop_map(|part| Range { name: "r".into(), part })
}

fn size() -> impl Strategy<Value = u64> {
    (1..=SIZE / PAGE).prop_map(|pages| pages * PAGE)
}

fn uffd() -> impl Strategy<Value = Uffd> {
    prop_oneof![
        (range(), select(vec![UffdMode::Missing, UffdMode::Wp, UffdMode::WpAsync]))
            .prop_map(|(range, mode)| Uffd::Register { range, mode }),
        range().prop_map(Uffd::Unregister),
        range().prop_map(Uffd::Protect),
        range().prop_map(Uffd::Unprotect),
        (range(), any::<u8>()).prop_map(|(range, byte)| Uffd::Copy { range, byte }),
        range().prop_map(Uffd::Zeropage),
        (range(), range()).prop_map(|(range, from)| Uffd::Move { range, from }),
        range().prop_map(Uffd::Wait),
    ]
}

fn transfer() -> impl Strategy<Value = Transfer> {
    select(vec![Transfer::Read, Transfer::Write])
}

/// A call that any block may have.
fn call() -> impl Strategy<Value = Call> {
    let memory = prop_oneof![
        range().prop_map(Call::Munmap),
        (range(), any::<u8>()).prop_map(|(range, byte)| Call::Fill { range, byte }),
        (range(), any::<u8>()).prop_map(|(range, byte)| Call::Write { range, byte }),
        range().prop_map(Call::Read),
        range().prop_map(Call::Touch),
        (range(), any::<bool>(), any::<bool>()).prop_map(|(range, there, all)| Call::Migrate {
            range,
            direction: if there { Direction::ToDevice } else { Direction::ToSystem },
            all
        }),
        (range(), select(advice::ALL)).prop_map(|(range, advice)| Call::Madvise { range, advice }),
        (range(), select(vec![Protection::None, Protection::Read, Protection::ReadWrite]))
            .prop_map(|(range, protection)| Call::Mprotect { range, protection }),
        (range(), any::<bool>()).prop_map(|(range, keep)| Call::MremapOnto { target: range.clone(), range, keep }),
        size().prop_map(|size| Call::Resize { name: "r".into(), size }),
        (range(), any::<bool>()).prop_map(|(range, on_fault)| Call::Mlock { range, on_fault }),
        range().prop_map(Call::Munlock),
        range().prop_map(Call::ScanWritten),
        range().prop_map(Call::DeviceRead),
        (range(), any::<u8>()).prop_map(|(range, byte)| Call::DeviceWrite { range, byte }),
        (range(), any::<u8>()).prop_map(|(range, byte)| Call::DeviceAdd { range, byte }),
        range().prop_map(Call::Exclusive),
        (range(), transfer()).prop_map(|(range, transfer)| Call::Direct { transfer, range }),
        (range(), transfer(), any::<bool>(), any::<bool>())
            .prop_map(|(range, transfer, direct, fixed)| Call::Uring(UringTransfer { transfer, range, direct, fixed })),
        (range(), select(vec![PagemapBit::SoftDirty, PagemapBit::UffdWp]))
            .prop_map(|(range, bit)| Call::Pagemap { range, bit }),
    ];
    let states = vec![PageState::None, PageState::System, PageState::Device, PageState::Swapped];
    let others = prop_oneof![
        Just(Call::Evict),
        Just(Call::Expect(Expectation::DeviceEmpty)),
        (range(), select(states)).prop_map(|(range, state)| Call::Expect(Expectation::Pages { range, state })),
        Just(Call::ClearSoftDirty),
        Just(Call::Exit),
        Just(Call::Exec),
        Just(Call::Kill("c".into())),
        Just(Call::Join("c".into())),
        uffd().prop_map(Call::Uffd),
        range().prop_map(Call::KsmMerge),
        Just(Call::KsmScan),
        range().prop_map(Call::SwapOut),
        Just(Call::Compact),
        (select(vec!["c", "parent"]), range())
            .prop_map(|(process, range)| Call::Vmread { process: process.into(), range }),
        (select(vec!["c", "parent"]), range(), any::<u8>()).prop_map(|(process, range, byte)| Call::Vmwrite {
            process: process.into(),
            range,
            byte
        }),
        (select(vec!["c", "parent"]), range())
            .prop_map(|(process, range)| Call::Peek { process: process.into(), range }),
        (select(vec!["c", "parent"]), range(), any::<u8>()).prop_map(|(process, range, byte)| Call::Poke {
            process: process.into(),
            range,
            byte
        }),
        size().prop_map(|limit| Call::Cgroup { limit }),
        ("[a-z][a-z/]{0,20}", "[a-z0-9]{1,8}").prop_map(|(setting, value)| Call::Set { setting, value }),
        (0..60_000_000_u64).prop_map(|time| Call::Sleep(Duration::from_micros(time))),
    ];
    prop_oneof![memory, others]
}

fn step(call: impl Strategy<Value = Call>) -> impl Strategy<Value = Step> {
    let aspects = subsequence(vec![Aspect::Content, Aspect::Errno, Aspect::Signal], 0..=3);
    (call, aspects).prop_map(|(call, may_differ)| Step { line: 0, call, may_differ })
}

fn hold() -> impl Strategy<Value = Hold> {
    let point = prop_oneof!["[a-z_]{1,40}".prop_map(Point::Kernel), "[a-z-]{1,40}".prop_map(Point::Device)];
    (point, 1..1_000_u32, option::of((0..=5_u8, range()))).prop_map(|(point, nth, argument)| Hold {
        point,
        nth,
        argument,
    })
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let guest = (
        subsequence(vec![MemoryType::Private, MemoryType::Coherent], 0..=2),
        option::of((1..=64_u64).prop_map(|size| size << 20)),
        option::of(1..=64_u8),
        prop::collection::vec("[a-z]{1,8}=[a-z0-9]{1,8}", 0..3),
    );
    let guest = guest.prop_map(|(memory, vram, vcpus, driver_args)| Guest {
        memory,
        vram,
        vcpus,
        driver_args,
        ..Guest::default()
    });
    let steps = || prop::collection::vec(step(call()), 0..12);
    let symptoms = vec![Symptom::KernelBug, Symptom::Hang, Symptom::Order];
    let shows = (select(symptoms), subsequence(vec!["7.2", "7.3"], 0..=2));
    let shows = shows
        .prop_map(|(symptom, kernels)| Shows { symptom, kernels: kernels.into_iter().map(str::to_owned).collect() });
    let times = (1..10_000_u64, 1..60_000_u64)
        .prop_map(|(hold, step)| (Duration::from_millis(hold), Duration::from_millis(step)));
    let parts = (guest, prop::collection::vec(shows, 0..3), times, "[a-zA-Z0-9][a-zA-Z0-9: ]{0,30}[a-z]");
    (parts, steps(), steps(), steps(), step(call()), hold(), option::of(0..64_u8)).prop_map(
        |((guest, shows, times, title), setup, mut one, finally, held, hold, cpu)| {
            let plain = |call| Step { line: 0, call, may_differ: Vec::new() };
            let map = Call::Map { name: "r".into(), size: SIZE, options: MapOptions::default() };
            let first = [plain(map), plain(Call::Fork("c".into()))];
            if !held.call.is_synchronisation() {
                one.extend([plain(Call::Hold(hold)), held]);
            }
            let is_held = one.iter().any(|step| matches!(step.call, Call::Hold(_)));
            let mut two = vec![plain(Call::Wait { thread: "one".into(), awaited: Awaited::Done })];
            if is_held {
                two.insert(0, plain(Call::Wait { thread: "one".into(), awaited: Awaited::Held }));
                two.insert(1, plain(Call::Resume("one".into())));
            }
            let barrier = || plain(Call::Barrier("b".into()));
            one.insert(0, barrier());
            two.insert(0, barrier());
            Scenario {
                name: "x".into(),
                title,
                guest,
                shows,
                hold_limit: times.0,
                deadline: times.1,
                setup: first.into_iter().chain(setup).collect(),
                threads: vec![
                    Thread { name: "one".into(), cpu, process: Process::First, steps: one },
                    Thread { name: "two".into(), cpu: None, process: Process::Child("c".into()), steps: two },
                ],
                finally,
            }
        },
    )
}

/// The same without numbers of lines.
fn without_lines(mut scenario: Scenario) -> Scenario {
    let Scenario { setup, threads, finally, .. } = &mut scenario;
    let threads = threads.iter_mut().flat_map(|thread| &mut thread.steps);
    setup.iter_mut().chain(threads).chain(finally).for_each(|step| step.line = 0);
    scenario
}

/// Words that lead far into the parser, and some that do not.
fn text() -> impl Strategy<Value = String> {
    let verbs: Vec<&str> = VERBS.iter().map(|verb| verb.name).collect();
    let word = prop_oneof![
        select(verbs).prop_map(str::to_owned),
        select(vec![
            "setup",
            "finally",
            "thread",
            "guest",
            "shows",
            "on",
            "7.2",
            "r",
            "r[0..16]",
            "r[1M..2M]",
            "2M",
            "huge",
            "all",
            "7",
            "nth=2",
            "arg1=r",
            "vram=64M",
            "memory=private",
            "held",
            "done",
            "onto",
            "\n",
            "\n",
            "\n",
            "#",
            "cpu=1",
            "of",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,12}",
    ];
    prop::collection::vec(word, 0..60).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn a_scenario_is_read_as_it_is_shown(scenario in scenario()) {
        let text = scenario.to_string();
        let read = parse("x", &text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(without_lines(read), scenario, "{}", text);
    }

    #[test]
    fn any_words_are_a_scenario_or_an_error(text in text()) {
        match parse("x", &text) {
            Ok(scenario) => prop_assert_eq!(
                without_lines(parse("x", &scenario.to_string()).expect("a scenario's text")),
                without_lines(Scenario { title: scenario.title.clone(), ..scenario })
            ),
            Err(error) => prop_assert!(error.line >= 1 && error.line as usize <= text.lines().count().max(1), "{error}"),
        }
    }

    #[test]
    fn any_text_is_a_scenario_or_an_error(text in "\\PC*|[ -~\n]*") {
        let _ = parse("x", &text);
    }

    #[test]
    fn any_bytes_are_an_entry_or_not(line in "ersatz-scenario: [ -~]*|\\PC*") {
        let _ = ersatz_scenario::report::Entry::from_line(&line);
    }
}

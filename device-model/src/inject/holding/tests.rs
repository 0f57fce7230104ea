// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Holds, in whatever order the device, those who resume, deadlines and resets come: each ends once, and what it held goes on unless
//! it was reset.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::ManualClock;
use crate::inject::Work;
use crate::trace::{Event, Tracer};

const DEADLINE_NS: u64 = 10;

#[derive(Clone, Copy, Debug)]
enum Act {
    Arrive(u8),
    /// What has arrived waits.
    Begin,
    /// It was reset before.
    Forget,
    Resume(prop::sample::Index),
    Reset(u8),
    Advance(u64),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_u8..3).prop_map(Act::Arrive),
        4 => Just(Act::Begin),
        1 => Just(Act::Forget),
        3 => any::<prop::sample::Index>().prop_map(Act::Resume),
        1 => (0_u8..3).prop_map(Act::Reset),
        1 => (0..2 * DEADLINE_NS).prop_map(Act::Advance),
    ]
}

/// What must be true.
#[derive(Debug, Default)]
struct Model {
    now: u64,
    arrived: Option<(u64, u8)>,
    /// Number, channel and deadline.
    begun: Vec<(u64, u8, u64)>,
    /// What goes on, and the thread has not taken.
    goes_on: Vec<u64>,
}

fn site(channel: u8) -> Site {
    let event = Event::Fence { channel, engine: 0, value: 1, address: 0x1000 };
    Site { step: Step::BeforeFence, event, subject: event.subject(), address: None }
}

/// What the thread of the device does, which has something to do.
fn work(injector: &Injector, model: &mut Model) -> Result<(), TestCaseError> {
    let (expired, left): (Vec<_>, Vec<_>) = model.begun.iter().partition(|(.., deadline)| *deadline <= model.now);
    model.begun = left;
    model.goes_on.extend(expired.iter().map(|(number, ..)| *number));
    if model.goes_on.is_empty() {
        return Ok(());
    }
    let (_, work) = injector.next_work().expect("it does not leave");
    let went_on = work.iter().map(|work| match work {
        Work::GoOn(hold) => hold.number,
        other => panic!("{other:?}"),
    });
    let (mut went_on, mut expected): (Vec<_>, _) = (went_on.collect(), std::mem::take(&mut model.goes_on));
    went_on.sort_unstable();
    expected.sort_unstable();
    prop_assert_eq!(went_on, expected);
    Ok(())
}

proptest! {
    #[test]
    fn each_hold_ends_once(acts in prop::collection::vec(any_act(), 1..100)) {
        let clock = Arc::new(ManualClock::new());
        let injector = Injector::new(0, clock.clone(), Tracer::disabled()).unwrap();
        let breakpoint = Breakpoint { deadline_ns: DEADLINE_NS, ..Breakpoint::new("any", Step::BeforeFence) };
        injector.set_breakpoint(breakpoint).unwrap();
        let mut model = Model::default();
        for act in acts {
            match act {
                Act::Arrive(channel) if model.arrived.is_none() => {
                    let number = injector.arrive(&site(channel)).expect("all are held");
                    prop_assert!(injector.is_held(number) && !injector.resume(number), "it has not begun");
                    model.arrived = Some((number, channel));
                }
                Act::Begin => {
                    if let Some((number, channel)) = model.arrived.take() {
                        injector.begin(number);
                        model.begun.push((number, channel, model.now + DEADLINE_NS));
                    }
                }
                Act::Forget => {
                    if let Some((number, _)) = model.arrived.take() {
                        injector.forget(number);
                        prop_assert!(!injector.is_held(number));
                    }
                }
                Act::Resume(index) => {
                    if !model.begun.is_empty() {
                        let (number, ..) = model.begun.remove(index.index(model.begun.len()));
                        prop_assert!(injector.resume(number) && !injector.resume(number));
                        prop_assert!(!injector.is_held(number));
                        model.goes_on.push(number);
                    }
                }
                Act::Reset(channel) => {
                    injector.drop_holds(channel);
                    model.begun.retain(|(_, of, _)| *of != channel);
                }
                Act::Advance(by) => {
                    clock.advance(Duration::from_nanos(by));
                    model.now += by;
                    work(&injector, &mut model)?;
                }
                Act::Arrive(_) => {}
            }
            let held: Vec<_> = injector.holds().iter().map(|hold| hold.number).collect();
            prop_assert_eq!(&held, &model.begun.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), "{:?}", act);
            for channel in 0..3 {
                let of_channel = model.begun.iter().find(|(_, of, _)| *of == channel).map(|(number, ..)| *number);
                prop_assert_eq!(injector.hold_of(channel), of_channel);
            }
        }
    }
}

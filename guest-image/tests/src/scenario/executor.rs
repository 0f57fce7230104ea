// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Does the steps of one thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ersatz_scenario::call::{Call, Hold};
use ersatz_scenario::mark::Edge;
use ersatz_scenario::report::{Ground, StepOutcome};
use nix::unistd::gettid;

use super::board::{HoldBoard, HoldState, Phase, now_ns};
use super::calls::{self, Waits};
use super::context::{Context, Done, Failure, done};

/// Forks the process of a name.
pub type Fork = fn(&Context<'_>, &str) -> Done;

/// How long the keeper of holds may take to answer.
const KEEPER: Duration = Duration::from_secs(5);
/// How often a thread looks for an answer.
const TICK: Duration = Duration::from_micros(50);

/// Does the steps of a sequence, by its number, and notes how each ends.
pub fn run(context: &Context<'_>, index: usize, fork: Fork) {
    let board = &context.board.sequences[index];
    let Some(sequence) = context.scenario.sequences().nth(index) else { return };
    board.thread.store(gettid().as_raw(), Ordering::Release);
    board.set_phase(Phase::Running);
    let (mut waits, mut hold) = (Waits::default(), None);
    for (number, (step, slot)) in sequence.steps.iter().zip(&board.steps).enumerate() {
        slot.begin(now_ns());
        context.mark(index, number, Edge::Begin);
        let body = || match &step.call {
            Call::Hold(next) => {
                hold = Some((number, next));
                done()
            }
            call => {
                let mut perform = || match call {
                    Call::Fork(child) => fork(context, child),
                    call => calls::perform(context, call, &mut waits),
                };
                match hold.take() {
                    Some((at, hold)) => held(context, index, (at, hold), perform),
                    None => perform(),
                }
            }
        };
        let result = catch_unwind(AssertUnwindSafe(body));
        let outcome = result.unwrap_or_else(|_| Err(Failure::Reason("the runner panicked".into())));
        context.mark(index, number, Edge::End);
        slot.end(now_ns(), &outcome.unwrap_or_else(StepOutcome::from));
    }
    board.set_phase(Phase::Done);
}

/// Performs a call that is to be held. The keeper, a process that nothing is held in, arms the hold, and ends it.
///
/// On plain memory the call begins when it is resumed.
fn held(context: &Context<'_>, index: usize, (at, hold): (usize, &Hold), mut perform: impl FnMut() -> Done) -> Done {
    let board = &context.board.sequences[index].hold;
    if let Some((_, range)) = &hold.argument {
        let span = context.ranges.place(range)?.span();
        board.addresses[0].store(span.address, Ordering::Relaxed);
        board.addresses[1].store(span.address + span.length, Ordering::Relaxed);
    } else {
        board.addresses.iter().for_each(|address| address.store(0, Ordering::Relaxed));
    }
    board.step.store(at as u32, Ordering::Relaxed);
    if !board.advance(HoldState::None, HoldState::Asked) {
        return Err(String::from("the thread's last hold is not over").into());
    }
    wait_while(board, KEEPER, |state| state == HoldState::Asked);
    if context.ground == Ground::Plain {
        let waits = |state| matches!(state, HoldState::Armed | HoldState::Held | HoldState::Resuming);
        wait_while(board, context.patience(), waits);
    }
    let done = perform();
    board.set(HoldState::Over);
    wait_while(board, KEEPER, |state| state == HoldState::Over);
    done
}

fn wait_while(board: &HoldBoard, patience: Duration, waits: impl Fn(HoldState) -> bool) {
    let deadline = Instant::now() + patience;
    while waits(board.state()) && Instant::now() < deadline {
        sleep(TICK);
    }
}

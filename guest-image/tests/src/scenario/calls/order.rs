// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Steps that order threads.

use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ersatz_scenario::call::{Awaited, Call};

use crate::scenario::board::{HoldState, Phase};
use crate::scenario::context::{Context, Done, done, done_with};

/// How often a waiting thread looks.
const TICK: Duration = Duration::from_micros(100);

/// What a thread remembers from step to step: how often it has waited for each sequence to be held.
#[derive(Debug, Default)]
pub struct Waits(Vec<u32>);

impl Waits {
    /// Counts a wait for a sequence, and returns how many there were before.
    fn count(&mut self, sequence: usize) -> u32 {
        if self.0.len() <= sequence {
            self.0.resize(sequence + 1, 0);
        }
        self.0[sequence] += 1;
        self.0[sequence] - 1
    }
}

/// Waits until something holds; false if the time is over first.
pub(super) fn wait_until(patience: Duration, holds: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        sleep(TICK);
    }
    true
}

/// The n-th wait of a thread for another waits for the n-th hold of that.
pub fn wait(context: &Context<'_>, thread: &str, awaited: Awaited, waits: &mut Waits) -> Done {
    let index = context.thread(thread)?;
    let other = &context.board.sequences[index];
    let is_done = || other.phase() == Phase::Done;
    if awaited == Awaited::Done {
        return if wait_until(context.patience(), is_done) {
            done()
        } else {
            Err(format!("{thread} was not done in time").into())
        };
    }
    let before = waits.count(index);
    let is_over = || other.hold.over.load(Ordering::Acquire) > before;
    let is_held = || other.hold.state() == HoldState::Held;
    let came = wait_until(context.patience(), || is_over() || is_held() || is_done());
    if is_held() {
        done()
    } else if came {
        // What became of the hold is told by its own step.
        done_with(format!("{thread} is not held any more, or was not"))
    } else {
        Err(format!("{thread} was not held in time").into())
    }
}

pub fn resume(context: &Context<'_>, thread: &str) -> Done {
    let hold = &context.board.sequences[context.thread(thread)?].hold;
    if !hold.advance(HoldState::Held, HoldState::Resuming) {
        return done_with(format!("{thread} is not held"));
    }
    if !wait_until(context.patience(), || hold.state() != HoldState::Resuming) {
        return Err(format!("{thread} did not go on").into());
    }
    done()
}

pub fn barrier(context: &Context<'_>, name: &str) -> Done {
    let uses = |name: &str| {
        let names = move |call: &Call| matches!(call, Call::Barrier(other) if other == name);
        let threads = context.scenario.threads.iter();
        threads.map(|thread| thread.steps.iter().filter(|step| names(&step.call)).count() as u32).sum::<u32>()
    };
    let mut names: Vec<&str> = Vec::new();
    for step in context.scenario.threads.iter().flat_map(|thread| &thread.steps) {
        if let Call::Barrier(other) = &step.call {
            if !names.contains(&other.as_str()) {
                names.push(other);
            }
        }
    }
    let index = names.iter().position(|other| *other == name).ok_or_else(|| format!("no barrier is called {name}"))?;
    let count = &context.board.barriers[index];
    count.fetch_add(1, Ordering::AcqRel);
    // Each step that names it passes once; all of them are needed.
    if wait_until(context.patience(), || count.load(Ordering::Acquire) >= uses(name)) {
        done()
    } else {
        Err(format!("not all threads came to {name} in time").into())
    }
}

pub fn sleep_for(time: Duration) -> Done {
    sleep(time);
    done()
}

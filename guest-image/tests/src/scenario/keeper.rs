// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Arms holds for threads, and ends them. That is the monitor's business, since it is never held or killed itself.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ersatz_scenario::call::{Call, Hold as Asked, Point};
use ersatz_scenario::mark::Edge;
use ersatz_scenario::report::{Entry, Ground, Release};
use ersatz_scenario::{Symptom, limits};
use ersatz_uapi::hold::State;
use nix::unistd::Pid;

use super::board::{HoldState, now_ns};
use super::context::Context;
use crate::hold::{Condition, Hold, Holder, Spec, Task};

/// A hold that a thread has asked for.
#[derive(Debug)]
struct Kept {
    /// None on plain memory.
    hold: Option<Hold>,
    /// The step that says where.
    step: usize,
    held_at: Option<u64>,
    released: Option<(u64, Release)>,
    /// Why it could not be armed.
    refused: Option<String>,
}

/// Keeps the holds of an attempt.
#[derive(Debug)]
pub struct Keeper<'a> {
    context: &'a Context<'a>,
    holder: Option<&'a Holder>,
    kept: [Option<Kept>; limits::THREADS + 2],
}

impl<'a> Keeper<'a> {
    /// A keeper; without a holder it can arm nothing on the GPU.
    pub fn new(context: &'a Context<'a>, holder: Option<&'a Holder>) -> Self {
        Self { context, holder, kept: [const { None }; limits::THREADS + 2] }
    }

    /// Does what is to be done, and returns what is worth telling.
    pub fn poll(&mut self) -> Vec<Entry> {
        (0..self.kept.len()).flat_map(|index| self.poll_one(index)).collect()
    }

    /// Ends all holds: their threads are to die, or are dead.
    pub fn end_all(&mut self) -> Vec<Entry> {
        let ended = (0..self.kept.len()).flat_map(|index| {
            let kept = self.kept[index].take();
            kept.map(|kept| self.finish(index, kept)).unwrap_or_default()
        });
        ended.collect()
    }

    fn poll_one(&mut self, index: usize) -> Vec<Entry> {
        let board = &self.context.board.sequences[index].hold;
        match board.state() {
            HoldState::Asked => {
                let kept = self.arm(index);
                let next = if kept.refused.is_some() { HoldState::Failed } else { HoldState::Armed };
                self.kept[index] = Some(kept);
                board.advance(HoldState::Asked, next);
            }
            HoldState::Armed => self.look_whether_held(index),
            HoldState::Held => self.look_whether_expired(index),
            HoldState::Resuming => {
                if let Some(kept) = &mut self.kept[index] {
                    kept.released = Some((now_ns(), Release::Resumed));
                    self.context.mark(index, kept.step + 1, Edge::Resumed);
                    if let Some(hold) = &kept.hold {
                        // Its deadline may have come first, which `finish` sees.
                        let _ = hold.resume();
                    }
                }
                board.advance(HoldState::Resuming, HoldState::Free);
            }
            HoldState::Over => {
                let entries = self.kept[index].take().map(|kept| self.finish(index, kept)).unwrap_or_default();
                board.over.fetch_add(1, Ordering::AcqRel);
                board.advance(HoldState::Over, HoldState::None);
                return entries;
            }
            HoldState::None | HoldState::Free | HoldState::Failed => {}
        }
        Vec::new()
    }

    /// The step that says where a thread is held.
    fn asked(&self, index: usize, step: usize) -> Option<(&'a Asked, u32)> {
        let step = self.context.scenario.sequences().nth(index)?.steps.get(step)?;
        match &step.call {
            Call::Hold(hold) => Some((hold, step.line)),
            _ => None,
        }
    }

    fn arm(&self, index: usize) -> Kept {
        let step = self.context.board.sequences[index].hold.step.load(Ordering::Relaxed) as usize;
        let mut kept = Kept { hold: None, step, held_at: None, released: None, refused: None };
        if self.context.ground == Ground::Gpu {
            match self.try_arm(index, step) {
                Ok(hold) => kept.hold = Some(hold),
                Err(reason) => kept.refused = Some(reason),
            }
        }
        kept
    }

    fn try_arm(&self, index: usize, step: usize) -> Result<Hold, String> {
        let board = &self.context.board.sequences[index];
        let (asked, _) = self.asked(index, step).ok_or("that step is no hold")?;
        let Point::Kernel(function) = &asked.point else {
            return Err("the device cannot be held by a scenario yet".into());
        };
        let task = Task::Thread(Pid::from_raw(board.thread.load(Ordering::Acquire)));
        let mut spec = Spec::new(function, task).nth(asked.nth).deadline(self.context.scenario.hold_limit);
        if let Some((number, _)) = asked.argument {
            let [first, end] = [0, 1].map(|bound| board.hold.addresses[bound].load(Ordering::Relaxed));
            spec = spec.condition(Condition::Argument(number.into(), first..=end.saturating_sub(1)));
        }
        let holder = self.holder.ok_or("the module that holds tasks is not there")?;
        holder.arm(&spec).map_err(|error| chain(&error))
    }

    fn look_whether_held(&mut self, index: usize) {
        let Some(kept) = &mut self.kept[index] else { return };
        // On plain memory the thread itself waits.
        let is_held = kept.hold.as_ref().is_none_or(|hold| hold.state() != State::Armed);
        if is_held {
            kept.held_at = Some(now_ns());
            self.context.mark(index, kept.step + 1, Edge::Held);
            self.context.board.sequences[index].hold.advance(HoldState::Armed, HoldState::Held);
        }
    }

    fn look_whether_expired(&mut self, index: usize) {
        let Some(kept) = &mut self.kept[index] else { return };
        let expired = match &kept.hold {
            Some(hold) => hold.state() == State::Expired,
            None => {
                let held = Duration::from_nanos(now_ns().saturating_sub(kept.held_at.unwrap_or_default()));
                held > self.context.scenario.hold_limit
            }
        };
        if expired {
            kept.released = Some((now_ns(), Release::Deadline));
            self.context.board.sequences[index].hold.advance(HoldState::Held, HoldState::Free);
        }
    }

    /// What became of a hold. Cancels it if it is still armed.
    fn finish(&self, index: usize, kept: Kept) -> Vec<Entry> {
        let Some((asked, line)) = self.asked(index, kept.step).filter(|_| self.context.ground == Ground::Gpu) else {
            return Vec::new();
        };
        let name = self.context.scenario.sequences().nth(index).map(|sequence| sequence.name.to_owned());
        let order =
            |text: String| Entry::Finding { symptom: Symptom::Order, thread: name.clone(), line: Some(line), text };
        if let Some(reason) = &kept.refused {
            return vec![order(format!("cannot hold {}: {reason}", asked.point))];
        }
        let Some(hold) = &kept.hold else { return Vec::new() };
        let status = hold.status();
        hold.cancel();
        let Some(held_at) = status.held_at_ns.or(kept.held_at) else {
            let also = if status.unholdable == 0 { "" } else { ", some with interrupts off" };
            let entries = format!("{} entries of {}{also}", status.hits, asked.nth);
            return vec![order(format!("the call did not come to {}: {entries}", asked.point))];
        };
        let how = if status.state == State::Expired { Release::Deadline } else { Release::Resumed };
        let released = status.released_at_ns.or(kept.released.map(|(at, _)| at)).unwrap_or_else(now_ns);
        let mut entries = vec![Entry::Held {
            thread: name.clone().unwrap_or_default(),
            step: kept.step as u16 + 1,
            function: asked.point.to_string(),
            at_ns: held_at,
            released_ns: released,
            how,
        }];
        if how == Release::Deadline {
            entries.push(order(format!("nobody resumed the call held at {} in time", asked.point)));
        }
        entries
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

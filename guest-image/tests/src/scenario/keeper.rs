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
use super::held_point::{HeldPoint, Holders};
use crate::hold::{Condition, Spec, Task};

/// A hold that a thread has asked for.
#[derive(Debug)]
struct Kept<'a> {
    /// None on plain memory.
    hold: Option<HeldPoint<'a>>,
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
    holders: &'a Holders,
    kept: [Option<Kept<'a>>; limits::THREADS + 2],
}

impl<'a> Keeper<'a> {
    /// A keeper.
    pub fn new(context: &'a Context<'a>, holders: &'a Holders) -> Self {
        Self { context, holders, kept: [const { None }; limits::THREADS + 2] }
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
                        hold.resume();
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

    fn arm(&self, index: usize) -> Kept<'a> {
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

    fn try_arm(&self, index: usize, step: usize) -> Result<HeldPoint<'a>, String> {
        let board = &self.context.board.sequences[index];
        let (asked, _) = self.asked(index, step).ok_or("that step is no hold")?;
        let function = match &asked.point {
            Point::Kernel(function) => function,
            Point::Device(at) => {
                let name = format!("scenario-{index}-{step}");
                return self.holders.arm_device(name, at, asked.nth, self.context.scenario.hold_limit);
            }
        };
        let task = Task::Thread(Pid::from_raw(board.thread.load(Ordering::Acquire)));
        let mut spec = Spec::new(function, task).nth(asked.nth).deadline(self.context.scenario.hold_limit);
        if let Some((number, _)) = asked.argument {
            let [first, end] = [0, 1].map(|bound| board.hold.addresses[bound].load(Ordering::Relaxed));
            spec = spec.condition(Condition::Argument(number.into(), first..=end.saturating_sub(1)));
        }
        self.holders.arm_kernel(&spec)
    }

    fn look_whether_held(&mut self, index: usize) {
        let Some(kept) = &mut self.kept[index] else { return };
        // On plain memory the thread itself waits.
        let is_held = kept.hold.as_ref().is_none_or(|hold| hold.status().state != State::Armed);
        if is_held {
            kept.held_at = Some(now_ns());
            self.context.mark(index, kept.step + 1, Edge::Held);
            self.context.board.sequences[index].hold.advance(HoldState::Armed, HoldState::Held);
        }
    }

    fn look_whether_expired(&mut self, index: usize) {
        let Some(kept) = &mut self.kept[index] else { return };
        let expired = match &kept.hold {
            Some(hold) => hold.status().state == State::Expired,
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
    fn finish(&self, index: usize, kept: Kept<'_>) -> Vec<Entry> {
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
            let hits = status.hits.map(|hits| format!(": {hits} entries of {}{}", asked.nth, status.also));
            return vec![order(format!("nothing came to {}{}", asked.point, hits.unwrap_or_default()))];
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

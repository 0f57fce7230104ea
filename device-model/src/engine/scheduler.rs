// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How an engine finds its work: it sleeps until a doorbell, a kick, or the time that a command waits for, and takes the
//! channels that have reason to be looked at in turn, those of the highest priority first.
//!
//! Written against a trait, [`EngineOps`], so that the model checker runs the very code the device runs. What it rests on: a
//! doorbell's count is taken back *before* the channel is looked at, so a ring that comes after that look wakes the
//! engine again; and a channel that turned out to be another engine's is that one's to look at.

use std::collections::VecDeque;
use std::io;

use ersatz_abi::channel::Priority;

use super::doorbells::{Bits, Doorbells, Sleep, Wake, WakeSource};
use super::timers::Timers;
use crate::channel::task::Task;
use crate::channel::{Found, Turn, Wait};

/// What an engine does in its device.
pub(super) trait EngineOps {
    /// What engines wait with.
    type WakeSource: WakeSource;
    /// Which channels are bound.
    type Bits: Bits;

    /// What wakes the engine.
    fn doorbells(&self) -> &Doorbells<Self::WakeSource, Self::Bits>;
    /// Number of channels.
    fn channel_count(&self) -> u8;
    /// Takes back the rings of a channel's doorbell.
    fn acknowledge(&self, channel: u8);
    /// Whether the engine is to return.
    fn is_leaving(&self) -> bool;
    /// The priority of a channel.
    fn priority(&self, channel: u8) -> Priority;
    /// Takes up a channel.
    fn take_up(&self, channel: u8) -> Found;
    /// Works for a channel for a while, first at the command that had to wait, and lets go of the channel.
    fn work(&mut self, channel: u8, turn: Turn, resumed: Option<Box<Task>>) -> Next;
    /// Makes the engine of a channel look at it.
    fn kick(&self, channel: u8);
    /// What the device's clock reads.
    fn now(&self) -> u64;
    /// How long to sleep until the clock reads `deadline`.
    fn sleep_until(&self, deadline: u64) -> Sleep;
}

/// When an engine comes back to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// When it is the channel's turn again.
    Again,
    /// When it is woken for the channel.
    Idle,
    /// At this time, or when it is woken for the channel.
    At(u64),
}

impl Next {
    /// For a channel whose command waits.
    pub(super) fn waiting(wait: Wait) -> Self {
        wait.deadline().map_or(Self::Idle, Self::At)
    }
}

/// The channels that have reason to be looked at.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    /// Now, in the order they got it.
    queue: VecDeque<u8>,
    /// Later.
    timers: Timers,
}

impl Scheduler {
    /// Works until the engine is to return.
    pub(super) fn run(&mut self, engine: &mut impl EngineOps) -> io::Result<()> {
        loop {
            self.listen(engine)?;
            if engine.is_leaving() {
                return Ok(());
            }
            let Some(channel) = self.next(engine) else { continue };
            match turn(engine, channel) {
                Next::Again => self.queue.push_back(channel),
                Next::Idle => {}
                Next::At(deadline) => self.timers.set(channel, deadline),
            }
        }
    }

    /// Adds the channels that have reason to be looked at; sleeps if there is none at all.
    fn listen(&mut self, engine: &impl EngineOps) -> io::Result<()> {
        let doorbells = engine.doorbells();
        doorbells.wait(self.sleep(engine), |wake| match wake {
            Wake::Kick => {
                let bound = (0..engine.channel_count()).filter(|channel| doorbells.is_bound(*channel));
                bound.for_each(|channel| add(&mut self.queue, channel));
            }
            Wake::Doorbell(channel) => {
                engine.acknowledge(channel);
                add(&mut self.queue, channel);
            }
        })?;
        if !self.timers.is_empty() {
            self.timers.expire(engine.now(), |channel| add(&mut self.queue, channel));
        }
        Ok(())
    }

    /// How long to sleep.
    fn sleep(&self, engine: &impl EngineOps) -> Sleep {
        match self.timers.earliest() {
            _ if !self.queue.is_empty() => Sleep::Never,
            Some(deadline) => engine.sleep_until(deadline),
            None => Sleep::UntilWoken,
        }
    }

    /// Takes the next channel: of those with the highest priority, the one that has waited longest.
    fn next(&mut self, engine: &impl EngineOps) -> Option<u8> {
        let highest = self.queue.iter().map(|channel| engine.priority(*channel)).max()?;
        let position = self.queue.iter().position(|channel| engine.priority(*channel) == highest)?;
        self.queue.remove(position)
    }
}

fn add(queue: &mut VecDeque<u8>, channel: u8) {
    if !queue.contains(&channel) {
        queue.push_back(channel);
    }
}

/// Works for a channel for a while; returns when to come back.
fn turn(engine: &mut impl EngineOps, channel: u8) -> Next {
    match engine.take_up(channel) {
        Found::Turn(turn, resumed) => engine.work(channel, turn, resumed),
        Found::Waiting(wait) => Next::waiting(wait),
        Found::Elsewhere => {
            // It was bound to another engine after this one was woken for it, which must not be for nothing.
            engine.kick(channel);
            Next::Idle
        }
        Found::Nothing => Next::Idle,
    }
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How an engine finds its work: it sleeps until a doorbell or a kick, and takes the channels that have reason to be
//! looked at in turn, those of the highest priority first.
//!
//! Written against a trait, [`Desk`], so that the model checker runs the very code the device runs. What it rests on: a
//! doorbell's count is taken back *before* the channel is looked at, so a ring that comes after that look wakes the
//! engine again; and a channel that turned out to be another engine's is that one's to look at.

use std::collections::VecDeque;
use std::io;

use ersatz_abi::channel::Priority;

use super::doorbells::{Bits, Doorbells, Ears, Wake};
use crate::channel::{Found, Turn};

/// An engine's place in its device.
pub(super) trait Desk {
    /// What engines listen with.
    type Ears: Ears;
    /// Which channels are bound.
    type Bits: Bits;

    /// What wakes the engine.
    fn doorbells(&self) -> &Doorbells<Self::Ears, Self::Bits>;
    /// Number of channels.
    fn channel_count(&self) -> u8;
    /// Takes back the rings of a channel's doorbell.
    fn heard(&self, channel: u8);
    /// Whether the engine is to return.
    fn is_leaving(&self) -> bool;
    /// Whose turn it is.
    fn priority(&self, channel: u8) -> Priority;
    /// Takes up a channel.
    fn take_up(&self, channel: u8) -> Found;
    /// Works for a channel for a while, and lets go of it; whether to come back without being woken.
    fn work(&mut self, channel: u8, turn: Turn) -> bool;
    /// Has the engine of a channel look at it.
    fn kick(&self, channel: u8);
}

/// The channels that have reason to be looked at, in the order they got it.
#[derive(Debug, Default)]
pub(super) struct Rota(VecDeque<u8>);

impl Rota {
    /// Works until the engine is to return.
    pub(super) fn run(&mut self, desk: &mut impl Desk) -> io::Result<()> {
        loop {
            self.listen(desk)?;
            if desk.is_leaving() {
                return Ok(());
            }
            let again = self.next(desk).filter(|channel| turn(desk, *channel));
            self.0.extend(again);
        }
    }

    /// Adds the channels that have reason to be looked at; sleeps if there is none at all.
    fn listen(&mut self, desk: &impl Desk) -> io::Result<()> {
        let doorbells = desk.doorbells();
        doorbells.wait(self.0.is_empty(), |wake| match wake {
            Wake::Kick => {
                let bound = (0..desk.channel_count()).filter(|channel| doorbells.is_bound(*channel));
                bound.for_each(|channel| self.add(channel));
            }
            Wake::Doorbell(channel) => {
                desk.heard(channel);
                self.add(channel);
            }
        })
    }

    fn add(&mut self, channel: u8) {
        if !self.0.contains(&channel) {
            self.0.push_back(channel);
        }
    }

    /// Takes the channel whose turn it is: of the highest priority, and waiting longest.
    fn next(&mut self, desk: &impl Desk) -> Option<u8> {
        let highest = self.0.iter().map(|channel| desk.priority(*channel)).max()?;
        let place = self.0.iter().position(|channel| desk.priority(*channel) == highest)?;
        self.0.remove(place)
    }
}

/// Works for a channel for a while; whether to come back without being woken.
fn turn(desk: &mut impl Desk, channel: u8) -> bool {
    match desk.take_up(channel) {
        Found::Turn(turn) => desk.work(channel, turn),
        Found::Elsewhere => {
            // It was bound to another engine after this one heard of it, which must not be for nothing.
            desk.kick(channel);
            false
        }
        Found::Nothing => false,
    }
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An engine: a thread that executes the commands of the channels bound to it.
//!
//! An engine sleeps until a doorbell or a kick; then it takes its channels in turn, a few commands each, those of the highest
//! priority first. A command that must wait (for a replay of its fault, for an invalidation) is put aside, and the engine goes on with
//! other channels. [`execute`] fetches commands, [`signal`] tells of their end; [`transfer`] executes the lists of copy engines, [`kernel`]
//! the kernels of compute engines; both reach memory through [`bus`], and [`gate`] is what stops them.

mod bus;
mod context;
pub(crate) mod doorbells;
mod execute;
pub(crate) mod gate;
mod kernel;
mod signal;
mod task;
mod transfer;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use ersatz_abi::counter::Counter;

use crate::channel::{Found, Settled};
use crate::device::{Device, EngineKind, drain};
use crate::trace::Event;
use doorbells::Wake;
use execute::Executor;

/// Most bytes moved under one pass of the gate: what a reset may have to wait for.
pub(crate) const PIECE_BYTES: u64 = 256 << 10;

struct Engine {
    device: Arc<Device>,
    number: u8,
    executor: Executor,
    /// Channels that have reason to be looked at, in the order they got it.
    ready: VecDeque<u8>,
}

/// Starts an engine. It ends after [`Device::leave`].
pub(crate) fn spawn(device: Arc<Device>, number: u8) -> io::Result<JoinHandle<()>> {
    let name = match device.engine_kind(number) {
        EngineKind::Copy => format!("copy-engine-{number}"),
        EngineKind::Compute => format!("compute-{number}"),
    };
    let executor = Executor::new(device.clone(), number);
    let engine = Engine { device, number, executor, ready: VecDeque::new() };
    Builder::new().name(name).spawn(move || engine.run())
}

impl Engine {
    fn run(mut self) {
        loop {
            if let Err(error) = self.listen() {
                log::error!("engine {} stops: cannot wait for its doorbells: {error}", self.number);
                return;
            }
            if self.device.is_leaving() {
                return;
            }
            let again = self.next().filter(|channel| self.turn(*channel));
            self.ready.extend(again);
        }
    }

    /// Adds the channels that have reason to be looked at; sleeps if there is none at all.
    fn listen(&mut self) -> io::Result<()> {
        let Self { device, number, ready, .. } = self;
        let doorbells = device.doorbells(*number);
        doorbells.wait(ready.is_empty(), |wake| match wake {
            Wake::Kick => {
                let bound = (0..device.channel_count()).filter(|channel| doorbells.is_bound(*channel));
                bound.for_each(|channel| add(ready, channel));
            }
            Wake::Doorbell(channel) => {
                let rings = drain(&device.channels[usize::from(channel)].doorbell);
                if rings > 0 {
                    device.counters.add(Counter::Doorbells, rings);
                    device.ports.tracer.emit(Event::Doorbell { channel, rings });
                }
                add(ready, channel);
            }
        })
    }

    /// Takes the channel whose turn it is: of the highest priority, and waiting longest.
    fn next(&mut self) -> Option<u8> {
        let priority = |channel: u8| self.device.channels[usize::from(channel)].priority();
        let highest = self.ready.iter().map(|channel| priority(*channel)).max()?;
        let place = self.ready.iter().position(|channel| priority(*channel) == highest)?;
        self.ready.remove(place)
    }

    /// Works for a channel for a while; whether to come back without being woken.
    fn turn(&mut self, number: u8) -> bool {
        let tracer = &self.device.ports.tracer;
        let found = self.device.channels[usize::from(number)].take_up(self.number, |found| match found {
            Found::Settled(Settled::Reset) => tracer.emit(Event::ChannelReset { channel: number }),
            Found::Settled(Settled::Stopped) => tracer.emit(Event::ChannelDisabled { channel: number }),
            Found::Turn(_) | Found::Elsewhere | Found::Nothing => {}
        });
        match found {
            Found::Turn(turn) => {
                let again = self.executor.run(number, turn);
                self.device.channels[usize::from(number)].let_go(&turn);
                again
            }
            Found::Settled(Settled::Reset) => {
                self.device.channel_was_reset();
                false
            }
            Found::Elsewhere => {
                // It was bound to another engine after this one heard of it, which must not be for nothing.
                self.device.kick(number);
                false
            }
            Found::Settled(Settled::Stopped) | Found::Nothing => false,
        }
    }
}

fn add(ready: &mut VecDeque<u8>, channel: u8) {
    if !ready.contains(&channel) {
        ready.push_back(channel);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A copy engine: a thread that executes the commands of its channels.
//!
//! Channels are dealt out to engines by number. An engine sleeps until a doorbell or a kick; then it takes its channels in
//! turn, a few commands each, so that a busy channel does not starve the others. [`execute`] runs commands, [`transfer`]
//! moves bytes, [`gate`] is what stops both.

mod context;
mod execute;
pub(crate) mod gate;
mod transfer;

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use ersatz_abi::counter::Counter;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::channel::Found;
use crate::device::{Device, drain};
use crate::trace::Event;
use execute::Executor;

/// Most bytes moved under one pass of the gate: what a reset may have to wait for.
pub(crate) const PIECE_BYTES: u64 = 256 << 10;

/// What the epoll set says of a kick; doorbells have their channel's number.
const KICK: u64 = u64::MAX;

struct Engine {
    device: Arc<Device>,
    number: u8,
    events: Epoll,
    executor: Executor,
}

/// Starts an engine. It ends after [`Device::leave`].
pub(crate) fn spawn(device: Arc<Device>, number: u8) -> io::Result<JoinHandle<()>> {
    let events = Epoll::new()?;
    let watch = |event: &EventFd, data| {
        events.ctl(ControlOperation::Add, std::os::fd::AsRawFd::as_raw_fd(event), EpollEvent::new(EventSet::IN, data))
    };
    watch(device.kick_event(number), KICK)?;
    for channel in device.channels_of(number) {
        watch(&device.channels[usize::from(channel)].doorbell, u64::from(channel))?;
    }
    let executor = Executor::new(device.clone(), number);
    let engine = Engine { device, number, events, executor };
    Builder::new().name(format!("copy-engine-{number}")).spawn(move || engine.run())
}

impl Engine {
    fn run(mut self) {
        let mut ready: Vec<u8> = Vec::new();
        loop {
            if let Err(error) = self.wait(&mut ready) {
                log::error!("copy engine {} stops: cannot wait for its doorbells: {error}", self.number);
                return;
            }
            if self.device.is_leaving() {
                return;
            }
            let mut still_ready = Vec::with_capacity(ready.len());
            for channel in ready.drain(..) {
                if self.turn(channel) {
                    still_ready.push(channel);
                }
            }
            ready = still_ready;
        }
    }

    /// Adds the channels that have reason to be looked at; sleeps if there is none at all.
    fn wait(&self, ready: &mut Vec<u8>) -> io::Result<()> {
        let mut events = [EpollEvent::default(); 16];
        let timeout = if ready.is_empty() { -1 } else { 0 };
        let count = match self.events.wait(timeout, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for event in &events[..count] {
            if event.data() == KICK {
                drain(self.device.kick_event(self.number));
                for channel in self.device.channels_of(self.number) {
                    add(ready, channel);
                }
            } else if let Ok(channel) = u8::try_from(event.data()) {
                let rings = drain(&self.device.channels[usize::from(channel)].doorbell);
                if rings > 0 {
                    self.device.counters.add(Counter::Doorbells, rings);
                    self.device.ports.tracer.emit(Event::Doorbell { channel, rings });
                }
                add(ready, channel);
            }
        }
        Ok(())
    }

    /// Works for a channel for a while; whether to come back without being woken.
    fn turn(&mut self, number: u8) -> bool {
        let tracer = &self.device.ports.tracer;
        let found = self.device.channels[usize::from(number)].take_up(|found| match found {
            Found::Reset => tracer.emit(Event::ChannelReset { channel: number }),
            Found::Stopped => tracer.emit(Event::ChannelDisabled { channel: number }),
            Found::Turn(_) | Found::Nothing => {}
        });
        match found {
            Found::Turn(turn) => self.executor.run(number, turn),
            Found::Reset => {
                self.device.channel_was_reset();
                false
            }
            Found::Stopped | Found::Nothing => false,
        }
    }
}

fn add(ready: &mut Vec<u8>, channel: u8) {
    if !ready.contains(&channel) {
        ready.push(channel);
    }
}

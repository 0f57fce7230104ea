// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An engine: a thread that executes the commands of the channels bound to it.
//!
//! An engine sleeps until a doorbell, a kick or a time; then it takes its channels in turn, a few commands each, those of the
//! highest priority first ([`scheduler`]). A command that must wait (for a replay of its fault, for an invalidation) is kept by
//! its channel, and the engine goes on with other channels. [`execute`] fetches commands, [`retire`] ends them, in the stages
//! that [`completion`] has; [`list`] executes the lists of copy engines, by [`transfer`] each entry, and [`kernel`] the kernels
//! of compute engines; both reach memory through [`memory_access`], and [`gate`] is what stops them.

mod command_event;
mod completion;
mod context;
mod decide;
pub(crate) mod doorbells;
mod execute;
pub(crate) mod gate;
mod hold;
mod kernel;
mod list;
mod memory_access;
mod retire;
mod scheduler;
mod timers;
mod transfer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{Builder, JoinHandle};

use ersatz_abi::channel::Priority;
use ersatz_abi::counter::Counter;

use crate::channel::task::Task;
use crate::channel::{Channel, Found, Settled, Turn, Wait};
use crate::device::{Device, EngineKind};
use crate::eventfd::drain;
use crate::trace::Event;
use doorbells::{Doorbells, Events, Sleep};
use execute::Executor;
use scheduler::{EngineOps, Next, Scheduler};

/// Most bytes moved under one pass of the gate: what a reset may have to wait for.
pub(crate) const PIECE_BYTES: u64 = 256 << 10;

struct Engine {
    device: Arc<Device>,
    number: u8,
    executor: Executor,
}

/// Starts an engine. It ends after [`Device::leave`].
pub(crate) fn spawn(device: Arc<Device>, number: u8) -> io::Result<JoinHandle<()>> {
    let name = match device.engine_kind(number) {
        EngineKind::Copy => format!("gpu{}-copy-{number}", device.number),
        EngineKind::Compute => format!("gpu{}-compute-{number}", device.number),
    };
    let executor = Executor::new(device.clone(), number);
    let engine = Engine { device, number, executor };
    Builder::new().name(name).spawn(move || engine.run())
}

impl Engine {
    fn run(mut self) {
        let mut scheduler = Scheduler::default();
        if let Err(error) = scheduler.run(&mut self) {
            let (gpu, engine) = (self.device.number, self.number);
            log::error!("GPU {gpu}: engine {engine} stops: it cannot wait for its doorbells: {error}");
        }
    }

    fn channel(&self, number: u8) -> &Channel {
        &self.device.channels[usize::from(number)]
    }
}

impl EngineOps for Engine {
    type WakeSource = Events;
    type Bits = AtomicU64;

    fn doorbells(&self) -> &Doorbells {
        self.device.doorbells(self.number)
    }

    fn channel_count(&self) -> u8 {
        self.device.channel_count()
    }

    fn acknowledge(&self, channel: u8) {
        // A reset of the function waits for the pass: it takes the rings back itself, or zeroes the counter they went to.
        let _pass = self.device.gate.enter();
        let rings = drain(&self.channel(channel).doorbell);
        if rings > 0 {
            self.device.counters.add(Counter::Doorbells, rings);
            self.device.ports.tracer.emit(Event::Doorbell { channel, rings });
        }
    }

    fn is_leaving(&self) -> bool {
        self.device.is_leaving()
    }

    fn priority(&self, channel: u8) -> Priority {
        self.channel(channel).priority()
    }

    fn take_up(&self, channel: u8) -> Found {
        if self.device.is_hung(self.number) {
            return Found::Nothing;
        }
        self.channel(channel).take_up(self.number, |wait| is_over(&self.device, wait))
    }

    fn work(&mut self, channel: u8, turn: Turn, resumed: Option<Box<Task>>) -> Next {
        let next = self.executor.run(channel, turn, resumed);
        let settled = self.channel(channel).let_go(&turn, |settled| match settled {
            Settled::Reset => self.device.report_channel_reset(channel),
            Settled::Stopped => self.device.ports.tracer.emit(Event::ChannelDisabled { channel }),
        });
        if settled == Some(Settled::Reset) {
            self.device.channel_was_reset();
        }
        if settled.is_none() { next } else { Next::Idle }
    }

    fn kick(&self, channel: u8) {
        self.device.kick(channel);
    }

    fn now(&self) -> u64 {
        self.device.ports.clock.now()
    }

    fn sleep_until(&self, deadline: u64) -> Sleep {
        Sleep::lasting(self.device.ports.clock.time_until(deadline))
    }
}

/// Whether what a command waits for has come. A wait for a replay never ends by itself: a call ends it.
fn is_over(device: &Device, wait: Wait) -> bool {
    match wait {
        Wait::Replay(..) => false,
        Wait::Acknowledgement(number) => device.mmu.acknowledged() >= number,
        Wait::Hold(number) => !device.ports.injector.is_held(number),
        Wait::Time(deadline) => device.ports.clock.now() >= deadline,
    }
}

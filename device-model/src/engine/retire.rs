// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the result of a command is reported to the driver and the trace.

use std::cell::Cell;

use ersatz_abi::channel::{CONTROL_BLOCK_FENCE, CONTROL_BLOCK_GET};
use ersatz_abi::command::Command;
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;

use super::command_event::end_event;
use super::completion::{Completion, complete};
use super::context::{Context, Stop};
use super::decide::decide;
use super::gate::Master;
use super::hold::pass;
use crate::bus_requests::ReportedSession;
use crate::channel::task::{Passes, Task};
use crate::channel::{ChannelFailure, Turn};
use crate::dma::DmaSession;
use crate::inject::Action;
use crate::interrupt::InterruptCause;
use crate::trace::{Event, InterruptOutcome, Step};

/// Reports to the driver that the command at the turn's GET is done, from the task's stage on, and moves the turn to the next
/// command. Returns whether to go on with that.
pub(super) fn retire(context: &mut Context<'_>, task: &mut Task) -> Result<bool, Stop> {
    let Task { command, stage, bytes, cursor } = task;
    let mut turn = context.turn;
    let result = {
        // Mastership is for what is stored: an interrupt waits in MSI-X without it.
        let pass = context.enter()?.master(&context.device.ports.dma);
        let passes = Cell::new(cursor.passes);
        let control_block =
            ControlBlock { context, master: pass.as_ref().ok(), command, bytes: *bytes, passes: &passes };
        let result = complete(&control_block, &mut turn, stage, command.fence, command.interrupt);
        cursor.passes = passes.get();
        result
    };
    context.turn = turn;
    result
}

/// The control block of the channel that a command is of.
struct ControlBlock<'a> {
    context: &'a Context<'a>,
    /// The permit to store anything there, unless the function is not master.
    master: Option<&'a Master<'a>>,
    command: &'a Command,
    bytes: u64,
    /// What the command passes.
    passes: &'a Cell<Passes>,
}

impl ControlBlock<'_> {
    fn address(&self, offset: u64) -> u64 {
        self.context.turn.setup.control_block + offset
    }

    fn dma(&self) -> Result<&ReportedSession<'_>, Stop> {
        let refused = || Stop::failed(ErrorCode::NotMaster, 0, self.address(CONTROL_BLOCK_GET));
        self.master.map(|master| &master.dma).ok_or_else(refused)
    }

    /// As [`pass`].
    fn pass(&self, step: Step, what: impl FnOnce() -> (Event, u64)) -> Result<(), Stop> {
        let mut passes = self.passes.get();
        let result = pass(self.context, step, self.command.cause, &mut passes, what);
        self.passes.set(passes);
        result
    }

    /// As [`decide`].
    fn decide(&self, step: Step, event: Event) -> Result<Option<Action>, Stop> {
        let mut passes = self.passes.get();
        let result = decide(self.context, step, self.command.cause, &mut passes, || event);
        self.passes.set(passes);
        result
    }

    fn store_get(&self, get: u32) -> Result<(), Stop> {
        let address = self.address(CONTROL_BLOCK_GET);
        self.dma()?.store_u32(address, get).map_err(|error| Stop::write(0, error))
    }
}

impl Completion for ControlBlock<'_> {
    type Error = Stop;

    fn fence(&self, value: Option<u64>) -> Result<(), Stop> {
        let Context { device, number: channel, engine, turn, .. } = *self.context;
        let address = self.address(CONTROL_BLOCK_FENCE);
        let mut is_dropped = false;
        if let Some(value) = value {
            let event = Event::Fence { channel, engine, value, address };
            self.pass(Step::BeforeFence, || (event, address))?;
            is_dropped = self.decide(Step::BeforeFence, event)? == Some(Action::Drop);
        }
        // GET as it is: a control block that cannot be written is found out before anything is counted or traced.
        self.store_get(turn.get)?;
        // Counted before the driver can see it: a driver that waits for the fence may look at the counters next.
        device.counters.add(Counter::Commands, 1);
        let Some(value) = value.filter(|_| !is_dropped) else { return Ok(()) };
        device.counters.add(Counter::Fences, 1);
        device.ports.tracer.emit(Event::Fence { channel, engine, value, address });
        self.dma()?.store_u64(address, value).map_err(|error| Stop::write(0, error))
    }

    fn get(&self, get: u32) -> Result<(), Stop> {
        self.pass(Step::BeforeGet, || {
            (end_event(self.context, self.command, self.bytes, ErrorCode::None), self.address(CONTROL_BLOCK_GET))
        })?;
        self.store_get(get)
    }

    fn note(&self, done: &Turn) -> bool {
        let go_on = self.context.channel.complete(done);
        self.context.device.ports.tracer.emit(end_event(self.context, self.command, self.bytes, ErrorCode::None));
        go_on
    }

    fn interrupt(&self) -> Result<(), Stop> {
        let Context { device, number, turn, .. } = *self.context;
        let vector = turn.setup.vector;
        self.pass(Step::BeforeInterrupt, || {
            let event = Event::Interrupt { vector, channel: Some(number), outcome: InterruptOutcome::Sent };
            (event, vector.into())
        })?;
        device.raise(vector, InterruptCause::CommandComplete(number));
        Ok(())
    }
}

/// Stops the channel with an error and reports it to the driver, unless it was reset.
pub(super) fn fail(context: &Context<'_>, failure: ChannelFailure) {
    let (device, turn) = (context.device, &context.turn);
    // With a pass, so that no interrupt comes behind the reset of the function.
    let _pass = device.gate.enter();
    if context.channel.fail(turn, failure) {
        device.counters.add(Counter::ChannelErrors, 1);
        device.ports.tracer.emit(Event::ChannelError {
            channel: context.number,
            error: failure.code,
            position: turn.get,
            entry: failure.entry,
            address: failure.address,
        });
        device.raise(turn.setup.vector, InterruptCause::ChannelError(context.number));
    }
}

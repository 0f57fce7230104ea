// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the result of a command is reported to the driver and the trace.

use ersatz_abi::channel::{CONTROL_BLOCK_FENCE, CONTROL_BLOCK_GET};
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;

use super::completion::{Completion, complete};
use super::context::{Context, Stop};
use super::gate::Master;
use crate::channel::task::Task;
use crate::channel::{ChannelFailure, Turn};
use crate::dma::{DmaSession, ReportedSession};
use crate::interrupt::InterruptCause;
use crate::trace::Event;

/// Reports to the driver that the command at the turn's GET is done, from the task's stage on, and moves the turn to the next
/// command. Returns whether to go on with that.
pub(super) fn retire(context: &mut Context<'_>, task: &mut Task) -> Result<bool, Stop> {
    let Task { command, stage, bytes, .. } = task;
    let mut turn = context.turn;
    let result = {
        // Mastership is for what is stored: an interrupt waits in MSI-X without it.
        let pass = context.enter()?.master(&context.device.ports.dma);
        let control_block = ControlBlock { context, master: pass.as_ref().ok(), command, bytes: *bytes };
        complete(&control_block, &mut turn, stage, command.fence, command.interrupt)
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
}

impl ControlBlock<'_> {
    fn address(&self, offset: u64) -> u64 {
        self.context.turn.setup.control_block + offset
    }

    fn dma(&self) -> Result<&ReportedSession<'_>, Stop> {
        let refused = || Stop::failed(ErrorCode::NotMaster, 0, self.address(CONTROL_BLOCK_GET));
        self.master.map(|master| &master.dma).ok_or_else(refused)
    }
}

impl Completion for ControlBlock<'_> {
    type Error = Stop;

    fn fence(&self, value: Option<u64>) -> Result<(), Stop> {
        let Context { device, number: channel, engine, turn, .. } = *self.context;
        // GET as it is: a control block that cannot be written is found out before anything is counted or traced.
        self.get(turn.get)?;
        // Counted before the driver can see it: a driver that waits for the fence may look at the counters next.
        device.counters.add(Counter::Commands, 1);
        let Some(value) = value else { return Ok(()) };
        let address = self.address(CONTROL_BLOCK_FENCE);
        device.counters.add(Counter::Fences, 1);
        device.ports.tracer.emit(Event::Fence { channel, engine, value, address });
        self.dma()?.store_u64(address, value).map_err(|error| Stop::write(0, error))
    }

    fn get(&self, get: u32) -> Result<(), Stop> {
        let address = self.address(CONTROL_BLOCK_GET);
        self.dma()?.store_u32(address, get).map_err(|error| Stop::write(0, error))
    }

    fn note(&self, done: &Turn) -> bool {
        let go_on = self.context.channel.complete(done);
        self.context.device.ports.tracer.emit(end_event(self.context, self.command, self.bytes, ErrorCode::None));
        go_on
    }

    fn interrupt(&self) -> Result<(), Stop> {
        let Context { device, number, turn, .. } = *self.context;
        device.raise(turn.setup.vector, InterruptCause::CommandComplete(number));
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

pub(super) fn start_event(context: &Context<'_>, command: &Command) -> Event {
    let (address, count) = subject(&command.operation);
    Event::CommandStart {
        channel: context.number,
        engine: context.engine,
        position: context.turn.get,
        opcode: command.operation.opcode(),
        cause: command.cause,
        count,
        address,
        fence: command.fence,
        interrupt: command.interrupt,
        tag: command.tag,
    }
}

pub(super) fn end_event(context: &Context<'_>, command: &Command, bytes: u64, error: ErrorCode) -> Event {
    Event::CommandEnd {
        channel: context.number,
        engine: context.engine,
        position: context.turn.get,
        opcode: command.operation.opcode(),
        cause: command.cause,
        error,
        bytes,
        tag: command.tag,
    }
}

/// Where an operation works, and how much: of a list, of an invalidation, of a kernel's first operand.
fn subject(operation: &Operation) -> (u64, u64) {
    match *operation {
        Operation::Nop => (0, 0),
        Operation::Copy(list) | Operation::Fill(list, _) | Operation::Digest(list) => (list.address, list.count.into()),
        Operation::Invalidate(invalidation) => {
            let (_, address, length) = invalidation.encode();
            (address, length)
        }
        Operation::Kernel(kernel) => {
            let words = kernel.encode();
            (words.first, words.count)
        }
    }
}

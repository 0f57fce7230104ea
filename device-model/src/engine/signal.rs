// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the driver and the trace learn what became of a command.

use ersatz_abi::channel::{CONTROL_BLOCK_FENCE, CONTROL_BLOCK_GET};
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;

use super::completion::{Completion, complete};
use super::context::{Context, Stop};
use super::gate::Master;
use super::task::Task;
use crate::channel::{Fault, Turn};
use crate::dma::DmaSession;
use crate::interrupt::InterruptCause;
use crate::trace::Event;

/// Tells the driver that the command at the turn's GET is done. Whether to go on with the next command.
pub(super) fn finish(context: &Context<'_>, task: &Task) -> Result<bool, Stop> {
    let (device, command) = (context.device, &task.command);
    let block = context.turn.setup.control_block;
    context.access(0, block + CONTROL_BLOCK_GET, |master| {
        let control_block = ControlBlock { context, master, task };
        // GET as it is: a control block that cannot be written is found out before anything is counted or traced.
        control_block.get(context.turn.get)?;
        // Counted before the driver can see it: who waits for the fence may look at the counters next.
        device.counters.add(Counter::Commands, 1);
        complete(&control_block, &context.turn, command.fence, command.interrupt)
    })?
}

/// The control block of the channel that a command is of.
struct ControlBlock<'a> {
    context: &'a Context<'a>,
    master: &'a Master<'a>,
    task: &'a Task,
}

impl Completion for ControlBlock<'_> {
    type Error = Stop;

    fn fence(&self, value: u64) -> Result<(), Stop> {
        let Context { device, number: channel, engine, turn, .. } = *self.context;
        let address = turn.setup.control_block + CONTROL_BLOCK_FENCE;
        device.counters.add(Counter::Fences, 1);
        device.ports.tracer.emit(Event::Fence { channel, engine, value, address });
        self.master.dma.store_u64(address, value).map_err(|error| Stop::write(0, error))
    }

    fn get(&self, get: u32) -> Result<(), Stop> {
        let address = self.context.turn.setup.control_block + CONTROL_BLOCK_GET;
        self.master.dma.store_u32(address, get).map_err(|error| Stop::write(0, error))
    }

    fn note(&self, done: &Turn) -> bool {
        let go_on = self.context.channel.complete(done);
        self.context.device.ports.tracer.emit(end_event(self.context, self.task, ErrorCode::None));
        go_on
    }

    fn interrupt(&self) {
        let Context { device, number, turn, .. } = *self.context;
        device.raise(turn.setup.vector, InterruptCause::CommandComplete(number));
    }
}

/// Stops the channel with an error and tells the driver, unless it was reset.
pub(super) fn fail(context: &Context<'_>, fault: Fault) {
    let (device, turn) = (context.device, &context.turn);
    // With a pass, so that no interrupt comes behind the reset of the function.
    let _pass = device.gate.enter();
    if context.channel.fail(turn, fault) {
        device.counters.add(Counter::ChannelErrors, 1);
        device.ports.tracer.emit(Event::ChannelError {
            channel: context.number,
            error: fault.code,
            position: turn.get,
            entry: fault.entry,
            address: fault.address,
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

pub(super) fn end_event(context: &Context<'_>, task: &Task, error: ErrorCode) -> Event {
    let Task { command, bytes, .. } = *task;
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

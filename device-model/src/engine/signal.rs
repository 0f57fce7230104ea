// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the driver and the trace learn what became of a command.

use ersatz_abi::channel::{CONTROL_BLOCK_FENCE, CONTROL_BLOCK_GET};
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;

use super::context::{Context, Stop};
use super::task::Task;
use crate::channel::Fault;
use crate::trace::Event;

/// Tells the driver that the command at the turn's GET is done: fence, GET, interrupt, in this order. Whether to go on with
/// the next command.
pub(super) fn finish(context: &Context<'_>, task: &Task) -> Result<bool, Stop> {
    let (device, command) = (context.device, &task.command);
    let done = context.turn.completed(command.fence);
    let block = context.turn.setup.control_block;
    context.access(0, block + CONTROL_BLOCK_GET, |_| {
        let write = |error| Stop::write(0, error);
        // GET as it is: a control block that cannot be written is found out before anything is counted or traced.
        device.ports.dma.store_u32(block + CONTROL_BLOCK_GET, context.turn.get).map_err(write)?;
        // Counted before the driver can see it: who waits for the fence may look at the counters next.
        device.counters.add(Counter::Commands, 1);
        if let Some(value) = command.fence {
            let address = block + CONTROL_BLOCK_FENCE;
            device.counters.add(Counter::Fences, 1);
            let event = Event::Fence { channel: context.number, engine: context.engine, value, address };
            device.ports.tracer.emit(event);
            device.ports.dma.store_u64(address, value).map_err(write)?;
        }
        device.ports.dma.store_u32(block + CONTROL_BLOCK_GET, done.get).map_err(write)?;
        let go_on = context.channel.complete(&done);
        device.ports.tracer.emit(end_event(context, task, ErrorCode::None));
        if command.interrupt {
            device.raise(context.turn.setup.vector, Some(context.number));
        }
        Ok(go_on)
    })?
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
        device.raise(turn.setup.vector, Some(context.number));
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

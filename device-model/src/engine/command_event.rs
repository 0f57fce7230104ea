// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The events of a command's beginning and end.

use ersatz_abi::command::{Command, Operation};
use ersatz_abi::error::ErrorCode;

use super::context::Context;
use crate::trace::Event;

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

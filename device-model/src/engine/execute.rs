// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fetching commands and lists, executing them, and telling the driver.
//!
//! All that is fetched is copied first and looked at after, so a guest that changes it meanwhile changes nothing. Commands
//! and entries before one that cannot be fetched or executed have been executed, and the error says exactly which one it
//! was.

use std::sync::Arc;

use ersatz_abi::channel::{CONTROL_BLOCK_FENCE, CONTROL_BLOCK_GET, CONTROL_BLOCK_PUT};
use ersatz_abi::command::{COMMAND_BYTES, Command, CommandError, EntryError, LIST_ENTRY_BYTES, ListEntry, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::list::ListError;

use super::context::{Context, Stop, words_at};
use super::transfer::{Item, Transfer, Work};
use crate::channel::{Fault, Turn};
use crate::device::Device;
use crate::trace::Event;

/// Commands fetched at once, and executed before other channels have their turn.
const COMMANDS_AT_ONCE: u32 = 16;
/// List entries fetched at once.
const ENTRIES_AT_ONCE: u64 = 128;

const BATCH_BYTES: usize = (ENTRIES_AT_ONCE * LIST_ENTRY_BYTES) as usize;
const _: () = assert!(COMMANDS_AT_ONCE as u64 * COMMAND_BYTES <= BATCH_BYTES as u64);

/// What an engine keeps from command to command.
pub(crate) struct Executor {
    device: Arc<Device>,
    engine: u8,
    commands: Box<[u8]>,
    entries: Box<[u8]>,
    transfer: Transfer,
}

impl Executor {
    pub(crate) fn new(device: Arc<Device>, engine: u8) -> Self {
        let batch = || vec![0; BATCH_BYTES].into_boxed_slice();
        Self { device, engine, commands: batch(), entries: batch(), transfer: Transfer::new() }
    }

    /// Executes up to [`COMMANDS_AT_ONCE`] commands of a channel; whether it should have another turn.
    pub(crate) fn run(&mut self, number: u8, mut turn: Turn) -> bool {
        let device = self.device.clone();
        let channel = &device.channels[usize::from(number)];
        let context = Context { device: &device, channel, number, engine: self.engine };
        match self.run_batch(&context, &mut turn) {
            Ok(more) => return more,
            Err(Stop::Reset) => {}
            Err(Stop::Fault(fault)) => fail(&context, &turn, fault),
        }
        true
    }

    fn run_batch(&mut self, context: &Context<'_>, turn: &mut Turn) -> Result<bool, Stop> {
        let ring = turn.setup.ring;
        let put_address = turn.setup.control_block + CONTROL_BLOCK_PUT;
        let put = context
            .access(turn, 0, put_address, || context.device.ports.dma.load_u32(put_address))?
            .map_err(|error| Stop::read(0, error))?;
        let Some(waiting) = ring.waiting(turn.get, put) else {
            return Err(Stop::fault(ErrorCode::BadPut, 0, put_address));
        };
        context.channel.set_busy(turn, waiting > 0);
        if waiting == 0 {
            return Ok(false);
        }
        let run = ring.contiguous(turn.get, waiting, COMMANDS_AT_ONCE);
        let fetched = context.fetch(turn, 0, run.address, run.count.into(), COMMAND_BYTES, &mut self.commands)?;
        for slot in 0..fetched as usize {
            let words = words_at::<8>(&self.commands, slot);
            if !self.execute(context, turn, &words)? {
                break;
            }
        }
        Ok(true)
    }

    /// Executes the command at the turn's GET, and moves that on; whether to go on with the next.
    fn execute(&mut self, context: &Context<'_>, turn: &mut Turn, words: &[u64; 8]) -> Result<bool, Stop> {
        let command = Command::decode(words).map_err(|error| command_fault(error, turn, words))?;
        if command.fence.is_some_and(|value| value <= turn.fence) {
            return Err(Stop::fault(ErrorCode::FenceOrder, 0, turn.setup.control_block + CONTROL_BLOCK_FENCE));
        }
        // With leave to go on, so that no command begins in the trace behind the reset that drops it.
        context.access(turn, 0, turn.setup.ring.address(turn.get), || {
            context.device.ports.tracer.emit(start_event(context, turn.get, &command));
        })?;
        let mut bytes = 0;
        let result = self.execute_list(context, turn, &command, &mut bytes);
        let result = result.and_then(|()| finish(context, turn, &command, bytes));
        if let Err(Stop::Fault(fault)) = result {
            let _pass = context.device.gate.enter();
            if context.channel.is_current(turn) {
                let event = end_event(context, turn.get, &command, fault.code, bytes);
                context.device.ports.tracer.emit(event);
            }
        }
        result
    }

    fn execute_list(
        &mut self,
        context: &Context<'_>,
        turn: &Turn,
        command: &Command,
        bytes: &mut u64,
    ) -> Result<(), Stop> {
        let (list, work) = match command.operation {
            Operation::Nop => return Ok(()),
            Operation::Copy(list) => (list, Work::Copy),
            Operation::Fill(list, pattern) => (list, Work::Fill(pattern)),
            Operation::Digest(list) => (list, Work::Digest),
            Operation::Invalidate(_) | Operation::Kernel(_) => {
                return Err(Stop::fault(ErrorCode::WrongEngine, 0, turn.setup.ring.address(turn.get)));
            }
        };
        let mut next = 0;
        while next < list.count {
            let address = list.address + u64::from(next) * LIST_ENTRY_BYTES;
            let wanted = u64::from(list.count - next).min(ENTRIES_AT_ONCE);
            let fetched = context.fetch(turn, next, address, wanted, LIST_ENTRY_BYTES, &mut self.entries)?;
            for slot in 0..fetched as usize {
                let words = words_at::<4>(&self.entries, slot);
                let place = address + slot as u64 * LIST_ENTRY_BYTES;
                let entry =
                    ListEntry::decode(&words).map_err(|error| Stop::fault(entry_error_code(error), next, place))?;
                let item = Item { entry: &entry, index: next, cause: command.cause };
                self.transfer.run(context, turn, work, &item)?;
                *bytes += u64::from(entry.length);
                next += 1;
            }
        }
        Ok(())
    }
}

/// Tells the driver that the command at the turn's GET is done: fence, GET, interrupt, in this order. Whether to go on with
/// the next command.
fn finish(context: &Context<'_>, turn: &mut Turn, command: &Command, bytes: u64) -> Result<bool, Stop> {
    let device = context.device;
    let done = turn.completed(command.fence);
    let block = turn.setup.control_block;
    let go_on = context.access(turn, 0, block + CONTROL_BLOCK_GET, || {
        let write = |error| Stop::write(0, error);
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
        device.ports.tracer.emit(end_event(context, turn.get, command, ErrorCode::None, bytes));
        if command.interrupt {
            device.raise(turn.setup.vector, Some(context.number));
        }
        Ok(go_on)
    })??;
    *turn = done;
    Ok(go_on)
}

/// Stops the channel with an error and tells the driver, unless it was reset.
fn fail(context: &Context<'_>, turn: &Turn, fault: Fault) {
    let device = context.device;
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

fn start_event(context: &Context<'_>, position: u32, command: &Command) -> Event {
    let (address, count) = subject(&command.operation);
    Event::CommandStart {
        channel: context.number,
        engine: context.engine,
        position,
        opcode: command.operation.opcode(),
        cause: command.cause,
        count,
        address,
        fence: command.fence,
        interrupt: command.interrupt,
        tag: command.tag,
    }
}

fn end_event(context: &Context<'_>, position: u32, command: &Command, error: ErrorCode, bytes: u64) -> Event {
    Event::CommandEnd {
        channel: context.number,
        engine: context.engine,
        position,
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

fn command_fault(error: CommandError, turn: &Turn, words: &[u64; 8]) -> Stop {
    let command = turn.setup.ring.address(turn.get);
    match error {
        CommandError::Unknown => Stop::fault(ErrorCode::BadCommand, 0, command),
        CommandError::Reserved => Stop::fault(ErrorCode::ReservedBits, 0, command),
        CommandError::List(ListError::Count) => Stop::fault(ErrorCode::BadCount, 0, command),
        CommandError::List(ListError::Address) => Stop::fault(ErrorCode::BadListAddress, 0, words[2]),
        CommandError::Invalidation => Stop::fault(ErrorCode::BadInvalidation, 0, command),
        CommandError::Operand(operand) => Stop::fault(ErrorCode::BadOperand, 0, operand),
    }
}

fn entry_error_code(error: EntryError) -> ErrorCode {
    match error {
        EntryError::Reserved => ErrorCode::ReservedBits,
        EntryError::Aperture => ErrorCode::BadAperture,
        EntryError::Alignment => ErrorCode::BadAlignment,
        EntryError::Length => ErrorCode::BadLength,
    }
}

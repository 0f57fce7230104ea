// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fetching commands and lists, executing them, and telling the driver.
//!
//! All that is fetched is copied first and looked at after, so a guest that changes it meanwhile changes nothing. Commands
//! and entries before one that cannot be fetched or executed have been executed, and the error says exactly which one it
//! was.

use std::sync::Arc;

use ersatz_abi::channel::{CONTROL_BLOCK_FENCE, CONTROL_BLOCK_GET, CONTROL_BLOCK_PUT};
use ersatz_abi::command::{
    COMMAND_BYTES, Command, CommandError, EntryError, LIST_ENTRY_BYTES, List, ListEntry, Operation,
};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use vm_memory::VolatileSlice;

use super::transfer::{Transfer, Work};
use crate::channel::{Channel, Fault, Turn};
use crate::device::Device;
use crate::dma::DmaError;
use crate::trace::Event;

/// Commands fetched at once, and executed before other channels have their turn.
const COMMANDS_AT_ONCE: u32 = 16;
/// List entries fetched at once.
const ENTRIES_AT_ONCE: u64 = 128;

const BATCH_BYTES: usize = (ENTRIES_AT_ONCE * LIST_ENTRY_BYTES) as usize;
const _: () = assert!(COMMANDS_AT_ONCE as u64 * COMMAND_BYTES <= BATCH_BYTES as u64);

/// Why a turn ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The channel was reset: drop everything.
    Reset,
    /// The channel is to stop with an error.
    Fault(Fault),
}

impl Stop {
    pub(crate) fn fault(code: ErrorCode, entry: u32, address: u64) -> Self {
        Self::Fault(Fault { code, entry, address })
    }

    /// Reading guest memory failed.
    pub(crate) fn read(entry: u32, error: DmaError) -> Self {
        Self::fault(ErrorCode::DmaRead, entry, refused_address(error))
    }

    /// Writing guest memory failed.
    pub(crate) fn write(entry: u32, error: DmaError) -> Self {
        Self::fault(ErrorCode::DmaWrite, entry, refused_address(error))
    }
}

fn refused_address(error: DmaError) -> u64 {
    match error {
        DmaError::Unmapped(address) | DmaError::ReadOnly(address) | DmaError::Unaligned(address) => address,
    }
}

/// One channel's turn, as the parts that work for it see it.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) device: &'a Device,
    pub(crate) channel: &'a Channel,
    pub(crate) channel_number: u8,
    pub(crate) engine: u8,
    pub(crate) turn: &'a Turn,
}

impl Context<'_> {
    /// Does something on the bus, provided that the channel was not reset and the function is master; `address` and
    /// `entry` are for the error if it is not.
    pub(crate) fn access<R>(&self, entry: u32, address: u64, work: impl FnOnce() -> R) -> Result<R, Stop> {
        let pass = self.device.gate.enter();
        if !self.channel.is_current(self.turn) {
            return Err(Stop::Reset);
        }
        if !pass.is_master() {
            return Err(Stop::fault(ErrorCode::NotMaster, entry, address));
        }
        Ok(work())
    }

    /// Reads `items` of `size` bytes each into `buffer`; returns how many could be read, at least one.
    fn fetch(&self, entry: u32, address: u64, items: u64, size: u64, buffer: &mut [u8]) -> Result<u64, Stop> {
        let mut items = items;
        loop {
            let length = usize::try_from(items * size).unwrap_or(usize::MAX).min(buffer.len());
            let target = VolatileSlice::from(&mut buffer[..length]);
            match self.access(entry, address, || self.device.ports.dma.read(address, &target))? {
                Ok(()) => return Ok(items),
                Err(error) => {
                    let whole = refused_address(error).saturating_sub(address) / size;
                    // A space that refuses an address it was not asked for must not keep this going.
                    if whole == 0 || whole >= items {
                        return Err(Stop::read(entry, error));
                    }
                    items = whole;
                }
            }
        }
    }
}

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
    pub(crate) fn run(&mut self, channel_number: u8, mut turn: Turn) -> bool {
        let device = self.device.clone();
        let channel = &device.channels[usize::from(channel_number)];
        let stop = match self.run_batch(&device, channel, channel_number, &mut turn) {
            Ok(more) => return more,
            Err(stop) => stop,
        };
        match stop {
            Stop::Reset => {}
            Stop::Fault(fault) => {
                // With a pass, so that no interrupt comes behind the reset of the function.
                let _pass = device.gate.enter();
                if channel.fail(&turn, fault) {
                    device.counters.add(Counter::ChannelErrors, 1);
                    device.ports.tracer.emit(Event::ChannelError {
                        channel: channel_number,
                        error: fault.code,
                        position: turn.get,
                        entry: fault.entry,
                        address: fault.address,
                    });
                    device.raise(turn.setup.vector, Some(channel_number));
                }
            }
        }
        true
    }

    fn run_batch(
        &mut self,
        device: &Device,
        channel: &Channel,
        channel_number: u8,
        turn: &mut Turn,
    ) -> Result<bool, Stop> {
        let ring = turn.setup.ring;
        let context = Context { device, channel, channel_number, engine: self.engine, turn };
        let put_address = turn.setup.control_block + CONTROL_BLOCK_PUT;
        let put = context
            .access(0, put_address, || device.ports.dma.load_u32(put_address))?
            .map_err(|error| Stop::read(0, error))?;
        let Some(waiting) = ring.waiting(turn.get, put) else {
            return Err(Stop::fault(ErrorCode::BadPut, 0, put_address));
        };
        channel.set_busy(turn, waiting > 0);
        if waiting == 0 {
            return Ok(false);
        }
        let run = ring.contiguous(turn.get, waiting, COMMANDS_AT_ONCE);
        let fetched = context.fetch(0, run.address, run.count.into(), COMMAND_BYTES, &mut self.commands)?;
        for slot in 0..fetched as usize {
            let words = words_at::<8>(&self.commands, slot);
            if !self.execute(device, channel, channel_number, turn, &words)? {
                break;
            }
        }
        Ok(true)
    }

    /// Executes the command at the turn's GET, and moves that on; whether to go on with the next.
    fn execute(
        &mut self,
        device: &Device,
        channel: &Channel,
        channel_number: u8,
        turn: &mut Turn,
        words: &[u64; 8],
    ) -> Result<bool, Stop> {
        let command = Command::decode(words).map_err(|error| command_fault(error, turn, words))?;
        if command.fence.is_some_and(|value| value <= turn.fence) {
            return Err(Stop::fault(ErrorCode::FenceOrder, 0, turn.setup.control_block + CONTROL_BLOCK_FENCE));
        }
        let tracer = &device.ports.tracer;
        let position = turn.get;
        let opcode = command.operation.opcode();
        let context = Context { device, channel, channel_number, engine: self.engine, turn };
        // With leave to go on, so that no command begins in the trace behind the reset that drops it.
        context.access(0, turn.setup.ring.address(position), || {
            tracer.emit(Event::CommandStart {
                channel: channel_number,
                engine: self.engine,
                position,
                opcode,
                cause: command.cause,
                count: list_of(&command.operation).map_or(0, |list| list.count),
                list: list_of(&command.operation).map_or(0, |list| list.address),
                fence: command.fence,
                interrupt: command.interrupt,
                tag: command.tag,
            });
        })?;
        let mut bytes = 0;
        let result = self.execute_list(&context, &command, &mut bytes);
        let result = result.and_then(|()| finish(device, channel, channel_number, self.engine, turn, &command));
        let error = match result {
            Err(Stop::Fault(fault)) => fault.code,
            _ => ErrorCode::None,
        };
        if !matches!(result, Err(Stop::Reset)) {
            tracer.emit(Event::CommandEnd {
                channel: channel_number,
                engine: self.engine,
                position,
                opcode,
                cause: command.cause,
                error,
                bytes,
                tag: command.tag,
            });
        }
        result
    }

    fn execute_list(&mut self, context: &Context<'_>, command: &Command, bytes: &mut u64) -> Result<(), Stop> {
        let (list, work) = match command.operation {
            Operation::Nop => return Ok(()),
            Operation::Copy(list) => (list, Work::Copy),
            Operation::Fill(list, pattern) => (list, Work::Fill(pattern)),
            Operation::Digest(list) => (list, Work::Digest),
        };
        let mut next = 0;
        while next < list.count {
            let address = list.address + u64::from(next) * LIST_ENTRY_BYTES;
            let wanted = u64::from(list.count - next).min(ENTRIES_AT_ONCE);
            let fetched = context.fetch(next, address, wanted, LIST_ENTRY_BYTES, &mut self.entries)?;
            for slot in 0..fetched as usize {
                let words = words_at::<4>(&self.entries, slot);
                let place = address + slot as u64 * LIST_ENTRY_BYTES;
                let entry =
                    ListEntry::decode(&words).map_err(|error| Stop::fault(entry_error_code(error), next, place))?;
                self.transfer.run(context, next, work, &entry, command.cause)?;
                *bytes += u64::from(entry.length);
                next += 1;
            }
        }
        Ok(())
    }
}

/// Tells the driver that the command at the turn's GET is done: fence, GET, interrupt, in this order. Whether to go on with
/// the next command.
fn finish(
    device: &Device,
    channel: &Channel,
    channel_number: u8,
    engine: u8,
    turn: &mut Turn,
    command: &Command,
) -> Result<bool, Stop> {
    let done = turn.completed(command.fence);
    let block = turn.setup.control_block;
    let context = Context { device, channel, channel_number, engine, turn };
    let go_on = context.access(0, block + CONTROL_BLOCK_GET, || {
        let write = |error| Stop::write(0, error);
        if let Some(value) = command.fence {
            let address = block + CONTROL_BLOCK_FENCE;
            // Before the driver can see the fence: who waits for it may look at trace and counters next.
            device.counters.add(Counter::Fences, 1);
            device.ports.tracer.emit(Event::Fence { channel: channel_number, engine, value, address });
            device.counters.add(Counter::Commands, 1);
            device.ports.dma.store_u64(address, value).map_err(write)?;
        } else {
            device.counters.add(Counter::Commands, 1);
        }
        device.ports.dma.store_u32(block + CONTROL_BLOCK_GET, done.get).map_err(write)?;
        let go_on = channel.complete(&done);
        if command.interrupt {
            device.raise(turn.setup.vector, Some(channel_number));
        }
        Ok(go_on)
    })??;
    *turn = done;
    Ok(go_on)
}

fn list_of(operation: &Operation) -> Option<List> {
    match *operation {
        Operation::Nop => None,
        Operation::Copy(list) | Operation::Fill(list, _) | Operation::Digest(list) => Some(list),
    }
}

fn command_fault(error: CommandError, turn: &Turn, words: &[u64; 8]) -> Stop {
    let command = turn.setup.ring.address(turn.get);
    match error {
        CommandError::Unknown => Stop::fault(ErrorCode::BadCommand, 0, command),
        CommandError::Reserved => Stop::fault(ErrorCode::ReservedBits, 0, command),
        CommandError::Count => Stop::fault(ErrorCode::BadCount, 0, command),
        CommandError::ListAddress => Stop::fault(ErrorCode::BadListAddress, 0, words[2]),
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

/// The little-endian words of the item in a slot of a batch, zeros beyond its end.
fn words_at<const N: usize>(batch: &[u8], slot: usize) -> [u64; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(batch.chunks_exact(8).skip(slot * N)) {
        *word = bytes.try_into().map_or(0, u64::from_le_bytes);
    }
    words
}

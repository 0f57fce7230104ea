// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fetching commands and lists, executing them, and putting aside those that must wait.
//!
//! All that is fetched is copied first and looked at after, so a guest that changes it meanwhile changes nothing. Commands
//! and entries before one that cannot be fetched or executed have been executed, and the error says exactly which one it
//! was.

use std::collections::HashMap;
use std::sync::Arc;

use ersatz_abi::channel::{CONTROL_BLOCK_FENCE, CONTROL_BLOCK_PUT};
use ersatz_abi::command::{COMMAND_BYTES, Command, Operation};
use ersatz_abi::error::ErrorCode;
use ersatz_abi::mmu::Invalidation;

use super::bus::Bus;
use super::context::{Context, PageFault, Stop, words_at};
use super::kernel::{Lanes, in_flight};
use super::list::Lists;
use super::signal::{end_event, fail, finish, start_event};
use super::task::Task;
use super::transfer::Work;
use crate::channel::{Fault, Turn};
use crate::device::{Device, EngineKind};
use crate::dma::DmaSession;

/// Commands fetched at once, and executed before other channels have their turn.
const COMMANDS_AT_ONCE: u32 = 16;

/// What an engine keeps from command to command.
pub(crate) struct Executor {
    device: Arc<Device>,
    engine: u8,
    commands: Box<[u8]>,
    work: Unit,
    /// The commands that wait, by channel, each with the turn it belongs to.
    waiting: HashMap<u8, (Turn, Task)>,
}

/// What the engine works with.
enum Unit {
    Copy(Lists),
    Compute(Lanes),
}

impl Executor {
    pub(crate) fn new(device: Arc<Device>, engine: u8) -> Self {
        let work = match device.engine_kind(engine) {
            EngineKind::Copy => Unit::Copy(Lists::new()),
            EngineKind::Compute => Unit::Compute(Lanes::new()),
        };
        let commands = vec![0; COMMANDS_AT_ONCE as usize * COMMAND_BYTES as usize].into_boxed_slice();
        Self { device, engine, commands, work, waiting: HashMap::new() }
    }

    /// Goes on with the command of a channel that waited, or executes up to [`COMMANDS_AT_ONCE`] new ones; whether it should
    /// have another turn without being woken.
    pub(crate) fn run(&mut self, number: u8, turn: Turn) -> bool {
        let device = self.device.clone();
        let channel = &device.channels[usize::from(number)];
        let mut context = Context { device: &device, channel, turn, number, engine: self.engine };
        match self.run_batch(&mut context) {
            Ok(more) => more,
            Err(Stop::Wait) => false,
            Err(Stop::Fault(fault)) => {
                fail(&context, fault);
                true
            }
            Err(Stop::Reset | Stop::Page(_)) => true,
        }
    }

    fn run_batch(&mut self, context: &mut Context<'_>) -> Result<bool, Stop> {
        if let Some((_, task)) = self.waiting.remove(&context.number).filter(|(turn, _)| turn.is_same(&context.turn)) {
            self.proceed(context, task)?;
            return Ok(true);
        }
        let ring = context.turn.setup.ring;
        let put_address = context.turn.setup.control_block + CONTROL_BLOCK_PUT;
        let put = context
            .access(0, put_address, |master| master.dma.load_u32(put_address))?
            .map_err(|error| Stop::read(0, error))?;
        let Some(waiting) = ring.waiting(context.turn.get, put) else {
            return Err(Stop::fault(ErrorCode::BadPut, 0, put_address));
        };
        context.channel.set_busy(&context.turn, waiting > 0);
        if waiting == 0 {
            return Ok(false);
        }
        let run = ring.contiguous(context.turn.get, waiting, COMMANDS_AT_ONCE);
        let fetched = context.fetch(0, run.address, run.count.into(), COMMAND_BYTES, &mut self.commands)?;
        for slot in 0..fetched as usize {
            let words = words_at::<8>(&self.commands, slot);
            if !self.execute(context, &words)? {
                break;
            }
        }
        Ok(true)
    }

    /// Begins the command at the turn's GET; as [`Self::proceed`].
    fn execute(&mut self, context: &mut Context<'_>, words: &[u64; 8]) -> Result<bool, Stop> {
        let turn = context.turn;
        let command =
            Command::decode(words).map_err(|error| Stop::command(error, turn.setup.ring.address(turn.get), words))?;
        if command.fence.is_some_and(|value| value <= turn.fence) {
            return Err(Stop::fault(ErrorCode::FenceOrder, 0, turn.setup.control_block + CONTROL_BLOCK_FENCE));
        }
        // With leave to go on, so that no command begins in the trace behind the reset that drops it.
        context.access(0, turn.setup.ring.address(turn.get), |_| {
            context.device.ports.tracer.emit(start_event(context, &command));
        })?;
        self.proceed(context, Task::new(command))
    }

    /// Takes a command to its end and moves the turn's GET on, or puts it aside if it must wait. Whether to go on with the next
    /// one.
    fn proceed(&mut self, context: &mut Context<'_>, mut task: Task) -> Result<bool, Stop> {
        let result = self.perform(context, &mut task).and_then(|()| finish(context, &task));
        let stop = match result {
            Ok(go_on) => {
                context.turn = context.turn.completed(task.command.fence);
                return Ok(go_on);
            }
            Err(Stop::Page(fault)) => self.suspend(context, &task, fault),
            Err(Stop::Wait) if context.channel.hold(&context.turn) => Stop::Wait,
            Err(Stop::Wait) => Stop::Reset,
            Err(stop) => stop,
        };
        match stop {
            Stop::Wait => {
                self.waiting.insert(context.number, (context.turn, task));
            }
            Stop::Fault(fault) => {
                let _pass = context.device.gate.enter();
                if context.channel.is_current(&context.turn) {
                    context.device.ports.tracer.emit(end_event(context, &task, fault.code));
                }
            }
            Stop::Reset | Stop::Page(_) => {}
        }
        Err(stop)
    }

    /// Does what the command says, from where it has come to.
    fn perform(&mut self, context: &Context<'_>, task: &mut Task) -> Result<(), Stop> {
        let Task { command, bytes, cursor } = task;
        let (list, work, lists) = match (command.operation, &mut self.work) {
            (Operation::Nop, _) => return Ok(()),
            (Operation::Invalidate(invalidation), _) => {
                return invalidate(context, invalidation, &mut cursor.invalidation);
            }
            (Operation::Kernel(kernel), Unit::Compute(lanes)) => return lanes.run(context, &kernel, cursor, bytes),
            (Operation::Copy(list), Unit::Copy(lists)) => (list, Work::Copy, lists),
            (Operation::Fill(list, pattern), Unit::Copy(lists)) => (list, Work::Fill(pattern), lists),
            (Operation::Digest(list), Unit::Copy(lists)) => (list, Work::Digest, lists),
            _ => {
                let place = context.turn.setup.ring.address(context.turn.get);
                return Err(Stop::fault(ErrorCode::WrongEngine, 0, place));
            }
        };
        lists.run(context, (list, work, command.cause), cursor, bytes)
    }

    /// An access of the command faulted: has the channel wait for a replay, if its address space wants that.
    fn suspend(&self, context: &Context<'_>, task: &Task, first: PageFault) -> Stop {
        let device = context.device;
        let PageFault { entry, address, .. } = first;
        if !device.mmu.spaces.is_replayable(context.turn.setup.asid) {
            return Stop::fault(ErrorCode::MmuFault, entry, address);
        }
        let mut faults = vec![first];
        if let Operation::Kernel(kernel) = &task.command.operation {
            let more = Bus::open(context, 0, address, |bus| Ok(in_flight(bus, kernel, &task.cursor, &first)));
            match more {
                Ok(more) => faults.extend(more),
                Err(stop) => return stop,
            }
        }
        let waits = context.access(entry, address, |master| {
            let fault = Fault { code: ErrorCode::MmuFault, entry, address };
            context
                .channel
                .suspend(&context.turn, fault, || faults.iter().for_each(|fault| context.report(master, fault)))
        });
        match waits {
            Ok(true) => Stop::Wait,
            Ok(false) => Stop::Reset,
            Err(stop) => stop,
        }
    }
}

/// Asks for an invalidation, and waits until it is acknowledged.
fn invalidate(context: &Context<'_>, invalidation: Invalidation, number: &mut Option<u64>) -> Result<(), Stop> {
    let mmu = &context.device.mmu;
    let number = match *number {
        Some(number) => number,
        None => *number.insert(context.unless_reset(|| mmu.request(invalidation, Some(context.number)))?),
    };
    if mmu.acknowledged() >= number { Ok(()) } else { Err(Stop::Wait) }
}

#[cfg(test)]
mod tests;

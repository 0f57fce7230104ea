// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fetching commands, executing them, and handing back to their channels those that must wait.
//!
//! All that is fetched is copied first and looked at after, so a guest that changes it meanwhile changes nothing. Commands
//! and entries before one that cannot be fetched or executed have been executed, and the error says exactly which one it
//! was.

use std::sync::Arc;

use ersatz_abi::channel::{CONTROL_BLOCK_FENCE, CONTROL_BLOCK_PUT};
use ersatz_abi::command::{COMMAND_BYTES, Command, Operation};
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::FaultRecord;
use ersatz_abi::mmu::Invalidation;

use super::command_event::{end_event, start_event};
use super::context::{Context, Stop, words_at};
use super::decide::decide_about_command;
use super::hold::{at_fetched, site};
use super::kernel::{KernelRunner, in_flight};
use super::list::Lists;
use super::memory_access::MemoryAccess;
use super::retire::{fail, retire};
use super::scheduler::Next;
use super::transfer::Work;
use crate::channel::task::{Stage, Task};
use crate::channel::{ChannelFailure, FaultedAccess, Turn, Wait};
use crate::device::{Device, EngineKind};
use crate::dma::DmaSession;
use crate::mmu::PageFault;
use crate::trace::{NotificationEvent, Step};

/// Commands fetched at once, and executed before other channels have their turn.
const COMMANDS_AT_ONCE: u32 = 16;

/// What an engine keeps from command to command.
pub(crate) struct Executor {
    device: Arc<Device>,
    engine: u8,
    commands: Box<[u8]>,
    work: EngineUnit,
}

/// What the engine works with.
enum EngineUnit {
    Copy(Lists),
    Compute(KernelRunner),
}

impl Executor {
    pub(crate) fn new(device: Arc<Device>, engine: u8) -> Self {
        let work = match device.engine_kind(engine) {
            EngineKind::Copy => EngineUnit::Copy(Lists::new()),
            EngineKind::Compute => EngineUnit::Compute(KernelRunner::new()),
        };
        let commands = vec![0; COMMANDS_AT_ONCE as usize * COMMAND_BYTES as usize].into_boxed_slice();
        Self { device, engine, commands, work }
    }

    /// Goes on with the command that had to wait, or executes up to [`COMMANDS_AT_ONCE`] new ones; returns when to come back.
    pub(crate) fn run(&mut self, number: u8, turn: Turn, resumed: Option<Box<Task>>) -> Next {
        let device = self.device.clone();
        let channel = &device.channels[usize::from(number)];
        let mut context = Context { device: &device, channel, turn, number, engine: self.engine };
        let result = match resumed {
            Some(task) => self.proceed(&mut context, *task).map(|_| true),
            None => self.run_batch(&mut context),
        };
        match result {
            Ok(false) => Next::Idle,
            Err(Stop::Wait(wait)) => Next::waiting(wait),
            Err(Stop::Failed(failure)) => {
                fail(&context, failure);
                Next::Again
            }
            Ok(true) | Err(Stop::Reset | Stop::PageFault { .. }) => Next::Again,
        }
    }

    /// Executes new commands; returns whether there may be more.
    fn run_batch(&mut self, context: &mut Context<'_>) -> Result<bool, Stop> {
        let ring = context.turn.setup.ring;
        let put_address = context.turn.setup.control_block + CONTROL_BLOCK_PUT;
        let put = context
            .access(0, put_address, |master| master.dma.load_u32(put_address))?
            .map_err(|error| Stop::read(0, error))?;
        let Some(waiting) = ring.waiting(context.turn.get, put) else {
            return Err(Stop::failed(ErrorCode::BadPut, 0, put_address));
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
            return Err(Stop::failed(ErrorCode::FenceOrder, 0, turn.setup.control_block + CONTROL_BLOCK_FENCE));
        }
        // With the permit to go on, so that no command begins in the trace behind the reset that drops it.
        context.access(0, turn.setup.ring.address(turn.get), |_| {
            context.device.ports.tracer.emit(start_event(context, &command));
        })?;
        self.proceed(context, Task::new(command))
    }

    /// Takes a command from its stage to its end and moves the turn's GET on, or suspends it in its channel if it must wait.
    /// Returns whether to go on with the next one.
    fn proceed(&mut self, context: &mut Context<'_>, mut task: Task) -> Result<bool, Stop> {
        let stop = match self.run_stages(context, &mut task) {
            Ok(go_on) => return Ok(go_on),
            Err(Stop::PageFault { fault, entry }) => self.suspend_at_fault(context, &task, fault, entry),
            Err(Stop::Wait(wait)) => suspend(context, &task, wait),
            Err(stop) => stop,
        };
        if let Stop::Failed(failure) = stop {
            let _pass = context.device.gate.enter();
            if context.channel.is_current(&context.turn) {
                let end = end_event(context, &task.command, task.bytes, failure.code);
                context.device.ports.tracer.emit(end);
            }
        }
        Err(stop)
    }

    /// As [`Self::proceed`], without an answer to what stops the command.
    fn run_stages(&mut self, context: &mut Context<'_>, task: &mut Task) -> Result<bool, Stop> {
        if task.stage == Stage::Fetched {
            at_fetched(context, &task.command, &mut task.cursor.passes)?;
            decide_about_command(context, &task.command, &mut task.cursor.passes)?;
            task.stage = Stage::Work;
        }
        if task.stage == Stage::Work {
            self.perform(context, task)?;
        }
        retire(context, task)
    }

    /// Does what the command says, from where it has come to.
    fn perform(&mut self, context: &Context<'_>, task: &mut Task) -> Result<(), Stop> {
        let Task { command, bytes, cursor, .. } = task;
        let (list, work, lists) = match (command.operation, &mut self.work) {
            (Operation::Nop, _) => return Ok(()),
            (Operation::Invalidate(invalidation), _) => {
                return invalidate(context, invalidation, &mut cursor.invalidation);
            }
            (Operation::Kernel(kernel), EngineUnit::Compute(runner)) => {
                return runner.run(context, (&kernel, command.cause), cursor, bytes);
            }
            (Operation::Copy(list), EngineUnit::Copy(lists)) => (list, Work::Copy, lists),
            (Operation::Fill(list, pattern), EngineUnit::Copy(lists)) => (list, Work::Fill(pattern), lists),
            (Operation::Digest(list), EngineUnit::Copy(lists)) => (list, Work::Digest, lists),
            _ => {
                let place = context.turn.setup.ring.address(context.turn.get);
                return Err(Stop::failed(ErrorCode::WrongEngine, 0, place));
            }
        };
        lists.run(context, (list, work, command.cause), cursor, bytes)
    }

    /// An access of the command faulted: the channel waits for a replay, if its address space wants that.
    fn suspend_at_fault(&self, context: &Context<'_>, task: &Task, first: PageFault, entry: u32) -> Stop {
        let device = context.device;
        let address = first.address;
        let failure = ChannelFailure { code: ErrorCode::MmuFault, entry, address };
        if !device.mmu.spaces.is_replayable(context.turn.setup.asid) {
            return Stop::Failed(failure);
        }
        let mut faults = vec![first];
        if let Operation::Kernel(kernel) = &task.command.operation {
            let more =
                MemoryAccess::open(context, 0, address, |memory| Ok(in_flight(memory, kernel, &task.cursor, &first)));
            match more {
                Ok(more) => faults.extend(more),
                Err(stop) => return stop,
            }
        }
        let wait = Wait::Replay(failure, FaultedAccess { access: first.access, kind: first.kind });
        let suspended = context.access(entry, address, |master| {
            let report = || {
                faults.iter().for_each(|fault| context.report(master, fault));
                hold_behind_record(context, task, &first);
            };
            context.channel.suspend(&context.turn, task, wait, report)
        });
        match suspended {
            Ok(true) => Stop::Wait(wait),
            Ok(false) => Stop::Reset,
            Err(stop) => stop,
        }
    }
}

/// Keeps a command in its channel until its wait is over.
fn suspend(context: &Context<'_>, task: &Task, wait: Wait) -> Stop {
    let injector = &context.device.ports.injector;
    let begin = || {
        if let Wait::Hold(hold) = wait {
            injector.begin(hold);
        }
    };
    if context.channel.suspend(&context.turn, task, wait, begin) {
        return Stop::Wait(wait);
    }
    if let Wait::Hold(hold) = wait {
        injector.forget(hold);
    }
    Stop::Reset
}

/// The record of a fault is in the fault buffer. If a breakpoint holds the channel here, a replay makes it wait for the end of
/// that hold.
fn hold_behind_record(context: &Context<'_>, task: &Task, fault: &PageFault) {
    let injector = &context.device.ports.injector;
    if !injector.is_watched(Step::AfterFaultRecord) {
        return;
    }
    let Context { device, number: channel, engine, turn, .. } = *context;
    let PageFault { address, access, kind, level } = *fault;
    let asid = turn.setup.asid;
    let record = FaultRecord {
        address,
        asid,
        channel,
        engine,
        access,
        kind,
        level,
        timestamp: device.ports.clock.now(),
        number: 0,
    };
    let event = NotificationEvent::FaultRecorded { record, position: 0 };
    let site = site(context, Step::AfterFaultRecord, task.command.cause, event.into(), Some(address));
    if let Some(hold) = injector.arrive(&site) {
        injector.begin(hold);
    }
}

/// Requests an invalidation, and waits until it is acknowledged.
fn invalidate(context: &Context<'_>, invalidation: Invalidation, number: &mut Option<u64>) -> Result<(), Stop> {
    let mmu = &context.device.mmu;
    let number = match *number {
        Some(number) => number,
        None => *number.insert(context.unless_reset(|| mmu.request(invalidation, Some(context.number)))?),
    };
    if mmu.acknowledged() >= number { Ok(()) } else { Err(Stop::Wait(Wait::Acknowledgement(number))) }
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The steps of a command at which a breakpoint can hold it.
//!
//! A command that is held waits in its channel like any other command that waits. When it goes on it comes to the same step
//! again, which it then passes.

use ersatz_abi::command::{Cause, Command};
use ersatz_abi::fault::AccessKind;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::Location;

use super::command_event::start_event;
use super::context::{Context, Stop};
use crate::channel::Wait;
use crate::channel::task::Passes;
use crate::device::Device;
use crate::inject::Piece;
use crate::inject::site::Site;
use crate::trace::{Event, MmuEvent, Step};

/// A command is at a step: fails with [`Stop::Wait`] if a breakpoint holds it there. `passes` is that of its cursor; `what`
/// returns the event that belongs to the step, and the address to show.
#[inline]
pub(super) fn pass(
    context: &Context<'_>,
    step: Step,
    cause: Cause,
    passes: &mut Passes,
    what: impl FnOnce() -> (Event, u64),
) -> Result<(), Stop> {
    if passes.held.is_none() && !context.device.ports.injector.is_watched(step) {
        return Ok(());
    }
    arrive(context, step, cause, passes, what())
}

#[cold]
fn arrive(
    context: &Context<'_>,
    step: Step,
    cause: Cause,
    passes: &mut Passes,
    (event, address): (Event, u64),
) -> Result<(), Stop> {
    // A command that goes on is at the step at which it was held, or behind it.
    if passes.held.take() == Some(step) || passes.decided == Some(step) {
        return Ok(());
    }
    let site = site(context, step, cause, event, Some(address));
    let Some(hold) = context.device.ports.injector.arrive(&site) else { return Ok(()) };
    // Behind a piece the command does not come to the same place again.
    passes.held = (step != Step::AfterPiece).then_some(step);
    Err(Stop::Wait(Wait::Hold(hold)))
}

/// The place at which a command is.
pub(super) fn site(context: &Context<'_>, step: Step, cause: Cause, event: Event, address: Option<u64>) -> Site {
    let mut subject = event.subject();
    subject.channel = Some(context.number);
    subject.engine = Some(context.engine);
    subject.asid = Some(context.turn.setup.asid);
    subject.cause = Some(cause);
    Site { step, event, subject, address }
}

/// The command was fetched.
pub(super) fn at_fetched(context: &Context<'_>, command: &Command, passes: &mut Passes) -> Result<(), Stop> {
    pass(context, Step::CommandFetched, command.cause, passes, || {
        let event = start_event(context, command);
        let Event::CommandStart { address, .. } = event else { return (event, 0) };
        (event, address)
    })
}

/// What a kernel accesses in the stride that begins when it has done this much, as far as its operands say.
pub(super) fn stride_event(context: &Context<'_>, kernel: &Kernel, done: u64, stride: u64) -> (Event, u64) {
    let first = kernel.encode().first;
    let (address, length, kind) = match *kernel {
        Kernel::Read { length, .. } | Kernel::Sum { length, .. } | Kernel::Copy { length, .. } => {
            (first, length, AccessKind::Read)
        }
        Kernel::Write { length, .. } | Kernel::Set { length, .. } | Kernel::Saxpy { length, .. } => {
            (first, length, AccessKind::Write)
        }
        Kernel::AtomicAdd { length, .. } => (first, length, AccessKind::Atomic),
        Kernel::Prefetch { length, .. } => (first, length, AccessKind::Prefetch),
        // These do not go through memory in order.
        Kernel::CompareAndSwap { .. } => return access_event(context, first, 8, AccessKind::Atomic),
        Kernel::Chase { .. } => return access_event(context, first, 8, AccessKind::Read),
        Kernel::RandomUpdate { length, .. } => return access_event(context, first, length, AccessKind::Write),
    };
    access_event(context, address.saturating_add(done), length.saturating_sub(done).min(stride), kind)
}

fn access_event(context: &Context<'_>, address: u64, length: u64, kind: AccessKind) -> (Event, u64) {
    let Context { number: channel, engine, turn, .. } = *context;
    let location = Location::virtual_address(address);
    let event = MmuEvent::Access { channel, engine, asid: turn.setup.asid, kind, address, location, length };
    (event.into(), address)
}

/// The device's clock, if work takes longer than the host takes for it.
#[inline]
pub(super) fn begin_piece(context: &Context<'_>) -> Option<u64> {
    let Device { ports, .. } = context.device;
    ports.injector.is_paced().then(|| ports.clock.now())
}

/// A piece of work that was begun at `began` is done: makes the command wait until a device of the given timing would have done it.
#[inline]
pub(super) fn end_piece(context: &Context<'_>, began: Option<u64>, bytes: u64, is_over_link: bool) -> Result<(), Stop> {
    let Some(began) = began else { return Ok(()) };
    match context.device.ports.injector.done_at(context.engine, Piece { bytes, is_over_link }, began) {
        Some(done) => Err(Stop::Wait(Wait::Time(done))),
        None => Ok(()),
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What rules make of a command: it fails, its engine hangs, its fence is late or does not come.

use ersatz_abi::command::{Cause, Command};
use ersatz_abi::error::ErrorCode;

use super::command_event::start_event;
use super::context::{Context, Stop};
use super::hold::site;
use crate::channel::Wait;
use crate::channel::task::Passes;
use crate::inject::{Action, Decision};
use crate::trace::{Event, Step};

/// An event of a command is about to come about: returns what a rule does about it. A delay makes the command wait here.
#[inline]
pub(super) fn decide(
    context: &Context<'_>,
    step: Step,
    cause: Cause,
    passes: &mut Passes,
    event: impl FnOnce() -> Event,
) -> Result<Option<Action>, Stop> {
    let injector = &context.device.ports.injector;
    if passes.decided.is_none() && !injector.decides() {
        return Ok(None);
    }
    if passes.decided.take() == Some(step) {
        return Ok(None);
    }
    let event = event();
    let subject = site(context, step, cause, event, None).subject;
    match injector.decide(&event, &subject) {
        Some(Decision { action: Action::Delay { ns }, time }) => {
            passes.decided = Some(step);
            Err(Stop::Wait(Wait::Time(time.saturating_add(ns))))
        }
        decision => Ok(decision.map(|decision| decision.action)),
    }
}

/// A command was fetched: it is executed, unless a rule makes it fail or its engine hang.
pub(super) fn decide_about_command(context: &Context<'_>, command: &Command, passes: &mut Passes) -> Result<(), Stop> {
    let place = context.turn.setup.ring.address(context.turn.get);
    match decide(context, Step::CommandFetched, command.cause, passes, || start_event(context, command))? {
        Some(Action::Fail { error, .. }) => Err(Stop::failed(error, 0, place)),
        Some(Action::Hang) => {
            context.device.hang(context.engine);
            // The engine takes up no channel any more, whatever its command waits for.
            Err(Stop::Wait(Wait::Time(u64::MAX)))
        }
        _ => Ok(()),
    }
}

/// A list entry is about to be begun: returns with what it fails, if a rule makes it fail, and behind how many of its bytes.
pub(super) fn decide_about_entry(
    context: &Context<'_>,
    cause: Cause,
    length: u64,
    event: Event,
) -> Result<Option<(ErrorCode, u64)>, Stop> {
    let action = decide(context, Step::BeforePiece, cause, &mut Passes::default(), || event)?;
    Ok(match action {
        // At least the last word of the entry is not done.
        Some(Action::Fail { error, bytes }) => Some((error, bytes.min(length.saturating_sub(1)) & !7)),
        _ => None,
    })
}

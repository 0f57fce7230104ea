// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The stages in which a command ends, and their order: a CPU that sees the fence sees the data, and one that is interrupted
//! sees the fence.
//!
//! A command whose end has to wait at a stage goes on at that stage. Written against a trait, so that the model checker runs
//! the very code the device runs.

use crate::channel::Turn;
use crate::channel::task::Stage;

/// Where the end of a command is reported. A method that makes the command wait has had no effect, and is called again.
pub(super) trait Completion {
    /// Why the command cannot go on, now or at all.
    type Error;

    /// Stores the fence value, if the command has one, with release ordering: all that the command has written comes before.
    fn fence(&self, value: Option<u64>) -> Result<(), Self::Error>;
    /// Stores GET, likewise.
    fn get(&self, get: u32) -> Result<(), Self::Error>;
    /// Records in the channel that the command is done, unless it was reset. Returns whether to go on with the next command.
    fn note(&self, done: &Turn) -> bool;
    /// Raises the channel's interrupt.
    fn interrupt(&self) -> Result<(), Self::Error>;
}

/// Ends the command at which `turn` is, and whose work is done: fence, GET, interrupt, in this order, from its `stage` on.
/// Both move on with each stage that is done. Returns whether to go on with the next command.
pub(super) fn complete<C: Completion>(
    to: &C,
    turn: &mut Turn,
    stage: &mut Stage,
    fence: Option<u64>,
    interrupt: bool,
) -> Result<bool, C::Error> {
    let mut go_on = true;
    if *stage <= Stage::Fence {
        *stage = Stage::Fence;
        to.fence(fence)?;
        *stage = Stage::Get;
    }
    if *stage == Stage::Get {
        let done = turn.completed(fence);
        to.get(done.get)?;
        go_on = to.note(&done);
        *turn = done;
        *stage = Stage::Interrupt;
    }
    if interrupt {
        to.interrupt()?;
    }
    Ok(go_on)
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The order in which the end of a command is told: who sees the fence sees the data, and who is interrupted sees the fence.
//!
//! Written against a trait, so that the model checker runs the very code the device runs.

use crate::channel::Turn;

/// Where the end of a command is told.
pub(super) trait Completion {
    /// Why it cannot be told.
    type Error;

    /// Stores the fence value, with release ordering: all that the command has written comes before.
    fn fence(&self, value: u64) -> Result<(), Self::Error>;
    /// Stores GET, likewise.
    fn get(&self, get: u32) -> Result<(), Self::Error>;
    /// The device itself takes note, unless a reset came first; whether to go on with the next command.
    fn note(&self, done: &Turn) -> bool;
    /// Raises the channel's interrupt.
    fn interrupt(&self);
}

/// Tells that the command is done at which `turn` is: fence, GET, interrupt, in this order. Whether to go on with the next command.
pub(super) fn complete<C: Completion>(
    to: &C,
    turn: &Turn,
    fence: Option<u64>,
    interrupt: bool,
) -> Result<bool, C::Error> {
    let done = turn.completed(fence);
    if let Some(value) = fence {
        to.fence(value)?;
    }
    to.get(done.get)?;
    let go_on = to.note(&done);
    if interrupt {
        to.interrupt();
    }
    Ok(go_on)
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The arithmetic of a ring: free-running 32-bit positions over a power of two of slots.

use ersatz_abi::command::COMMAND_BYTES;

/// A ring of commands in guest memory. The whole of it lies inside the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    base: u64,
    commands: u32,
}

/// Commands that lie one behind the other in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Bus address of the first.
    pub(crate) address: u64,
    /// How many.
    pub(crate) count: u32,
}

impl Ring {
    /// A ring of `commands` slots, a power of two, at bus address `base`.
    pub(crate) const fn new(base: u64, commands: u32) -> Self {
        Self { base, commands }
    }

    /// Number of slots.
    pub(crate) const fn commands(self) -> u32 {
        self.commands
    }

    /// Bus address of the slot of position `get`.
    pub(crate) fn address(self, get: u32) -> u64 {
        self.base + u64::from(get & (self.commands - 1)) * COMMAND_BYTES
    }

    /// How many commands wait from `get` up to `put`; `None` if `put` is further ahead than the ring is long.
    pub(crate) fn waiting(self, get: u32, put: u32) -> Option<u32> {
        let waiting = put.wrapping_sub(get);
        (waiting <= self.commands).then_some(waiting)
    }

    /// The first of `waiting` commands from `get` on, as many as lie in one piece and at most `limit`.
    pub(crate) fn contiguous(self, get: u32, waiting: u32, limit: u32) -> Run {
        let to_end = self.commands - (get & (self.commands - 1));
        Run { address: self.address(get), count: waiting.min(to_end).min(limit) }
    }
}

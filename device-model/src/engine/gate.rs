// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The gate every access of an engine to the bus goes through.
//!
//! An engine holds a [`Pass`] for one short piece of work: a piece of a copy, a fence, an interrupt. A reset of the
//! function, or taking bus mastership away, closes the gate for a moment: that waits for the passes that are out (one piece
//! each, see [`PIECE_BYTES`](super::PIECE_BYTES)), and the next piece of an engine is refused. So DMA has ended when the
//! write that ended it returns, and that write never waits for a whole command.
//!
//! Only a [`Master`], a pass of a function that is bus master, leads to memory of the system.
//!
//! The gate is the outermost lock: it is never closed while holding a lock that an engine takes with a pass.

use std::sync::RwLockReadGuard;

use crate::bus_requests::{ReportedSession, ReportedSpace};
use crate::sync::RwLock;

/// The gate of one device.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    master: RwLock<bool>,
}

/// The permit for one access; the gate does not close before this is dropped.
pub(crate) struct Pass<'a> {
    master: RwLockReadGuard<'a, bool>,
}

impl Gate {
    /// Waits while the gate is closed.
    pub(crate) fn enter(&self) -> Pass<'_> {
        Pass { master: self.master.read() }
    }

    /// Closes the gate, runs `work`, opens it again: with `master` as the bus mastership from then on.
    pub(crate) fn close<R>(&self, master: bool, work: impl FnOnce() -> R) -> R {
        let mut guard = self.master.write();
        *guard = master;
        work()
    }
}

/// The permit for accesses to memory of the system, too.
pub(crate) struct Master<'a> {
    /// The memory of the system.
    pub(crate) dma: ReportedSession<'a>,
    _pass: Pass<'a>,
}

impl<'a> Pass<'a> {
    /// The permit for DMA; if the function may not send requests, the pass as it was.
    pub(crate) fn master(self, space: &'a ReportedSpace) -> Result<Master<'a>, Self> {
        if *self.master { Ok(Master { dma: space.open(), _pass: self }) } else { Err(self) }
    }
}

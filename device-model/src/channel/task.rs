// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A command that was begun, and how far it has come: all that is kept of it while it waits, so that it goes on at the very
//! access that faulted, or at the very step of its end.

use ersatz_abi::command::{Aperture, Command, ListEntry};
use ersatz_abi::error::ErrorCode;

use crate::trace::Step;

/// A command that was begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    pub(crate) command: Command,
    /// What is left to do of it.
    pub(crate) stage: Stage,
    /// Bytes moved, filled, read or updated so far.
    pub(crate) bytes: u64,
    pub(crate) cursor: Cursor,
}

/// What is left to do of a command: this, and all that follows. A stage that has to wait has had no effect, but for the work,
/// whose progress is in the [`Cursor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// All of it: nothing is done.
    Fetched,
    /// What the operation says.
    Work,
    /// The fence value.
    Fence,
    /// GET: in memory, and in the register.
    Get,
    /// The interrupt.
    Interrupt,
}

/// How far the work of a command has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    /// Entries of the list done.
    pub(crate) entries: u32,
    /// Bytes, steps or updates of the kernel done.
    pub(crate) done: u64,
    /// The list entry under way.
    pub(crate) part: Option<Part>,
    /// What a kernel carries along: a sum, a pointer, a random number, an old value.
    pub(crate) carry: u64,
    /// Number of the invalidation that was requested.
    pub(crate) invalidation: Option<u64>,
    /// What the command passes when it goes on.
    pub(crate) passes: Passes,
    /// What rules have decided about the list entry under way: that it fails with this behind this many bytes, or does not.
    pub(crate) fate: Option<Option<(ErrorCode, u64)>>,
}

/// The steps that a command comes to again when it goes on, and that are settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passes {
    /// A breakpoint held the command there.
    pub(crate) held: Option<Step>,
    /// Rules have decided about it there.
    pub(crate) decided: Option<Step>,
}

/// A list entry under way. It is kept, not fetched again: what the guest makes of the list meanwhile changes nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) entry: ListEntry,
    /// Bytes done.
    pub(crate) offset: u64,
    /// Digest of these.
    pub(crate) digest: u32,
    /// There is nothing left to do.
    pub(crate) finished: bool,
}

impl Part {
    /// An entry that was not begun.
    pub(crate) fn new(entry: ListEntry) -> Self {
        Self { entry, offset: 0, digest: 0, finished: false }
    }

    /// Whether it is copied to or from the system, as far as the entry says: a virtual address says nothing.
    pub(crate) fn is_over_link(&self) -> bool {
        let ListEntry { source, destination, .. } = self.entry;
        [source, destination].iter().any(|location| location.aperture == Aperture::System)
    }

    /// The address to name when nothing may be accessed: the system's, if there is one.
    pub(crate) fn address(&self) -> u64 {
        let ListEntry { source, destination, .. } = self.entry;
        if source.aperture == Aperture::System { source.address } else { destination.address }
    }
}

impl Task {
    /// A command of which nothing is done.
    pub(crate) fn new(command: Command) -> Self {
        Self { command, stage: Stage::Fetched, bytes: 0, cursor: Cursor::default() }
    }
}

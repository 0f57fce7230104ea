// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A command under way, and how far it has come: what is kept while it waits, and makes it go on at the very access that faulted.

use ersatz_abi::command::{Aperture, Command, ListEntry};

/// A command that was begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    pub(crate) command: Command,
    /// Bytes moved, filled, read or updated so far.
    pub(crate) bytes: u64,
    pub(crate) cursor: Cursor,
}

/// How far a command has come.
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
    /// The invalidation that was asked for.
    pub(crate) invalidation: Option<u64>,
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

    /// The address to name when nothing may be accessed: the system's, if there is one.
    pub(crate) fn address(&self) -> u64 {
        let ListEntry { source, destination, .. } = self.entry;
        if source.aperture == Aperture::System { source.address } else { destination.address }
    }
}

impl Task {
    pub(crate) fn new(command: Command) -> Self {
        Self { command, bytes: 0, cursor: Cursor::default() }
    }
}

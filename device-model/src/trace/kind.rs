// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a kind of events is.

/// Which event a record stands for: the number in the record, and the name that the tool prints and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    number: u8,
    name: &'static str,
}

impl Kind {
    /// The kind of an event of a table.
    pub(super) const fn new(number: u8, name: &'static str) -> Self {
        Self { number, name }
    }

    /// The number that stands for this kind in a record.
    #[inline]
    pub const fn number(self) -> u8 {
        self.number
    }

    /// The name that the tool prints and takes.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

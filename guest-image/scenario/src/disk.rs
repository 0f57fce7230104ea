// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Transfers between memory and the scenario's disk.

use std::fmt::{self, Display, Formatter};

use crate::range::Range;
use crate::symptom::{UnknownName, names};

/// Which way a transfer goes, as the call is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// From the disk into memory.
    Read,
    /// From memory to the disk.
    Write,
}

names! { Transfer: Read "read", Write "write", }

/// A transfer by io_uring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UringTransfer {
    /// Which way.
    pub transfer: Transfer,
    /// Which memory. A part is at the same place of the disk as in its range.
    pub range: Range,
    /// `direct`: past the page cache, as with `O_DIRECT`.
    pub direct: bool,
    /// `fixed`: the memory is registered as a buffer before, which pins it for longer (`FOLL_LONGTERM`).
    pub fixed: bool,
}

impl Display for UringTransfer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.transfer, self.range)?;
        let words = [(self.direct, " direct"), (self.fixed, " fixed")];
        words.iter().filter(|(given, _)| *given).try_for_each(|(_, word)| f.write_str(word))
    }
}

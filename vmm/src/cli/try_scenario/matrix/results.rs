// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What became of the cells.

use ersatz_uapi::MemoryType;

use super::super::trial::Trial;
use super::super::verdict::Verdict;
use super::call::Call;
use super::cell::Cell;
use super::state::State;
use crate::cli::guest::Mode;

/// What became of a cell, in one character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing is wrong.
    Well,
    /// The known fault of the kernel was shown.
    Known,
    /// Something is wrong that is not known.
    Unexpected,
    /// A fault is known, and nothing is wrong.
    NotShown,
    /// The cell was not tried to its end.
    NotRun,
    /// There is no such cell.
    Senseless,
}

impl Mark {
    /// The character of the table.
    pub fn letter(self) -> char {
        match self {
            Self::Well => '.',
            Self::Known => 'k',
            Self::Unexpected => 'X',
            Self::NotShown => '?',
            Self::NotRun => '!',
            Self::Senseless => '-',
        }
    }
}

/// A cell and what became of it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The cell.
    pub cell: Cell,
    /// Its scenario's trial.
    pub trial: Trial,
}

impl Judged {
    /// What became of it.
    pub fn mark(&self) -> Mark {
        match self.trial.verdict {
            Verdict::Well => Mark::Well,
            Verdict::Shown(_) => Mark::Known,
            Verdict::Unexpected(_) => Mark::Unexpected,
            Verdict::NotShown => Mark::NotShown,
            Verdict::NotRun(_) => Mark::NotRun,
        }
    }
}

/// The cells of one kernel and memory type.
#[derive(Clone, Debug)]
pub struct Results {
    /// The kernel, as the command line names it.
    pub kernel: String,
    /// How VRAM is registered.
    pub memory: Mode,
    /// The cells, in the order of the table.
    pub judged: Vec<Judged>,
}

impl Results {
    /// What became of a state and a call.
    pub fn mark(&self, state: &State, call: &Call) -> Mark {
        let is_it = |judged: &&Judged| judged.cell.state == state && judged.cell.call == call;
        self.judged.iter().find(is_it).map_or(Mark::Senseless, Judged::mark)
    }

    /// The memory type, as scenarios name it.
    pub fn memory_type(&self) -> MemoryType {
        memory_type(self.memory)
    }
}

/// The memory type of a mode.
pub fn memory_type(mode: Mode) -> MemoryType {
    match mode {
        Mode::Private => MemoryType::Private,
        Mode::Coherent => MemoryType::Coherent,
    }
}

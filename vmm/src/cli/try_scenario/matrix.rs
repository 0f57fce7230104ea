// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz try --matrix`: every state of memory against every call.
//!
//! [`state`] and [`call`] list the rows and columns, [`cell`] makes a scenario of each pair that makes sense, [`known`] says which of
//! them show a fault of the kernel. [`results`] has what became of them, which [`table`] and [`html`] show.

mod call;
mod cell;
mod html;
mod known;
mod results;
#[cfg(test)]
mod sample;
mod state;
mod table;

use std::io;

use ersatz_scenario::ParseError;

use self::cell::Cell;
use self::results::{Judged, memory_type};
use super::batch::{self, Item};
use super::guest_run::Testbed;
use super::script::Script;
use super::source::{self, Source};
use super::trial::{Subject, Trial};
use crate::cli::guest::Mode;

pub use self::cell::Slice;
pub use self::html::page;
pub use self::results::Results;
pub use self::table::{explained, lines, summary};

/// Most cells of one guest: a guest that hangs takes until its limit, which grows with them.
const CELLS: usize = 100;

/// Tries the cells of a slice with one kernel and memory type. `None` if the user interrupts it. `progress` is called with the number
/// of cells that are done, and of all.
///
/// # Errors
///
/// Fails if a cell is not a scenario, or a thread cannot be started.
pub fn run(
    testbed: &Testbed<'_>,
    slice: &Slice,
    (kernel, release): (&str, &str),
    mode: Mode,
    workers: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Option<Results>, MatrixError> {
    let cells = slice.cells(memory_type(mode));
    let mut items = Vec::new();
    for cell in &cells {
        let source = source_of(cell)?;
        let subject = subject(&source, kernel, release, mode);
        items.push(Item { source, subject });
    }
    let mut trials: Vec<Option<Trial>> = vec![None; cells.len()];
    let mut done = 0;
    let end = batch::run(testbed, &items, (workers, CELLS), &mut |number, trial| {
        done += 1;
        progress(done, items.len());
        if let Some(slot) = trials.get_mut(number) {
            *slot = Some(trial);
        }
        Ok(())
    })?;
    if end.is_interrupted() {
        return Ok(None);
    }
    let judged = cells.into_iter().zip(trials).zip(items).map(|((cell, trial), item)| {
        let trial = trial.unwrap_or_else(|| Trial::not_run(item.subject, "it was left out".to_owned()));
        Judged { cell, trial }
    });
    Ok(Some(Results { kernel: kernel.to_owned(), memory: mode, judged: judged.collect() }))
}

/// Why the matrix cannot be tried.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// A cell is not a scenario: a fault of this program.
    #[error("a cell of the matrix is not a scenario")]
    Cell(#[from] ParseError),
    /// A thread.
    #[error("cannot start a thread")]
    Thread(#[from] io::Error),
}

/// The scenarios of a slice, each to be tried on its own.
///
/// # Errors
///
/// As [`run`].
pub fn sources(slice: &Slice, mode: Mode) -> Result<Vec<Source>, MatrixError> {
    slice.cells(memory_type(mode)).iter().map(source_of).collect()
}

fn source_of(cell: &Cell) -> Result<Source, MatrixError> {
    Ok(source::of_text(&cell.name(), cell.text())?)
}

fn subject(source: &Source, kernel: &str, release: &str, memory: Mode) -> Subject {
    Subject {
        scenario: source.scenario.name.clone(),
        title: source.scenario.title.clone(),
        script: Script::of(&source.scenario),
        kernel: kernel.to_owned(),
        memory,
        expected: source.expected_on(release),
        attempts: 1,
    }
}

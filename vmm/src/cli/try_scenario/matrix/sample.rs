// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Results for the tests of those that show them.

use ersatz_uapi::MemoryType;

use super::super::sample::{not_run, unexpected, well};
use super::cell::Slice;
use super::results::{Judged, Results};
use crate::cli::guest::Mode;

/// A slice of three cells, of which one is well.
pub fn results() -> (Slice, Results) {
    let slice = Slice::parse("small,huge/read,collapse").expect("there are such cells");
    let trials = [well(), unexpected(), not_run()];
    let judged = slice.cells(MemoryType::Private).into_iter().zip(trials);
    let judged = judged.map(|(cell, trial)| Judged { cell, trial }).collect();
    (slice, Results { kernel: "7.2".to_owned(), memory: Mode::Private, judged })
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Scenarios: a suspected race of memory management, written down in a few lines, for a runner to try.
//!
//! [`parse()`] makes a [`Scenario`] of a text, and `Display` makes the text of a scenario. [`call`] has the steps, [`range`] the
//! memory that they name. A runner in the guest carries a scenario out and writes a [`report`] of it; it also puts
//! [`mark`]s into the device's trace, so that steps and device events have one order. `docs/scenarios.md` is the manual.
//!
//! The text comes from a file and is taken for hostile: all sizes and counts have bounds, which [`limits`] names.

pub mod advice;
pub mod call;
pub mod disk;
mod display;
pub mod limits;
pub mod mark;
pub mod parse;
pub mod quantity;
pub mod range;
pub mod report;
pub mod scenario;
pub mod symptom;

pub use parse::{ParseError, parse};
pub use scenario::{Guest, Process, Scenario, Sequence, Shows, Step, Thread};
pub use symptom::{Aspect, Symptom};

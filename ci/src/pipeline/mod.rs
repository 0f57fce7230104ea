// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The pipeline: checks of the sources on this machine and of the driver in guests, and what they add up to.

mod brought;
mod failures;
pub mod guests;
mod identity;
pub mod new_drivers;
mod scenarios;
pub mod sources;
mod tally;

pub use tally::Tally;

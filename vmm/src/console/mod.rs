// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Between the guest's serial port and the user: the same for every accelerator.
//!
//! What the guest sends goes through [`log`] (which notices panics and other complaints of its kernel, and keeps the last
//! lines) to the sink of the command; what the user types goes through [`keys`] to the guest; [`terminal`] takes
//! the user's terminal and gives it back. The command's own streams go by [`streams`] where the accelerator has them.

pub mod keys;
pub mod log;
pub mod output;
pub mod recorder;
pub mod streams;
pub mod terminal;

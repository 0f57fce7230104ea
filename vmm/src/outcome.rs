// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a run ended, and the exit status that stands for it.
//!
//! The guest's own exit status is the tool's. The statuses below stand for ends that are not the guest's choice; they
//! lie where `timeout(1)` and shells put theirs, out of the way of what tests use (0 pass, 1 fail, 4 skip).

use serde::{Deserialize, Serialize};

/// Exit status for bad arguments.
pub const STATUS_USAGE: u8 = 2;
/// Exit status when the command succeeded but not all files that were wanted came out of the guest.
pub const STATUS_NOT_COLLECTED: u8 = 120;
/// Exit status when the guest kernel panicked.
pub const STATUS_PANIC: u8 = 121;
/// Exit status when the command succeeded but the guest's log has a WARN, BUG or Oops.
pub const STATUS_SPLAT: u8 = 122;
/// Exit status when the guest powered off or reset without reporting how its command ended.
pub const STATUS_NO_STATUS: u8 = 123;
/// Exit status when the time limit was reached, or a guest that has to say something now and then fell silent.
pub const STATUS_TIMEOUT: u8 = 124;
/// Exit status when the tool itself, the VMM, QEMU or the device process failed.
pub const STATUS_FAILED: u8 = 125;
/// Exit status after Ctrl-C or SIGTERM.
pub const STATUS_INTERRUPTED: u8 = 130;

/// How a guest's run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// PID 1 reported the exit status of the command it ran.
    Exited(u8),
    /// The guest powered off or reset, with no status reported.
    Stopped,
    /// The guest kernel panicked.
    Panicked,
    /// The command ended with 0, but the kernel's log has this line.
    Splat(String),
    /// The time limit was reached; the lines say where each vCPU was.
    TimedOut(Vec<String>),
    /// The guest's console was silent for too long; the lines say where each vCPU was.
    Silent(Vec<String>),
    /// The user ended it.
    Interrupted,
}

impl Outcome {
    /// The exit status of the tool.
    pub fn status(&self) -> u8 {
        match self {
            Self::Exited(status) => *status,
            Self::Stopped => STATUS_NO_STATUS,
            Self::Panicked => STATUS_PANIC,
            Self::Splat(_) => STATUS_SPLAT,
            Self::TimedOut(_) | Self::Silent(_) => STATUS_TIMEOUT,
            Self::Interrupted => STATUS_INTERRUPTED,
        }
    }
}

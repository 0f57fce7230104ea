// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! QEMU as a child process: finding it, running it, ending it with this process.
//!
//! `--accel nested` runs its outer machine on it, `--accel tcg` its guest. [`migration`] saves and loads the state of either.

mod capability;
mod locate;
pub mod mailbox;
pub mod migration;
mod process;
mod processor;
mod qmp;
mod tail;
pub mod timestamp;

pub use capability::{MAILBOX, RequiredDevice, UnfitError, VFIO_USER, check_devices};
pub use locate::Qemu;
pub use process::{QemuError, QemuProcess};
pub use processor::PROCESSOR;
pub use qmp::{Monitor, QmpError};
pub use tail::Tail;

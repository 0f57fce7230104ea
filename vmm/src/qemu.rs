// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! QEMU as a child process: where it is, and how it ends with us.
//!
//! `--accel nested` runs its outer machine on it, `--accel tcg` its guest.

mod locate;
mod process;
mod tail;

pub use locate::Qemu;
pub use process::{QemuError, QemuProcess};
pub use tail::Tail;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What PID 1 shares with the guest-side tests: how the driver module is loaded, and what in the kernel log is a complaint.
//!
//! PID 1 loads the driver at boot; a test that unloads it loads it again in exactly the same way.

pub mod driver;
pub mod kernel_log;

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bounds of a scenario, which keep what a runner must reserve small.

use std::time::Duration;

/// Bytes of a scenario's text.
pub const TEXT_BYTES: usize = 64 << 10;
/// Threads beside setup and finally.
pub const THREADS: usize = 16;
/// Steps of one thread, of setup, or of finally.
pub const STEPS: usize = 256;
/// Named ranges.
pub const RANGES: usize = 64;
/// Forked processes.
pub const CHILDREN: usize = 8;
/// Barriers.
pub const BARRIERS: usize = 16;
/// Bytes of one range.
pub const RANGE_BYTES: u64 = 1 << 30;
/// Bytes of the disk that `direct` and `uring` use.
pub const DISK_BYTES: u64 = 64 << 20;
/// Bytes of a name.
pub const NAME_BYTES: usize = 32;
/// Bytes of a kernel function's name.
pub const FUNCTION_BYTES: usize = 127;
/// The longest that a hold, a sleep or a step may be asked to take.
pub const TIME: Duration = Duration::from_secs(60);
/// The longest that a hold may last: the kernel reports a CPU that does not schedule for 20 s.
pub const HOLD: Duration = Duration::from_secs(10);
/// How long a hold lasts when the scenario does not say.
pub const USUAL_HOLD: Duration = Duration::from_secs(4);
/// How long a step may take when the scenario does not say.
pub const USUAL_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a page.
pub const PAGE: u64 = 4096;

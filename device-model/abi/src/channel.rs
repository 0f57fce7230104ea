// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! What a channel and its driver share in guest memory: the ring and the control block.
//!
//! The driver writes commands, then PUT (release), then the doorbell. The device reads PUT (acquire), executes,
//! writes what the command asks for, then the fence value (release), then GET, then raises the interrupt.

closed_enum! {
    /// What a channel is doing.
    pub enum ChannelState(u8) {
        /// Not enabled, or disabled and stopped.
        Disabled = 0 => "disabled",
        /// Enabled, GET has reached PUT.
        Idle = 1 => "idle",
        /// Enabled, with commands to execute.
        Busy = 2 => "busy",
        /// Stopped at a command it could not execute; only a reset of the channel leads out.
        Error = 3 => "error",
        /// Waiting, at an access that faulted, for a replay or a cancel.
        Faulted = 4 => "faulted",
    }
}

closed_enum! {
    /// Whose turn it is on an engine: a channel runs only while none of a higher priority has commands.
    pub enum Priority(u8) {
        /// The default: background work.
        Low = 0 => "low",
        /// Work that a thread waits for.
        Normal = 1 => "normal",
        /// What everything else waits for, such as page migration on faults.
        High = 2 => "high",
    }
}

/// Smallest [`super::regs::RING_ORDER`]: 16 commands.
pub const RING_ORDER_MIN: u32 = 4;
/// Largest [`super::regs::RING_ORDER`]: 65,536 commands.
pub const RING_ORDER_MAX: u32 = 16;
/// Alignment of the ring and of the control block in bytes.
pub const SHARED_ALIGNMENT: u64 = 4096;

/// Size of the control block in bytes; what is not named below is reserved.
pub const CONTROL_BLOCK_SIZE: u64 = 4096;
/// Offset in the control block of PUT (u32): written by the driver. Commands from GET up to PUT are the device's.
pub const CONTROL_BLOCK_PUT: u64 = 0;
/// Offset in the control block of GET (u32), on a cache line of its own: written by the device.
pub const CONTROL_BLOCK_GET: u64 = 64;
/// Offset in the control block of the fence value (u64), on a cache line of its own: written by the device.
pub const CONTROL_BLOCK_FENCE: u64 = 128;

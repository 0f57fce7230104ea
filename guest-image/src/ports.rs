// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! I/O ports by which a guest tells its host something: one byte, written by PID 1.

/// Takes the exit status of the command. The VMM ends the guest; QEMU has a debug console there, which passes all eight bits
/// on (`isa-debug-exit` would make QEMU end with twice the status plus one, of which an exit status has room for half).
pub const EXIT_PORT: u16 = 0xf4;

/// Says that the guest is ready for a run, and waits for one at its [`mailbox`](crate::mailbox). The value means nothing.
pub const READY_PORT: u16 = 0xf5;

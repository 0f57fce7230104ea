// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the device interrupts a CPU.

/// Where a function's MSI-X messages go. Called by engine threads with locks of the device held: must not block, and must
/// not call into the device.
pub trait InterruptSink: Send + Sync {
    /// Sends the message of an MSI-X vector.
    fn signal(&self, vector: u16);

    /// Whether the transport keeps the MSI-X table and its masks itself, or its client does. If so the
    /// device calls [`Self::signal`] without looking at its own table, which nobody programs.
    fn keeps_table(&self) -> bool {
        false
    }
}

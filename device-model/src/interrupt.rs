// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the device interrupts a CPU, and why.

use vmm_sys_util::eventfd::EventFd;

/// Where a function's MSI-X messages go. Called by engine threads with locks of the device held: must not block, and must
/// not call into the device.
pub trait InterruptSink: Send + Sync {
    /// Sends the message of an MSI-X vector.
    fn signal(&self, vector: u16);

    /// The eventfd that is signalled to send a vector's message, for hardware that signals it by itself; `None` if the sink has no
    /// such eventfd. Signals that come while the vector has no message are kept, and sent as one when it has.
    fn event(&self, vector: u16) -> Option<&EventFd> {
        let _ = vector;
        None
    }

    /// Whether the transport keeps the MSI-X table and its masks itself, or its client does. If so the
    /// device calls [`Self::signal`] without looking at its own table, which is not programmed then.
    fn keeps_table(&self) -> bool {
        false
    }
}

/// Why the device raises an interrupt. Every part that raises one names its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InterruptCause {
    /// A command of this channel is complete, and asked for an interrupt.
    CommandComplete(u8),
    /// This channel stopped with an error, or could not be enabled.
    ChannelError(u8),
    /// The fault buffer has records for the driver.
    FaultBuffer,
    /// The ring of the access counters has records for the driver.
    AccessCounters,
    /// A register access was bad, for the first time since the reset.
    BadAccess,
    /// Pages of VRAM were found to be poisoned.
    Poison,
    /// The host demands or returns memory.
    Memory,
}

impl InterruptCause {
    /// The channel that the interrupt is about, if it is about one.
    pub(crate) const fn channel(self) -> Option<u8> {
        match self {
            Self::CommandComplete(channel) | Self::ChannelError(channel) => Some(channel),
            Self::FaultBuffer | Self::AccessCounters | Self::BadAccess | Self::Poison | Self::Memory => None,
        }
    }
}

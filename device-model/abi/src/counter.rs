// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! The performance counters: 64-bit, from zero at power-on and function reset, never cleared otherwise.

closed_enum! {
    /// The number of a counter; its register is at
    /// [`COUNTER_BASE`](super::regs::COUNTER_BASE) + 8 × this.
    pub enum Counter(u8) {
        /// Doorbell writes seen.
        Doorbells = 0 => "doorbells",
        /// Commands completed.
        Commands = 1 => "commands",
        /// Fence values written.
        Fences = 2 => "fences",
        /// Interrupts raised.
        Interrupts = 3 => "interrupts",
        /// Channel errors.
        ChannelErrors = 4 => "channel-errors",
        /// Bad register accesses.
        BadAccesses = 5 => "bad-accesses",
        /// Bytes copied from the system to VRAM.
        BytesToVram = 6 => "bytes-to-vram",
        /// Bytes copied from VRAM to the system.
        BytesToSystem = 7 => "bytes-to-system",
        /// Bytes copied inside VRAM.
        BytesWithinVram = 8 => "bytes-within-vram",
        /// Bytes copied from the system to the system.
        BytesWithinSystem = 9 => "bytes-within-system",
        /// Bytes filled.
        BytesFilled = 10 => "bytes-filled",
        /// Bytes read for digests.
        BytesDigested = 11 => "bytes-digested",
        /// List entries of copies completed.
        CopyEntries = 12 => "copy-entries",
        /// Bytes copied for [`Cause::MigrateToDevice`](super::command::Cause::MigrateToDevice).
        BytesMigratedToDevice = 13 => "bytes-migrated-to-device",
        /// Bytes copied for [`Cause::MigrateToSystem`](super::command::Cause::MigrateToSystem).
        BytesMigratedToSystem = 14 => "bytes-migrated-to-system",
        /// Bytes copied for [`Cause::CpuFault`](super::command::Cause::CpuFault).
        BytesCpuFault = 15 => "bytes-cpu-fault",
        /// Bytes copied for [`Cause::Evict`](super::command::Cause::Evict).
        BytesEvicted = 16 => "bytes-evicted",
        /// Bytes copied for [`Cause::Unbind`](super::command::Cause::Unbind).
        BytesUnbind = 17 => "bytes-unbind",
    }
}

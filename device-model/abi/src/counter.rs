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
        /// Bytes copied from a peer, to wherever.
        BytesFromPeer = 18 => "bytes-from-peer",
        /// Bytes copied to a peer, from here.
        BytesToPeer = 19 => "bytes-to-peer",
        /// Bytes read by kernels.
        KernelBytesRead = 20 => "kernel-bytes-read",
        /// Bytes written by kernels.
        KernelBytesWritten = 21 => "kernel-bytes-written",
        /// Atomics of kernels.
        KernelAtomics = 22 => "kernel-atomics",
        /// Translations found in a TLB.
        TlbHits = 23 => "tlb-hits",
        /// Translations not found there: page table walks.
        TlbMisses = 24 => "tlb-misses",
        /// Invalidations acknowledged.
        Invalidations = 25 => "invalidations",
        /// Faults recorded in the fault buffer.
        Faults = 26 => "faults",
        /// Faults lost: the buffer was full, off, or not writable.
        FaultsDropped = 27 => "faults-dropped",
        /// Prefetch faults left out, because the buffer was more than half full or off.
        PrefetchFaultsDropped = 28 => "prefetch-faults-dropped",
        /// Replays asked for.
        Replays = 29 => "replays",
        /// Faults cancelled.
        FaultsCancelled = 30 => "faults-cancelled",
        /// Records of hot regions written to the access counters' ring.
        AccessNotifications = 31 => "access-notifications",
        /// Records of hot regions lost.
        AccessNotificationsDropped = 32 => "access-notifications-dropped",
        /// DMA that the bus refused.
        DmaErrors = 33 => "dma-errors",
        /// Bytes copied for [`Cause::DeviceFault`](super::command::Cause::DeviceFault).
        BytesDeviceFault = 34 => "bytes-device-fault",
        /// Bytes copied for [`Cause::AccessCounter`](super::command::Cause::AccessCounter).
        BytesHotMemory = 35 => "bytes-hot-memory",
    }
}

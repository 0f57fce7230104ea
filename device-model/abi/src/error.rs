// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! Why a channel stopped.

closed_enum! {
    /// The error field of [`ChannelStatus`](super::regs::ChannelStatus).
    pub enum ErrorCode(u8) {
        /// No error.
        None = 0 => "none",
        /// Enabled with a ring base, ring order, control block or vector the device cannot use.
        BadSetup = 1 => "bad-setup",
        /// PUT is further ahead of GET than the ring is long.
        BadPut = 2 => "bad-put",
        /// Unknown opcode or cause.
        BadCommand = 3 => "bad-command",
        /// A reserved bit or an unused word is not zero.
        ReservedBits = 4 => "reserved-bits",
        /// The list's count is zero or too large.
        BadCount = 5 => "bad-count",
        /// The list's address is not aligned or wraps.
        BadListAddress = 6 => "bad-list-address",
        /// A list entry names no known aperture.
        BadAperture = 7 => "bad-aperture",
        /// A list entry's address or length is not aligned.
        BadAlignment = 8 => "bad-alignment",
        /// A list entry's length is zero, too large, or wraps.
        BadLength = 9 => "bad-length",
        /// An entry reaches beyond the end of VRAM.
        VramRange = 10 => "vram-range",
        /// Source and destination of a copy overlap.
        Overlap = 11 => "overlap",
        /// A bus address that could not be read: not mapped, or not the device's to read.
        DmaRead = 12 => "dma-read",
        /// A bus address that could not be written: not mapped, or read-only.
        DmaWrite = 13 => "dma-write",
        /// The command's fence value is not above the one already signalled.
        FenceOrder = 14 => "fence-order",
        /// DMA was needed while bus mastering was off or the function was not in D0.
        NotMaster = 15 => "not-master",
        /// The engine of the channel does not execute this opcode.
        WrongEngine = 16 => "wrong-engine",
        /// A virtual address was used in an address space that is not enabled.
        AddressSpace = 17 => "address-space",
        /// A virtual address faulted in an address space whose faults are not replayable.
        MmuFault = 18 => "mmu-fault",
        /// The driver cancelled the fault that the channel waited for.
        FaultCancelled = 19 => "fault-cancelled",
        /// A peer that is not there, or does not answer.
        PeerUnavailable = 20 => "peer-unavailable",
        /// An entry reaches beyond the end of the peer's VRAM.
        PeerRange = 21 => "peer-range",
        /// An operand of a kernel is not aligned, too long, empty, wraps, or has no permitted value.
        BadOperand = 22 => "bad-operand",
        /// The target of an invalidation is not valid.
        BadInvalidation = 23 => "bad-invalidation",
        /// A page of VRAM, the device's or a peer's, that is poisoned.
        Poisoned = 24 => "poisoned",
        /// A page of VRAM, the device's or a peer's, that its driver has handed over.
        HandedOver = 25 => "handed-over",
    }
}

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! The numbers of operations: of those that copy engines and compute engines execute.

closed_enum! {
    /// What a command does.
    pub enum Opcode(u8) {
        /// Nothing, but its fence and interrupt.
        Nop = 0 => "nop",
        /// For each entry: copies from source to destination. The two must not overlap.
        Copy = 1 => "copy",
        /// For each entry: fills the destination with the command's 64-bit pattern; there is no source.
        Fill = 2 => "fill",
        /// For each entry: writes the CRC-32C of the source, as a 64-bit number, to the destination.
        Digest = 3 => "digest",
        /// Makes every engine drop translations; done when all have.
        Invalidate = 4 => "invalidate",
        /// [`Kernel::Read`](super::kernel::Kernel::Read).
        Read = 16 => "read",
        /// [`Kernel::Write`](super::kernel::Kernel::Write).
        Write = 17 => "write",
        /// [`Kernel::Set`](super::kernel::Kernel::Set).
        Set = 18 => "set",
        /// [`Kernel::Sum`](super::kernel::Kernel::Sum).
        Sum = 19 => "sum",
        /// [`Kernel::Saxpy`](super::kernel::Kernel::Saxpy).
        Saxpy = 20 => "saxpy",
        /// [`Kernel::AtomicAdd`](super::kernel::Kernel::AtomicAdd).
        AtomicAdd = 21 => "atomic-add",
        /// [`Kernel::CompareAndSwap`](super::kernel::Kernel::CompareAndSwap).
        CompareAndSwap = 22 => "compare-and-swap",
        /// [`Kernel::Chase`](super::kernel::Kernel::Chase).
        Chase = 23 => "chase",
        /// [`Kernel::RandomUpdate`](super::kernel::Kernel::RandomUpdate).
        RandomUpdate = 24 => "random-update",
        /// [`Kernel::Prefetch`](super::kernel::Kernel::Prefetch).
        Prefetch = 25 => "prefetch",
        /// [`Kernel::Copy`](super::kernel::Kernel::Copy): by virtual addresses, without a list.
        KernelCopy = 26 => "kernel-copy",
    }
}

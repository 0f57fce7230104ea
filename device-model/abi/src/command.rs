// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! The commands of a channel's ring. Encoding and decoding are here, once, for both sides.
//!
//! A command is eight 64-bit words:
//!
//! | word | bits | meaning |
//! |---|---|---|
//! | 0 | 7:0 | opcode ([`Opcode`]) |
//! | 0 | 8 | write the fence value when done |
//! | 0 | 9 | raise the channel's interrupt when done |
//! | 0 | 23:16 | cause ([`Cause`]): why the driver wants this; goes to trace and counters, changes nothing |
//! | 0 | 63:32 | count: entries of the list |
//! | 1 | 63:0 | fence value; zero unless bit 8 is set |
//! | 2 | 63:0 | bus address of the list; of an invalidation the address; of a kernel see [`kernel`](super::kernel) |
//! | 3 | 63:0 | fill pattern (`Fill`); target of an invalidation; of a kernel see there |
//! | 4 | 63:0 | tag: the driver's own number for this command, for the trace |
//! | 5 | 63:0 | of a kernel see there |
//! | 6 | 63:0 | length of an invalidation; of a kernel see there |
//! | 7 | 63:0 | of a kernel see there |
//!
//! All other bits are reserved and must be zero, like words that an operation does not use.

use super::kernel::{Kernel, KernelError, KernelWords};
use super::list::ListError;
pub use super::list::{
    Aperture, EntryError, List, ListEntry, Location, ENTRY_ALIGNMENT, LIST_ENTRY_BYTES, MAX_ENTRY_BYTES,
    MAX_LIST_ENTRIES,
};
use super::mmu::{InvalidateTarget, Invalidation};
pub use super::opcode::Opcode;

/// Size of a command in bytes.
pub const COMMAND_BYTES: u64 = 64;

closed_enum! {
    /// Why the driver sent a command. Accounting only.
    pub enum Cause(u8) {
        /// None of the others.
        Other = 0 => "other",
        /// User space asked for memory to move to the device.
        MigrateToDevice = 1 => "migrate-to-device",
        /// User space asked for memory to move back to the system.
        MigrateToSystem = 2 => "migrate-to-system",
        /// A CPU touched a page that was on the device.
        CpuFault = 3 => "cpu-fault",
        /// VRAM was needed for something else.
        Evict = 4 => "evict",
        /// The driver is leaving the device.
        Unbind = 5 => "unbind",
        /// A test looks at memory through the device.
        Inspect = 6 => "inspect",
        /// The device faulted at memory that its process wants in one place.
        DeviceFault = 7 => "device-fault",
        /// The device accessed memory often.
        AccessCounter = 8 => "access-counter",
    }
}

bitfield! {
    /// Word 0 of a command.
    pub struct Header(u64) {
        /// An [`Opcode`].
        raw_opcode / with_raw_opcode: 7..=0 as field;
        /// Write the fence value when done.
        fence / with_fence: 8..=8 as flag;
        /// Raise the channel's interrupt when done.
        interrupt / with_interrupt: 9..=9 as flag;
        /// A [`Cause`].
        raw_cause / with_raw_cause: 23..=16 as field;
        /// Entries of the list.
        count / with_count: 63..=32 as field;
    }
}

/// One decoded command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// What to do.
    pub operation: Operation,
    /// Why.
    pub cause: Cause,
    /// The value to write to the control block's fence when done; must be above the one there.
    pub fence: Option<u64>,
    /// Whether to raise the channel's interrupt when done.
    pub interrupt: bool,
    /// The driver's own number for this command.
    pub tag: u64,
}

/// The operation of a [`Command`], with what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Opcode::Nop`].
    Nop,
    /// [`Opcode::Copy`].
    Copy(List),
    /// [`Opcode::Fill`].
    Fill(List, u64),
    /// [`Opcode::Digest`].
    Digest(List),
    /// [`Opcode::Invalidate`].
    Invalidate(Invalidation),
    /// Any opcode from [`Opcode::Read`] on.
    Kernel(Kernel),
}

/// Why eight words are not a command. The device reports these as
/// [`ErrorCode`](super::error::ErrorCode)s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// Opcode or cause is not a known number.
    Unknown,
    /// A reserved bit is set, or a word this opcode does not use is not zero.
    Reserved,
    /// The list cannot be fetched.
    List(ListError),
    /// The target of an invalidation is not valid.
    Invalidation,
    /// An operand of a kernel is not aligned, too long, empty, wraps, or has no permitted value: this one.
    Operand(u64),
}

impl Operation {
    /// The opcode that stands for this operation.
    pub const fn opcode(self) -> Opcode {
        match self {
            Self::Nop => Opcode::Nop,
            Self::Copy(_) => Opcode::Copy,
            Self::Fill(..) => Opcode::Fill,
            Self::Digest(_) => Opcode::Digest,
            Self::Invalidate(_) => Opcode::Invalidate,
            Self::Kernel(kernel) => kernel.opcode(),
        }
    }

    /// Words 2, 3, 5, 6 and 7, and the count in the header.
    const fn encode(self) -> (KernelWords, u32) {
        let none = KernelWords { first: 0, value: 0, second: 0, count: 0, result: 0 };
        match self {
            Self::Nop => (none, 0),
            Self::Copy(list) | Self::Digest(list) => (KernelWords { first: list.address, ..none }, list.count),
            Self::Fill(list, pattern) => (KernelWords { first: list.address, value: pattern, ..none }, list.count),
            Self::Invalidate(invalidation) => {
                let (target, address, length) = invalidation.encode();
                (KernelWords { first: address, value: target.0, count: length, ..none }, 0)
            }
            Self::Kernel(kernel) => (kernel.encode(), 0),
        }
    }

    const fn decode(opcode: Opcode, words: &KernelWords, count: u64) -> Result<Self, CommandError> {
        let KernelWords { first, value, second, count: length, result } = *words;
        let is_fill = matches!(opcode, Opcode::Fill);
        match opcode {
            Opcode::Nop if (first | value | second | length | result | count) == 0 => Ok(Self::Nop),
            Opcode::Copy | Opcode::Digest | Opcode::Fill
                if (second | length | result) == 0 && (is_fill || value == 0) =>
            {
                match (opcode, List::new(first, count)) {
                    (_, Err(error)) => Err(CommandError::List(error)),
                    (Opcode::Copy, Ok(list)) => Ok(Self::Copy(list)),
                    (Opcode::Fill, Ok(list)) => Ok(Self::Fill(list, value)),
                    (_, Ok(list)) => Ok(Self::Digest(list)),
                }
            }
            Opcode::Invalidate if (second | result | count) == 0 => {
                match Invalidation::decode(InvalidateTarget(value), first, length) {
                    Some(invalidation) => Ok(Self::Invalidate(invalidation)),
                    None => Err(CommandError::Invalidation),
                }
            }
            _ if count == 0 => match Kernel::decode(opcode, words) {
                Some(Ok(kernel)) => Ok(Self::Kernel(kernel)),
                Some(Err(KernelError::Operand(value))) => Err(CommandError::Operand(value)),
                Some(Err(KernelError::Reserved)) | None => Err(CommandError::Reserved),
            },
            _ => Err(CommandError::Reserved),
        }
    }
}

impl Command {
    /// The eight words that stand for this command (to be stored little-endian).
    pub const fn encode(self) -> [u64; 8] {
        let (words, count) = self.operation.encode();
        let header = Header(0)
            .with_raw_opcode(self.operation.opcode() as u64)
            .with_fence(self.fence.is_some())
            .with_interrupt(self.interrupt)
            .with_raw_cause(self.cause as u64)
            .with_count(count as u64);
        let fence = match self.fence {
            Some(value) => value,
            None => 0,
        };
        [header.0, fence, words.first, words.value, self.tag, words.second, words.count, words.result]
    }

    /// The command that these words stand for.
    ///
    /// # Errors
    ///
    /// Whatever [`CommandError`] lists; nothing about the words is trusted.
    pub const fn decode(words: &[u64; 8]) -> Result<Self, CommandError> {
        let header = Header(words[0]);
        if header.0 & Header::RESERVED != 0 || (!header.fence() && words[1] != 0) {
            return Err(CommandError::Reserved);
        }
        let (Some(opcode), Some(cause)) =
            (Opcode::from_raw(header.raw_opcode() as u8), Cause::from_raw(header.raw_cause() as u8))
        else {
            return Err(CommandError::Unknown);
        };
        let parts =
            KernelWords { first: words[2], value: words[3], second: words[5], count: words[6], result: words[7] };
        let operation = match Operation::decode(opcode, &parts, header.count()) {
            Ok(operation) => operation,
            Err(error) => return Err(error),
        };
        let fence = if header.fence() { Some(words[1]) } else { None };
        Ok(Self { operation, cause, fence, interrupt: header.interrupt(), tag: words[4] })
    }
}

// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! The kernels of a compute engine: what its commands do, all over virtual addresses of the channel's address space.
//!
//! | word | meaning |
//! |---|---|
//! | 2 | first operand: a virtual address |
//! | 3 | a value: seed, pattern, factor, addend, expected value |
//! | 5 | second operand: a virtual address, a length, or a value |
//! | 6 | how much: bytes, steps, updates |
//! | 7 | virtual address of the eight-byte result |
//!
//! What a kernel does not use must be zero. A *word* is eight bytes, little-endian, aligned. A kernel that faults waits, and
//! goes on at the access that faulted: every element is processed exactly once, however often it faults.

use super::opcode::Opcode;

/// Addresses and lengths of kernels are multiples of this many bytes.
pub const WORD_BYTES: u64 = 8;
/// Most bytes, steps or updates of one kernel.
pub const MAX_KERNEL_COUNT: u64 = 1 << 40;

/// A kernel and its operands. Lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Reads every word of the range, and forgets it.
    Read {
        /// First byte.
        source: u64,
        /// How many.
        length: u64,
    },
    /// Writes word *n* of the range as `seed` + *n*, wrapping.
    Write {
        /// First byte.
        destination: u64,
        /// How many.
        length: u64,
        /// Value of word 0.
        seed: u64,
    },
    /// Writes the same value to every word of the range.
    Set {
        /// First byte.
        destination: u64,
        /// How many.
        length: u64,
        /// The value.
        pattern: u64,
    },
    /// Adds up the words of the range, wrapping.
    Sum {
        /// First byte.
        source: u64,
        /// How many.
        length: u64,
        /// Where the sum is written.
        result: u64,
    },
    /// y\[n\] = factor × x\[n\] + y\[n\] over arrays of 32-bit floating point numbers, the product rounded before the sum.
    Saxpy {
        /// First byte of x.
        x: u64,
        /// First byte of y; the arrays are the same, or do not overlap.
        y: u64,
        /// Size of each array.
        length: u64,
        /// The factor: the bits of an IEEE 754 single.
        factor: u32,
    },
    /// Adds a value to each word of the range, atomically and wrapping.
    AtomicAdd {
        /// First byte.
        target: u64,
        /// How many.
        length: u64,
        /// The addend.
        addend: u64,
    },
    /// Replaces a word if it has the expected value, atomically; the result is what was there.
    CompareAndSwap {
        /// The word.
        target: u64,
        /// The value it must have.
        expected: u64,
        /// The value it gets.
        replacement: u64,
        /// Where the old value is written.
        result: u64,
    },
    /// Follows a chain of words, each the virtual address of the next; the result is the last address read.
    Chase {
        /// Address of the first word.
        start: u64,
        /// How many words to read.
        steps: u64,
        /// Where the last one's value is written.
        result: u64,
    },
    /// Exclusive-ors random words of a table with the random number that chose them, atomically: see [`next_random`].
    RandomUpdate {
        /// First byte of the table.
        table: u64,
        /// Size of the table: a power of two.
        length: u64,
        /// Where the random sequence begins; not zero.
        seed: u64,
        /// How many updates.
        updates: u64,
    },
    /// Announces an access: translates each page of the range; those that fault are reported as prefetch faults, for which no
    /// command waits.
    Prefetch {
        /// First byte.
        address: u64,
        /// How many.
        length: u64,
    },
    /// Copies the words of a range to another one, in rising order.
    Copy {
        /// First byte to read.
        source: u64,
        /// First byte to write; the ranges do not overlap.
        destination: u64,
        /// Size of each range.
        length: u64,
    },
}

/// Why the words of a command are no kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// A word this kernel does not use is not zero.
    Reserved,
    /// An operand is not aligned, too long, empty, wraps, or has no permitted value: this one.
    Operand(u64),
}

/// The number after `state` in the sequence of [`Kernel::RandomUpdate`]: Marsaglia's 64-bit xorshift (13, 7, 17). Word
/// (*r* mod words) of the table is exclusive-ored with *r*, for each *r* after the seed.
pub const fn next_random(state: u64) -> u64 {
    let state = state ^ (state << 13);
    let state = state ^ (state >> 7);
    state ^ (state << 17)
}

/// Words 2, 3, 5, 6 and 7 of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelWords {
    /// Word 2.
    pub first: u64,
    /// Word 3.
    pub value: u64,
    /// Word 5.
    pub second: u64,
    /// Word 6.
    pub count: u64,
    /// Word 7.
    pub result: u64,
}

impl Kernel {
    /// The opcode that stands for this kernel.
    pub const fn opcode(self) -> Opcode {
        match self {
            Self::Read { .. } => Opcode::Read,
            Self::Write { .. } => Opcode::Write,
            Self::Set { .. } => Opcode::Set,
            Self::Sum { .. } => Opcode::Sum,
            Self::Saxpy { .. } => Opcode::Saxpy,
            Self::AtomicAdd { .. } => Opcode::AtomicAdd,
            Self::CompareAndSwap { .. } => Opcode::CompareAndSwap,
            Self::Chase { .. } => Opcode::Chase,
            Self::RandomUpdate { .. } => Opcode::RandomUpdate,
            Self::Prefetch { .. } => Opcode::Prefetch,
            Self::Copy { .. } => Opcode::KernelCopy,
        }
    }

    /// The words that stand for this kernel.
    pub const fn encode(self) -> KernelWords {
        match self {
            Self::Read { source, length } => of(source, 0, 0, length, 0),
            Self::Write { destination, length, seed } => of(destination, seed, 0, length, 0),
            Self::Set { destination, length, pattern } => of(destination, pattern, 0, length, 0),
            Self::Sum { source, length, result } => of(source, 0, 0, length, result),
            Self::Saxpy { x, y, length, factor } => of(x, factor as u64, y, length, 0),
            Self::AtomicAdd { target, length, addend } => of(target, addend, 0, length, 0),
            Self::CompareAndSwap { target, expected, replacement, result } => {
                of(target, expected, replacement, 0, result)
            }
            Self::Chase { start, steps, result } => of(start, 0, 0, steps, result),
            Self::RandomUpdate { table, length, seed, updates } => of(table, seed, length, updates, 0),
            Self::Prefetch { address, length } => of(address, 0, 0, length, 0),
            Self::Copy { source, destination, length } => of(source, 0, destination, length, 0),
        }
    }

    /// The kernel that an opcode and words stand for; `None` if the opcode is not one of a kernel.
    ///
    /// # Errors
    ///
    /// Whatever [`KernelError`] lists. Whether the addresses lead anywhere is for the device to find out.
    pub const fn decode(opcode: Opcode, words: &KernelWords) -> Option<Result<Self, KernelError>> {
        let KernelWords { first, value, second, count, result } = *words;
        let (kernel, spare) = match opcode {
            Opcode::Read => (Self::Read { source: first, length: count }, value | second | result),
            Opcode::Write => (Self::Write { destination: first, length: count, seed: value }, second | result),
            Opcode::Set => (Self::Set { destination: first, length: count, pattern: value }, second | result),
            Opcode::Sum => (Self::Sum { source: first, length: count, result }, value | second),
            Opcode::Saxpy => {
                let kernel = Self::Saxpy { x: first, y: second, length: count, factor: value as u32 };
                (kernel, (value >> 32) | result)
            }
            Opcode::AtomicAdd => (Self::AtomicAdd { target: first, length: count, addend: value }, second | result),
            Opcode::CompareAndSwap => {
                let kernel = Self::CompareAndSwap { target: first, expected: value, replacement: second, result };
                (kernel, count)
            }
            Opcode::Chase => (Self::Chase { start: first, steps: count, result }, value | second),
            Opcode::RandomUpdate => {
                (Self::RandomUpdate { table: first, length: second, seed: value, updates: count }, result)
            }
            Opcode::Prefetch => (Self::Prefetch { address: first, length: count }, value | second | result),
            Opcode::KernelCopy => (Self::Copy { source: first, destination: second, length: count }, value | result),
            _ => return None,
        };
        if spare != 0 {
            return Some(Err(KernelError::Reserved));
        }
        match kernel.check() {
            Ok(()) => Some(Ok(kernel)),
            Err(error) => Some(Err(error)),
        }
    }

    const fn check(self) -> Result<(), KernelError> {
        match self {
            Self::Read { source: address, length }
            | Self::Write { destination: address, length, .. }
            | Self::Set { destination: address, length, .. }
            | Self::AtomicAdd { target: address, length, .. }
            | Self::Prefetch { address, length } => range(address, length),
            Self::Sum { source, length, result } => both(range(source, length), word(result)),
            Self::Saxpy { x, y, length, .. } => {
                let same_or_apart = if x == y { Ok(()) } else { apart(x, y, length) };
                both(both(range(x, length), range(y, length)), same_or_apart)
            }
            Self::Copy { source, destination, length } => {
                both(both(range(source, length), range(destination, length)), apart(source, destination, length))
            }
            Self::CompareAndSwap { target, result, .. } => both(word(target), word(result)),
            Self::Chase { start, steps, result } => both(both(word(start), amount(steps)), word(result)),
            Self::RandomUpdate { table, length, seed, updates } => {
                let power = if length.is_power_of_two() { Ok(()) } else { Err(KernelError::Operand(length)) };
                let seeded = if seed != 0 { Ok(()) } else { Err(KernelError::Operand(seed)) };
                both(both(range(table, length), power), both(seeded, amount(updates)))
            }
        }
    }
}

const fn of(first: u64, value: u64, second: u64, count: u64, result: u64) -> KernelWords {
    KernelWords { first, value, second, count, result }
}

const fn both(first: Result<(), KernelError>, second: Result<(), KernelError>) -> Result<(), KernelError> {
    if first.is_err() {
        first
    } else {
        second
    }
}

const fn word(address: u64) -> Result<(), KernelError> {
    range(address, WORD_BYTES)
}

const fn amount(count: u64) -> Result<(), KernelError> {
    if count == 0 || count > MAX_KERNEL_COUNT {
        Err(KernelError::Operand(count))
    } else {
        Ok(())
    }
}

/// Whether two ranges of a length have no byte in common.
const fn apart(first: u64, second: u64, length: u64) -> Result<(), KernelError> {
    if first.abs_diff(second) >= length {
        Ok(())
    } else {
        Err(KernelError::Operand(second))
    }
}

const fn range(address: u64, length: u64) -> Result<(), KernelError> {
    if length % WORD_BYTES != 0 || length == 0 || length > MAX_KERNEL_COUNT {
        return Err(KernelError::Operand(length));
    }
    if address % WORD_BYTES != 0 || address.checked_add(length).is_none() {
        return Err(KernelError::Operand(address));
    }
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernels of compute engines, over virtual addresses.
//!
//! A kernel runs in strides, each under one permit for memory. The cursor moves when what it counts has been done, and with it
//! what the counters say; so a kernel that faults goes on exactly where it was, however often it faults.

mod scattered;

use ersatz_abi::command::Cause;
use ersatz_abi::fault::AccessKind;
use ersatz_abi::kernel::{Kernel, WORD_BYTES};
use ersatz_abi::list::Location;
use ersatz_abi::mmu::PageSize;

use super::context::{Context, Stop};
use super::hold::{begin_piece, end_piece, pass, stride_event};
use super::memory_access::{MemoryAccess, Span};
use crate::channel::task::Cursor;
use crate::trace::Step;
pub(super) use scattered::in_flight;
use scattered::{STRIDE_ACCESSES, atomic_add, chase, random_update};

/// Most bytes of one stride.
const STRIDE_BYTES: u64 = 32 << 10;

/// Executes kernels.
pub(crate) struct KernelRunner {
    /// Room for a stride of each of two operands.
    first: Box<[u8]>,
    second: Box<[u8]>,
}

impl KernelRunner {
    pub(crate) fn new() -> Self {
        let room = || vec![0; STRIDE_BYTES as usize].into_boxed_slice();
        Self { first: room(), second: room() }
    }

    /// Runs a kernel to its end, from where it has come to. `bytes` counts what it accessed.
    pub(crate) fn run(
        &mut self,
        context: &Context<'_>,
        (kernel, cause): (&Kernel, Cause),
        cursor: &mut Cursor,
        bytes: &mut u64,
    ) -> Result<(), Stop> {
        let steps = steps(kernel);
        while cursor.done < steps {
            let begun = cursor.done;
            let what = || stride_event(context, kernel, begun, STRIDE_BYTES);
            pass(context, Step::BeforePiece, cause, &mut cursor.passes, what)?;
            let began = begin_piece(context);
            let moved = MemoryAccess::open(context, 0, address_of(kernel), |memory| {
                let result = self.stride(memory, kernel, cursor);
                // What was done before it had to stop is counted, too.
                *bytes += memory.bytes;
                result.map(|()| memory.bytes)
            })?;
            pass(context, Step::AfterPiece, cause, &mut cursor.passes, what)?;
            end_piece(context, began, moved, false)?;
        }
        let Some(result) = result_of(kernel) else { return Ok(()) };
        MemoryAccess::open(context, 0, result, |memory| {
            let to = memory.resolve(Location::virtual_address(result), WORD_BYTES, AccessKind::Write)?;
            memory.write(to.location, &mut cursor.carry.to_le_bytes())?;
            memory.accessed(&to, WORD_BYTES);
            memory.count_written(WORD_BYTES);
            *bytes += memory.bytes;
            Ok(())
        })
    }

    fn stride(&mut self, memory: &mut MemoryAccess<'_>, kernel: &Kernel, cursor: &mut Cursor) -> Result<(), Stop> {
        match *kernel {
            Kernel::Read { source, length } => {
                self.read(memory, source, length, cursor)?;
            }
            Kernel::Sum { source, length, .. } => {
                let bytes = self.read(memory, source, length, cursor)?;
                cursor.carry = words(bytes).fold(cursor.carry, u64::wrapping_add);
            }
            Kernel::Write { destination, length, seed } => {
                self.write(memory, destination, length, cursor, |number| seed.wrapping_add(number))?;
            }
            Kernel::Set { destination, length, pattern } => {
                self.write(memory, destination, length, cursor, |_| pattern)?;
            }
            Kernel::Saxpy { x, y, length, factor } => {
                self.saxpy(memory, (x, y), length, f32::from_bits(factor), cursor)?
            }
            Kernel::Copy { source, destination, length } => self.copy(memory, (source, destination), length, cursor)?,
            Kernel::AtomicAdd { target, length, addend } => atomic_add(memory, target, length, addend, cursor)?,
            Kernel::CompareAndSwap { target, expected, replacement, .. } => {
                let at = memory.resolve(Location::virtual_address(target), WORD_BYTES, AccessKind::Atomic)?;
                cursor.carry = memory.update(at.location, |old| (old == expected).then_some(replacement))?;
                memory.accessed(&at, WORD_BYTES);
                memory.count_atomics(1);
                cursor.done = 1;
            }
            Kernel::Chase { start, steps, .. } => chase(memory, start, steps, cursor)?,
            Kernel::RandomUpdate { table, length, seed, updates } => {
                random_update(memory, (table, length), seed, updates, cursor)?;
            }
            Kernel::Prefetch { address, length } => prefetch(memory, address, length, cursor)?,
        }
        Ok(())
    }

    /// Reads what comes next of a range, and returns it.
    fn read(
        &mut self,
        memory: &mut MemoryAccess<'_>,
        source: u64,
        length: u64,
        cursor: &mut Cursor,
    ) -> Result<&[u8], Stop> {
        let from = next_of(memory, source, length, cursor, AccessKind::Read)?;
        let bytes = &mut self.first[..from.length as usize];
        memory.read(from.location, bytes)?;
        memory.accessed(&from, from.length);
        memory.count_read(from.length);
        cursor.done += from.length;
        Ok(bytes)
    }

    /// Writes what comes next of a range: word *n* as `value(n)`.
    fn write(
        &mut self,
        memory: &mut MemoryAccess<'_>,
        destination: u64,
        length: u64,
        cursor: &mut Cursor,
        value: impl Fn(u64) -> u64,
    ) -> Result<(), Stop> {
        let to = next_of(memory, destination, length, cursor, AccessKind::Write)?;
        let bytes = &mut self.first[..to.length as usize];
        for (number, word) in (cursor.done / WORD_BYTES..).zip(bytes.chunks_exact_mut(WORD_BYTES as usize)) {
            word.copy_from_slice(&value(number).to_le_bytes());
        }
        memory.write(to.location, bytes)?;
        memory.accessed(&to, to.length);
        memory.count_written(to.length);
        cursor.done += to.length;
        Ok(())
    }

    /// Copies what comes next of a range to another one. Nothing is written before both places are translated.
    fn copy(
        &mut self,
        memory: &mut MemoryAccess<'_>,
        (source, destination): (u64, u64),
        length: u64,
        cursor: &mut Cursor,
    ) -> Result<(), Stop> {
        let from = next_of(memory, source, length, cursor, AccessKind::Read)?;
        let to = next_of(memory, destination, cursor.done + from.length, cursor, AccessKind::Write)?;
        let count = to.length;
        memory.copy(from.location, to.location, count, &mut self.first)?;
        memory.accessed(&from, count);
        memory.accessed(&to, count);
        memory.count_read(count);
        memory.count_written(count);
        cursor.done += count;
        Ok(())
    }

    fn saxpy(
        &mut self,
        memory: &mut MemoryAccess<'_>,
        (x, y): (u64, u64),
        length: u64,
        factor: f32,
        cursor: &mut Cursor,
    ) -> Result<(), Stop> {
        let from = next_of(memory, x, length, cursor, AccessKind::Read)?;
        let both = next_of(memory, y, cursor.done + from.length, cursor, AccessKind::Write)?;
        let count = both.length;
        let (xs, ys) = (&mut self.first[..count as usize], &mut self.second[..count as usize]);
        memory.read(from.location, xs)?;
        memory.read(both.location, ys)?;
        for (x, y) in xs.chunks_exact(4).zip(ys.chunks_exact_mut(4)) {
            let single = |bytes: &[u8]| bytes.try_into().map_or(0.0, f32::from_le_bytes);
            let product = factor * single(x);
            let sum = product + single(y);
            y.copy_from_slice(&sum.to_le_bytes());
        }
        memory.write(both.location, ys)?;
        memory.accessed(&from, count);
        memory.accessed(&both, count);
        memory.count_read(2 * count);
        memory.count_written(count);
        cursor.done += count;
        Ok(())
    }
}

/// What the cursor counts up to.
fn steps(kernel: &Kernel) -> u64 {
    match *kernel {
        Kernel::Read { length, .. }
        | Kernel::Write { length, .. }
        | Kernel::Set { length, .. }
        | Kernel::Sum { length, .. }
        | Kernel::Saxpy { length, .. }
        | Kernel::Copy { length, .. }
        | Kernel::AtomicAdd { length, .. }
        | Kernel::Prefetch { length, .. } => length,
        Kernel::CompareAndSwap { .. } => 1,
        Kernel::Chase { steps, .. } => steps,
        Kernel::RandomUpdate { updates, .. } => updates,
    }
}

/// The address to name when nothing may be accessed.
fn address_of(kernel: &Kernel) -> u64 {
    kernel.encode().first
}

fn result_of(kernel: &Kernel) -> Option<u64> {
    match *kernel {
        Kernel::Sum { result, .. } | Kernel::CompareAndSwap { result, .. } | Kernel::Chase { result, .. } => {
            Some(result)
        }
        _ => None,
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(WORD_BYTES as usize).map(|word| word.try_into().map_or(0, u64::from_le_bytes))
}

/// Where the next part of a range is.
fn next_of(
    memory: &mut MemoryAccess<'_>,
    start: u64,
    length: u64,
    cursor: &Cursor,
    access: AccessKind,
) -> Result<Span, Stop> {
    let wanted = STRIDE_BYTES.min(length - cursor.done);
    memory.resolve(Location::virtual_address(start + cursor.done), wanted, access)
}

/// Translates what comes next of a range; a fault is passed over, and reported if the address space reports any.
fn prefetch(memory: &mut MemoryAccess<'_>, address: u64, length: u64, cursor: &mut Cursor) -> Result<(), Stop> {
    for _ in 0..STRIDE_ACCESSES {
        if cursor.done >= length {
            break;
        }
        let at = address + cursor.done;
        let to_page_end = PageSize::Small.bytes() - at % PageSize::Small.bytes();
        let step = match memory.resolve(Location::virtual_address(at), length - cursor.done, AccessKind::Prefetch) {
            Ok(place) => place.length,
            Err(Stop::PageFault { fault, .. }) => {
                if memory.is_replayable() {
                    memory.report(&fault);
                }
                to_page_end
            }
            Err(stop) => return Err(stop),
        };
        cursor.done += step.min(length - cursor.done);
    }
    Ok(())
}

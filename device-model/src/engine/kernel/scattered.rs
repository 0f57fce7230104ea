// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernels that access single words, here and there; and what else of a kernel is in flight when an access faults.

use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::AccessKind;
use ersatz_abi::kernel::{Kernel, WORD_BYTES, next_random};
use ersatz_abi::list::Location;
use ersatz_abi::mmu::PageSize;

use super::next_of;
use crate::channel::task::Cursor;
use crate::engine::context::Stop;
use crate::engine::memory_access::MemoryAccess;
use crate::mmu::PageFault;

/// Most single accesses of one stride.
pub(super) const STRIDE_ACCESSES: u64 = 128;
/// How many accesses a kernel has in flight: what is reported at once when one of them faults.
const ACCESSES_IN_FLIGHT: u64 = 4;

fn behind(location: Location, offset: u64) -> Location {
    Location { address: location.address + offset, ..location }
}

pub(super) fn atomic_add(
    memory: &mut MemoryAccess<'_>,
    target: u64,
    length: u64,
    addend: u64,
    cursor: &mut Cursor,
) -> Result<(), Stop> {
    let at = next_of(memory, target, length, cursor, AccessKind::Atomic)?;
    let count = (at.length / WORD_BYTES).min(STRIDE_ACCESSES);
    let add = |number| memory.update(behind(at.location, number * WORD_BYTES), |old| Some(old.wrapping_add(addend)));
    let (mut done, mut result) = (0, Ok(()));
    // One by one: should the next word fail, this one has been done.
    while result.is_ok() && done < count {
        result = add(done).map(|_| done += 1);
    }
    if done > 0 {
        memory.accessed(&at, done * WORD_BYTES);
    }
    cursor.done += done * WORD_BYTES;
    memory.count_atomics(done);
    result
}

pub(super) fn chase(memory: &mut MemoryAccess<'_>, start: u64, steps: u64, cursor: &mut Cursor) -> Result<(), Stop> {
    for _ in 0..STRIDE_ACCESSES.min(steps - cursor.done) {
        let pointer = if cursor.done == 0 { start } else { cursor.carry };
        if pointer % WORD_BYTES != 0 {
            return Err(Stop::failed(ErrorCode::BadOperand, 0, pointer));
        }
        let from = memory.resolve(Location::virtual_address(pointer), WORD_BYTES, AccessKind::Read)?;
        let mut word = [0; WORD_BYTES as usize];
        memory.read(from.location, &mut word)?;
        memory.accessed(&from, WORD_BYTES);
        cursor.carry = u64::from_le_bytes(word);
        memory.count_read(WORD_BYTES);
        cursor.done += 1;
    }
    Ok(())
}

pub(super) fn random_update(
    memory: &mut MemoryAccess<'_>,
    (table, length): (u64, u64),
    seed: u64,
    updates: u64,
    cursor: &mut Cursor,
) -> Result<(), Stop> {
    for _ in 0..STRIDE_ACCESSES.min(updates - cursor.done) {
        let state = if cursor.done == 0 { seed } else { cursor.carry };
        let (random, address) = update_after(state, table, length);
        let at = memory.resolve(Location::virtual_address(address), WORD_BYTES, AccessKind::Atomic)?;
        memory.update(at.location, |old| Some(old ^ random))?;
        memory.accessed(&at, WORD_BYTES);
        cursor.carry = random;
        memory.count_atomics(1);
        cursor.done += 1;
    }
    Ok(())
}

/// The random number after a state, and the word it chooses.
fn update_after(state: u64, table: u64, length: u64) -> (u64, u64) {
    let random = next_random(state);
    // The length is a power of two.
    (random, table + random % (length / WORD_BYTES) * WORD_BYTES)
}

/// The accesses that a kernel has in flight behind the one that faulted, and that fault, too. As on hardware, several may
/// be of one page.
pub(crate) fn in_flight(
    memory: &mut MemoryAccess<'_>,
    kernel: &Kernel,
    cursor: &Cursor,
    first: &PageFault,
) -> Vec<PageFault> {
    let next_page = |start: u64, length: u64, step: u64| {
        let page = (first.address & !(PageSize::Small.bytes() - 1)).checked_add(step * PageSize::Small.bytes())?;
        (page < start + length).then_some(page)
    };
    let later = |step: u64| match *kernel {
        Kernel::RandomUpdate { table, length, seed, updates } => {
            let remaining = updates - cursor.done;
            let mut state = if cursor.done == 0 { seed } else { cursor.carry };
            let mut address = 0;
            for _ in 0..=step {
                (state, address) = update_after(state, table, length);
            }
            (step < remaining).then_some(address)
        }
        Kernel::Read { source: start, length }
        | Kernel::Sum { source: start, length, .. }
        | Kernel::Write { destination: start, length, .. }
        | Kernel::Set { destination: start, length, .. }
        | Kernel::AtomicAdd { target: start, length, .. }
            if cursor.done < length =>
        {
            next_page(start, length, step)
        }
        // Of the range in which it faulted.
        Kernel::Copy { source, destination, length } => {
            next_page(if first.access == AccessKind::Write { destination } else { source }, length, step)
        }
        _ => None,
    };
    (1..ACCESSES_IN_FLIGHT)
        .filter_map(later)
        .filter_map(|address| match memory.resolve(Location::virtual_address(address), WORD_BYTES, first.access) {
            Err(Stop::PageFault { fault, .. }) => Some(fault),
            _ => None,
        })
        .collect()
}

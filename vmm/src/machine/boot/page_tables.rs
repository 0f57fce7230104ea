// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The identity-mapping page tables that the boot CPU starts with.

use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::machine::layout::{COMMAND_LINE, PAGE, PAGE_TABLES};

/// Bytes that one page directory maps.
const DIRECTORY_SPAN: u64 = 1 << 30;
/// Bytes that one directory entry maps.
const LARGE_PAGE: u64 = 2 << 20;
/// Present and writable.
const TABLE: u64 = 0b11;
/// Present, writable, accessed, dirty, large.
const LARGE: u64 = 0b1110_0011;

/// Why the address space could not be mapped.
#[derive(Debug, Error)]
pub enum PageTableError {
    /// The tables would not fit into the room they have.
    #[error("cannot map the first {0:#x} bytes of the address space for the boot CPU; {max:#x} is the most", max = limit())]
    TooMuch(u64),
    /// Guest memory is too small.
    #[error("cannot write the boot CPU's page tables")]
    Write(#[from] GuestMemoryError),
}

/// The most that [`identity_map`] has room to map.
fn limit() -> u64 {
    // One page for each of the two upper levels.
    ((COMMAND_LINE - PAGE_TABLES) / PAGE - 2) * DIRECTORY_SPAN
}

/// Maps the first `bytes` bytes (rounded up to 1 GiB) to themselves, writable, in 2 MiB pages; returns CR3.
///
/// # Errors
///
/// [`PageTableError`] if there is no room for the tables.
pub fn identity_map(memory: &GuestMemoryMmap, bytes: u64) -> Result<u64, PageTableError> {
    if bytes > limit() {
        return Err(PageTableError::TooMuch(bytes));
    }
    let pointers = PAGE_TABLES + PAGE;
    memory.write_obj(pointers | TABLE, GuestAddress(PAGE_TABLES))?;
    for (index, start) in (0..bytes).step_by(DIRECTORY_SPAN as usize).enumerate() {
        let index = index as u64;
        let directory = pointers + PAGE * (1 + index);
        memory.write_obj(directory | TABLE, GuestAddress(pointers + 8 * index))?;
        let mut entries = [0; PAGE as usize];
        for (entry, page) in entries.chunks_exact_mut(8).zip(0..) {
            entry.copy_from_slice(&((start + page * LARGE_PAGE) | LARGE).to_le_bytes());
        }
        memory.write_slice(&entries, GuestAddress(directory))?;
    }
    Ok(PAGE_TABLES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap()
    }

    /// What the tables make of a virtual address.
    fn walk(memory: &GuestMemoryMmap, cr3: u64, address: u64) -> Option<u64> {
        let entry = |table: u64, shift: u32| {
            let entry: u64 = memory.read_obj(GuestAddress(table + 8 * (address >> shift & 0x1ff))).unwrap();
            (entry & 1 == 1).then_some(entry & !0xfff)
        };
        let directory = entry(entry(cr3, 39)?, 30)?;
        Some(entry(directory, 21)? + (address & (LARGE_PAGE - 1)))
    }

    #[test]
    fn refuses_what_has_no_room() {
        assert!(matches!(identity_map(&memory(), limit() + 1), Err(PageTableError::TooMuch(_))));
        assert!(identity_map(&memory(), limit()).is_ok());
    }

    proptest! {
        #[test]
        fn maps_each_address_to_itself(bytes in 1u64..=limit(), address in 0u64..32 << 30) {
            let memory = memory();
            let cr3 = identity_map(&memory, bytes).unwrap();
            let mapped = address < bytes.next_multiple_of(DIRECTORY_SPAN);
            prop_assert_eq!(walk(&memory, cr3, address), mapped.then_some(address));
        }
    }
}

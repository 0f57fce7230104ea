// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory for the page tables of tests: words that are there, and all others that are not.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use ersatz_abi::list::{Aperture, Location};
use ersatz_abi::mmu::TABLE_BYTES;

use super::memory::TableMemory;

/// Tables, each a page.
#[derive(Default)]
pub(super) struct Memory {
    tables: RefCell<HashMap<(Aperture, u64), Vec<u64>>>,
    /// Bit *n*: there is a peer *n*.
    peers: u8,
    /// Devices can only read it.
    pub(super) read_only: Cell<bool>,
}

impl Memory {
    /// Without tables, with these peers.
    pub(super) fn with_peers(peers: u8) -> Self {
        Self { peers, ..Self::default() }
    }

    /// Adds a zeroed page.
    pub(super) fn add_table(&self, at: Location) {
        assert_eq!(at.address % TABLE_BYTES, 0);
        self.tables.borrow_mut().insert((at.aperture, at.address), vec![0; 512]);
    }

    fn with<R>(&self, at: Location, work: impl FnOnce(&mut u64) -> R) -> Option<R> {
        let mut tables = self.tables.borrow_mut();
        let table = tables.get_mut(&(at.aperture, at.address & !(TABLE_BYTES - 1)))?;
        Some(work(&mut table[(at.address % TABLE_BYTES / 8) as usize]))
    }

    /// Writes an entry, as a driver.
    pub(super) fn store(&self, at: Location, value: u64) {
        self.with(at, |word| *word = value).expect("a table");
    }
}

impl TableMemory for Memory {
    fn load_u64(&self, at: Location) -> Option<u64> {
        self.with(at, |word| *word)
    }

    fn compare_exchange_u64(&self, at: Location, current: u64, new: u64) -> Option<Result<u64, u64>> {
        if self.read_only.get() {
            return None;
        }
        self.with(at, |word| {
            if *word != current {
                return Err(*word);
            }
            *word = new;
            Ok(current)
        })
    }

    fn has_peer(&self, peer: u8) -> bool {
        self.peers >> peer & 1 != 0
    }
}

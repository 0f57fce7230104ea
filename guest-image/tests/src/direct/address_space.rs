// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An address space: its page tables, which grow as pages are mapped, and its registers.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ersatz_abi::command::Location;
use ersatz_abi::mmu::{
    AddressSpaceControl, Invalidation, Page, PageSize, PageTableEntry, TABLE_BYTES, address_bits, table_index,
};
use ersatz_abi::regs::{self, Register};

use super::buffer::Buffer;
use super::gpu::Gpu;
use super::memory::Memory;

/// What pages permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Reading.
    Read,
    /// Writing, too.
    Write,
    /// Atomics, too.
    Atomic,
}

/// Four levels, and faults that can be replayed.
pub const REPLAYABLE: AddressSpaceControl = AddressSpaceControl(0).with_replayable(true);

/// An address space that is enabled.
#[derive(Debug)]
pub struct AddressSpace<'a> {
    gpu: &'a Gpu,
    asid: u8,
    control: AddressSpaceControl,
    /// Where tables come from.
    memory: &'a Memory,
    /// Every table by its level and the first address that it translates.
    tables: RefCell<HashMap<(u8, u64), Buffer<'a>>>,
}

impl<'a> AddressSpace<'a> {
    /// Enables an address space with nothing in it, whose tables are in `memory`.
    pub fn new(gpu: &'a Gpu, asid: u8, control: AddressSpaceControl, memory: &'a Memory) -> Self {
        let space = Self { gpu, asid, control, memory, tables: RefCell::default() };
        let root = PageTableEntry::table(space.table(control.root_level(), 0).location());
        gpu.registers().write64(space.register(regs::ADDRESS_SPACE_ROOT), root.0);
        gpu.registers().write32(space.register(regs::ADDRESS_SPACE_CONTROL), control.with_enable(true).0);
        space
    }

    /// The entry for the page of this size at an address; the tables on the way to it are made. Of a page of 64 KiB each of the
    /// sixteen has an address of its own.
    pub fn entry(&self, address: u64, size: PageSize) -> &'a AtomicU64 {
        let last = if size == PageSize::Huge { 1 } else { 0 };
        for level in (last..self.control.root_level()).rev() {
            let entry = self.slot(address, level + 1);
            if entry.load(Ordering::Relaxed) == 0 {
                let table = self.table(level, address);
                entry.store(PageTableEntry::table(table.location()).0, Ordering::Release);
            }
        }
        self.slot(address, last)
    }

    /// Maps memory in pages of one size. Its length is a multiple of that.
    pub fn map(&self, address: u64, buffer: &Buffer<'_>, size: PageSize, rights: Rights) {
        self.map_location(address, buffer.location(), buffer.length(), size, rights);
    }

    /// The same for memory that only the device knows.
    pub fn map_location(&self, address: u64, location: Location, length: u64, size: PageSize, rights: Rights) {
        assert_eq!((address | length | location.address) % size.bytes(), 0, "pages of {}", size.name());
        for offset in (0..length).step_by(size.bytes() as usize) {
            let location = Location { address: location.address + offset, ..location };
            let (write, atomic) = (rights != Rights::Read, rights == Rights::Atomic);
            let page = PageTableEntry::page(Page { location, size, write, atomic });
            // The last entry is the last to become valid, so an engine finds all sixteen of a page of 64 KiB or waits at a fault.
            for entry in self.entries(address + offset, size) {
                entry.store(page.0, Ordering::Release);
            }
        }
    }

    /// Takes a page away. Returns its entry, or the sum of its sixteen.
    pub fn unmap(&self, address: u64, size: PageSize) -> PageTableEntry {
        let entries = self.entries(address, size);
        PageTableEntry(entries.map(|entry| entry.swap(0, Ordering::AcqRel)).fold(0, |sum, entry| sum | entry))
    }

    /// The entry of a page of 4 KiB as it is now.
    pub fn look(&self, address: u64) -> PageTableEntry {
        PageTableEntry(self.entry(address, PageSize::Small).load(Ordering::Acquire))
    }

    /// What an invalidation of a range of it is.
    pub fn range(&self, address: u64, length: u64) -> Invalidation {
        Invalidation::Range { asid: self.asid, address, length }
    }

    /// Invalidates a range of it by register, and waits.
    pub fn invalidate(&self, address: u64, length: u64) {
        self.gpu.invalidate(self.range(address, length));
    }

    fn entries(&self, address: u64, size: PageSize) -> impl Iterator<Item = &'a AtomicU64> + '_ {
        let small = PageSize::Small.bytes();
        let count = if size == PageSize::Big { size.bytes() / small } else { 1 };
        (0..count).map(move |index| self.entry(address + index * small, size))
    }

    /// The entry of a table of this level that an address is translated by.
    fn slot(&self, address: u64, level: u8) -> &'a AtomicU64 {
        self.table(level, address).word(table_index(address, level) * size_of::<u64>() as u64)
    }

    /// The table of this level that an address is translated by.
    fn table(&self, level: u8, address: u64) -> Buffer<'a> {
        let first = address >> address_bits(level) << address_bits(level);
        let mut tables = self.tables.borrow_mut();
        *tables.entry((level, first)).or_insert_with(|| self.memory.take(TABLE_BYTES as usize))
    }

    fn register(&self, register: Register) -> Register {
        let offset =
            regs::address_space_register(self.asid.into(), register).expect("every number is an address space");
        Register { offset, ..register }
    }
}

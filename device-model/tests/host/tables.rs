// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The lines of driver that make an address space: page tables in VRAM or in system memory, and the registers that point to them.

use ersatz_abi::list::{Aperture, Location};
use ersatz_abi::mmu::{
    AddressSpaceControl, InvalidateTarget, Invalidation, Page, PageSize, PageTableEntry, Step, TABLE_BYTES, table_index,
};
use ersatz_abi::pci::BAR_VRAM;
use ersatz_abi::regs;
use ersatz_device_model::bus::PciFunction;
use vm_memory::{Bytes, GuestAddress};

use super::Host;

/// An address space under construction.
pub struct Space {
    pub asid: u8,
    control: AddressSpaceControl,
    root: Location,
    /// Where the next table goes.
    next: Location,
}

impl Host {
    pub fn load(&self, at: Location) -> u64 {
        let mut data = [0; 8];
        match at.aperture {
            Aperture::Vram => self.gpu.bar_read(BAR_VRAM, at.address, &mut data),
            _ => self.memory.read_slice(&mut data, GuestAddress(at.address)).unwrap(),
        }
        u64::from_le_bytes(data)
    }

    pub fn store(&self, at: Location, value: u64) {
        match at.aperture {
            Aperture::Vram => drop(self.gpu.bar_write(BAR_VRAM, at.address, &value.to_le_bytes())),
            _ => self.memory.write_slice(&value.to_le_bytes(), GuestAddress(at.address)).unwrap(),
        }
    }

    /// Invalidates by register, and waits for the acknowledgement.
    pub fn invalidate(&self, invalidation: Invalidation) {
        let (InvalidateTarget(target), address, length) = invalidation.encode();
        self.write64(regs::INVALIDATE_ADDRESS.offset, address);
        self.write64(regs::INVALIDATE_LENGTH.offset, length);
        self.write32(regs::INVALIDATE.offset, target as u32);
        let number = self.read64(regs::INVALIDATE_REQUESTED.offset);
        self.wait_until("the acknowledgement", |host| host.read64(regs::INVALIDATE_ACKNOWLEDGED.offset) >= number);
    }
}

impl Space {
    /// An enabled address space whose tables lie from `tables` on.
    pub fn new(host: &Host, asid: u8, control: AddressSpaceControl, tables: Location) -> Self {
        let mut space = Self { asid, control: control.with_enable(true), root: tables, next: tables };
        space.root = space.table(host);
        let register = |register| regs::address_space_register(asid.into(), register).unwrap();
        host.write64(register(regs::ADDRESS_SPACE_ROOT), PageTableEntry::table(space.root).0);
        host.write32(register(regs::ADDRESS_SPACE_CONTROL), space.control.0);
        space
    }

    fn table(&mut self, host: &Host) -> Location {
        let table = self.next;
        self.next.address += TABLE_BYTES;
        (0..TABLE_BYTES).step_by(8).for_each(|at| host.store(Location { address: table.address + at, ..table }, 0));
        table
    }

    /// Where the entry is that maps an address by a page of this size; makes the tables on the way.
    pub fn entry(&mut self, host: &Host, address: u64, size: PageSize) -> Location {
        let leaf_level = u8::from(size == PageSize::Huge);
        let (mut table, mut level) = (self.root, self.control.root_level());
        loop {
            let entry = Location { address: table.address + table_index(address, level) * 8, ..table };
            if level == leaf_level {
                return entry;
            }
            table = match PageTableEntry(host.load(entry)).decode(level) {
                Ok(Step::Table(table)) => table,
                _ => {
                    let table = self.table(host);
                    host.store(entry, PageTableEntry::table(table).0);
                    table
                }
            };
            level -= 1;
        }
    }

    /// Maps a page.
    pub fn map(&mut self, host: &Host, address: u64, page: Page) {
        let entries = if page.size == PageSize::Big { 16 } else { 1 };
        for number in 0..entries {
            let entry = self.entry(host, address + number * PageSize::Small.bytes(), page.size);
            host.store(entry, PageTableEntry::page(page).0);
        }
    }

    /// Maps nothing there any more; what engines cache stays.
    pub fn unmap(&mut self, host: &Host, address: u64, size: PageSize) {
        let entries = if size == PageSize::Big { 16 } else { 1 };
        for number in 0..entries {
            let entry = self.entry(host, address + number * PageSize::Small.bytes(), size);
            host.store(entry, 0);
        }
    }
}

/// A page that may be written and be the target of atomics.
pub fn page(location: Location, size: PageSize) -> Page {
    Page { location, size, write: true, atomic: true }
}

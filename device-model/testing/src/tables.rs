// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The lines of driver that make an address space: page tables where a test wants them, and the registers that point to them.

use ersatz_abi::list::{Aperture, Location};
use ersatz_abi::mmu::{AddressSpaceControl, InvalidateTarget, Invalidation, Page, PageSize, TABLE_BYTES};
use ersatz_abi::pci::BAR_VRAM;
use ersatz_abi::regs;
use ersatz_device_model::bus::PciFunction;
use vm_memory::{Bytes, GuestAddress};

use super::Host;
use super::page_tables::PageTables;

/// An address space of a test's.
pub struct Space {
    tables: PageTables<Box<dyn FnMut() -> Location>>,
}

impl Host {
    /// Reads a word of a table, in VRAM or system memory.
    pub fn load(&self, at: Location) -> u64 {
        let mut data = [0; 8];
        match at.aperture {
            Aperture::Vram => self.gpu.bar_read(BAR_VRAM, at.address, &mut data),
            _ => self.memory.read_slice(&mut data, GuestAddress(at.address)).unwrap(),
        }
        u64::from_le_bytes(data)
    }

    /// Writes a word of a table, in VRAM or system memory.
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
    /// An enabled address space whose tables lie from `tables` on, where nothing was written yet.
    pub fn new(host: &Host, asid: u8, control: AddressSpaceControl, tables: Location) -> Self {
        let mut next = tables;
        let allocate = Box::new(move || {
            let table = next;
            next.address += TABLE_BYTES;
            table
        });
        let space = Self { tables: PageTables::new(control.five_levels(), allocate) };
        let register = |register| regs::address_space_register(asid.into(), register).unwrap();
        host.write64(register(regs::ADDRESS_SPACE_ROOT), space.tables.root().0);
        host.write32(register(regs::ADDRESS_SPACE_CONTROL), control.with_enable(true).0);
        space
    }

    /// Where the entry is by which an address is translated, in a table that is there.
    pub fn entry(&self, address: u64, size: PageSize) -> Location {
        self.tables.entries(address, size)[0]
    }

    /// Maps a page.
    pub fn map(&mut self, host: &Host, address: u64, page: Page) {
        self.tables.map(address, page, &mut |at, value| host.store(at, value));
    }

    /// Maps nothing there any more; what engines cache stays.
    pub fn unmap(&mut self, host: &Host, address: u64, size: PageSize) {
        self.tables.unmap(address, size, &mut |at, value| host.store(at, value));
    }
}

/// A page that may be written and be the target of atomics.
pub fn page(location: Location, size: PageSize) -> Page {
    Page { location, size, write: true, atomic: true }
}

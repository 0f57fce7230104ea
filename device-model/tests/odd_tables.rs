// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Page tables that no driver writes on purpose, and those that change under a kernel.

use ersatz_abi::channel::Priority;
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::FaultKind;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{AddressSpaceControl, Page, PageSize, PageTableEntry};
use ersatz_abi::regs;
use ersatz_device_model::bus::PciFunction;

use ersatz_device_testing::faults::{ASID, BASE, COMPUTE, bind, enable_buffer, is_faulted, records, replayable};
use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{Host, RAM, command, reg};

const VRAM: u64 = 64 << 20;

/// A host whose channel 0 is the compute engine's, with a fault buffer and no address space.
fn ready() -> Host {
    let host = Host::new();
    enable_buffer(&host);
    bind(&host, 0, COMPUTE, Priority::Low);
    host
}

fn enable_space(host: &Host, root: PageTableEntry, control: AddressSpaceControl) {
    let register = |register| regs::address_space_register(ASID.into(), register).unwrap();
    host.write32(register(regs::ADDRESS_SPACE_CONTROL), 0);
    host.write64(register(regs::ADDRESS_SPACE_ROOT), root.0);
    host.write32(register(regs::ADDRESS_SPACE_CONTROL), control.with_enable(true).0);
}

/// Why a read faults, and at which level; the channel is reset after it.
fn fault(host: &mut Host, address: u64) -> (FaultKind, u8) {
    host.submit(command(Operation::Kernel(Kernel::Read { source: address, length: 8 })));
    host.wait_until("the fault", |host| is_faulted(host, 0));
    let found = records(host);
    assert_eq!((found.len(), found[0].address), (1, address));
    host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
    host.wait_until("the reset", |host| host.read32(reg(0, regs::CHANNEL_CONTROL)) == 0);
    host.put[0] = 0;
    bind(host, 0, COMPUTE, Priority::Low);
    (found[0].kind, found[0].level)
}

fn write(host: &mut Host, kernel: Kernel, fence: u64) {
    host.submit(Command { fence: Some(fence), ..command(Operation::Kernel(kernel)) });
    host.wait_until("its end", |host| host.fence() == fence);
}

/// A root whose first entry is itself: the walk ends where the levels do.
#[test]
fn a_table_that_points_to_itself_is_walked_once_a_level() {
    for five_levels in [false, true] {
        let mut host = ready();
        let root = PageTableEntry::table(Location::vram(0x10_0000));
        host.store(Location::vram(0x10_0000), root.0);
        enable_space(&host, root, replayable().with_five_levels(five_levels));
        assert_eq!(fault(&mut host, 0), (FaultKind::BadTable, 0), "a table at level 0");
        assert_eq!(fault(&mut host, 4096), (FaultKind::NotPresent, 0));
        assert_eq!(fault(&mut host, 2 << 20), (FaultKind::NotPresent, 1));
    }
}

#[test]
fn tables_at_the_end_of_their_memory_are_tables_and_those_beyond_are_none() {
    let mut host = ready();
    let last = |end: u64| end - 4096;
    for (table, expected) in [
        (Location::vram(last(VRAM)), (FaultKind::NotPresent, 3)),
        (Location::system(last(RAM)), (FaultKind::NotPresent, 3)),
        (Location::vram(VRAM), (FaultKind::BadTable, 4)),
        (Location::system(RAM), (FaultKind::BadTable, 4)),
        (Location::vram((1 << 52) - 4096), (FaultKind::BadTable, 4)),
        (Location::system((1 << 52) - 4096), (FaultKind::BadTable, 4)),
    ] {
        enable_space(&host, PageTableEntry::table(table), replayable());
        assert_eq!(fault(&mut host, (1 << 48) - 8), expected, "{table:?}");
    }
    assert_eq!(host.counter(Counter::DmaErrors), 2, "the bus refused two of them");
    let mut status = [0; 2];
    host.gpu.config_read(0x06, &mut status);
    assert_eq!(u16::from_le_bytes(status) & 1 << 13, 1 << 13, "and config space tells");
}

#[test]
fn the_last_byte_of_an_address_space_and_the_first_behind_it() {
    for (five_levels, limit) in [(false, 1_u64 << 48), (true, 1 << 57)] {
        let mut host = ready();
        let mut space = Space::new(&host, ASID, replayable().with_five_levels(five_levels), Location::vram(32 << 20));
        space.map(&host, limit - 4096, page(Location::vram(0), PageSize::Small));
        write(&mut host, Kernel::Set { destination: limit - 16, length: 16, pattern: 3 }, 1);
        assert_eq!(host.load(Location::vram(4088)), 3);
        // Across the limit: what is below is written, and then it faults.
        let across = Kernel::Set { destination: limit - 16, length: 32, pattern: 4 };
        host.submit(command(Operation::Kernel(across)));
        host.wait_until("the fault", |host| is_faulted(host, 0));
        let found = records(&host);
        let level = if five_levels { 4 } else { 3 };
        assert_eq!((found[0].address, found[0].kind, found[0].level), (limit, FaultKind::BadAddress, level));
        assert_eq!([4080, 4088].map(|at| host.load(Location::vram(at))), [4, 4]);
        assert_eq!(host.counter(Counter::KernelBytesWritten), 32);
        host.write32(regs::FAULT_CANCEL.offset, 0);
        assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), limit);
    }
    // No sign extension: the upper half is beyond.
    let mut host = ready();
    let _space = Space::new(&host, ASID, replayable(), Location::vram(32 << 20));
    for address in [1_u64 << 48, 0xffff_8000_0000_0000, u64::MAX - 15] {
        assert_eq!(fault(&mut host, address), (FaultKind::BadAddress, 3), "{address:#x}");
    }
}

/// A kernel that writes the very table its next pages are translated by: each entry is what it is when the kernel gets there.
#[test]
fn a_kernel_may_write_its_own_page_tables() {
    let mut host = ready();
    let mut space = Space::new(&host, ASID, replayable(), Location::vram(32 << 20));
    space.map(&host, BASE, page(Location::vram(0), PageSize::Small));
    let table = space.entry(BASE, PageSize::Small);
    // The second page is the table of level 0 itself.
    space.map(&host, BASE + 4096, page(Location { address: table.address & !0xfff, ..table }, PageSize::Small));
    let third = PageTableEntry::page(page(Location::vram(0x5000), PageSize::Small));
    let slot = BASE + 4096 + table.address % 4096 + 16;
    write(&mut host, Kernel::Set { destination: slot, length: 8, pattern: third.0 }, 1);
    write(&mut host, Kernel::Set { destination: BASE + 0x2000, length: 8, pattern: 9 }, 2);
    assert_eq!(host.load(Location::vram(0x5000)), 9);
    // It takes its own page away: the translation that is cached goes on to be used.
    let own = BASE + 4096 + table.address % 4096 + 8;
    write(&mut host, Kernel::Set { destination: own, length: 8, pattern: 0 }, 3);
    write(&mut host, Kernel::Set { destination: own, length: 8, pattern: third.0 }, 4);
    assert_eq!(host.load(space.entry(BASE + 4096, PageSize::Small)), third.0);
}

/// A page whose memory ends, or is not there at all, is found out by the access, in the terms of the access.
#[test]
fn pages_that_lead_nowhere_are_no_faults() {
    for (location, error) in [
        (Location::vram(VRAM), ErrorCode::VramRange),
        (Location::vram((1 << 52) - 4096), ErrorCode::VramRange),
        (Location::system(RAM), ErrorCode::DmaRead),
        (Location::system((1 << 52) - 4096), ErrorCode::DmaRead),
    ] {
        let mut host = ready();
        let mut space = Space::new(&host, ASID, replayable(), Location::vram(32 << 20));
        space.map(&host, BASE, Page { write: false, ..page(location, PageSize::Small) });
        host.submit(command(Operation::Kernel(Kernel::Read { source: BASE + 8, length: 8 })));
        host.wait_until("the error", |host| host.status(0).error() == Some(error));
        assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), location.address + 8, "{location:?}");
        assert_eq!(host.counter(Counter::Faults), 0);
    }
}

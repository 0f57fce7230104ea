// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel *prefetch*: what it reports, what it leaves out, and what even it cannot pass over.

use ersatz_abi::channel::Priority;
use ersatz_abi::command::Command;
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::AccessKind;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{AddressSpaceControl, PageSize, PageTableEntry};
use ersatz_abi::regs;

use ersatz_device_testing::faults::{ASID, BASE, COMPUTE, bind, kernel, records, replayable, ring, with_buffer};
use ersatz_device_testing::reg;
use ersatz_device_testing::tables::page;

#[test]
fn prefetches_are_reported_and_waited_for_by_nobody() {
    let (mut host, mut space) = with_buffer(replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    space.map(&host, BASE + 0x1000, page(Location::vram(0), PageSize::Small));
    host.submit(kernel(Kernel::Prefetch { address: BASE + 0x800, length: 0x2000 }));
    host.wait_until("its end", |host| host.fence() == 1);
    let found: Vec<_> = records(&host).iter().map(|record| (record.address - BASE, record.access)).collect();
    assert_eq!(found, [(0x800, AccessKind::Prefetch), (0x2000, AccessKind::Prefetch)]);
    host.submit(Command {
        fence: Some(2),
        ..kernel(Kernel::Prefetch { address: BASE + (2 << 20), length: 16 * 4096 })
    });
    host.wait_until("its end", |host| host.fence() == 2);
    let (kept, dropped) = (host.counter(Counter::Faults) - 2, host.counter(Counter::PrefetchFaultsDropped));
    assert_eq!(kept + dropped, 16);
    assert!((8..=9).contains(&kept), "half of the buffer, not {kept}");
    assert_eq!(host.counter(Counter::FaultsDropped), 0);
    assert_eq!(host.read32(ring(regs::NOTIFICATION_STATUS)), 0, "what nobody waits for is no loss");
}

/// Its pages are looked up as for a read: they are cached, and not dirty.
#[test]
fn what_was_prefetched_is_cached() {
    let (mut host, mut space) = with_buffer(replayable().with_track(true));
    bind(&host, 0, COMPUTE, Priority::Low);
    space.map(&host, BASE, page(Location::vram(4096), PageSize::Small));
    host.submit(kernel(Kernel::Prefetch { address: BASE, length: 4096 }));
    host.wait_until("its end", |host| host.fence() == 1);
    let entry = PageTableEntry(host.load(space.entry(BASE, PageSize::Small)));
    assert!(entry.accessed() && !entry.dirty());
    space.unmap(&host, BASE, PageSize::Small);
    host.submit(Command { fence: Some(2), ..kernel(Kernel::Read { source: BASE, length: 4096 }) });
    host.wait_until("the read", |host| host.fence() == 2);
    assert_eq!((host.counter(Counter::TlbMisses), host.counter(Counter::TlbHits)), (1, 1));
    assert_eq!(host.counter(Counter::KernelBytesRead), 4096, "of the page, not of its announcement");
}

#[test]
fn an_address_space_that_is_not_replayable_reports_nothing() {
    let (mut host, mut space) = with_buffer(AddressSpaceControl(0));
    bind(&host, 0, COMPUTE, Priority::Low);
    space.map(&host, BASE + 0x1000, page(Location::vram(0), PageSize::Small));
    host.submit(kernel(Kernel::Prefetch { address: BASE, length: 0x3000 }));
    host.wait_until("its end", |host| host.fence() == 1);
    assert_eq!(records(&host), []);
    assert_eq!((host.counter(Counter::Faults), host.counter(Counter::PrefetchFaultsDropped)), (0, 0));
}

#[test]
fn without_an_address_space_it_is_an_error() {
    let (mut host, _space) = with_buffer(replayable());
    host.write32(regs::address_space_register(ASID.into(), regs::ADDRESS_SPACE_CONTROL).unwrap(), 0);
    bind(&host, 0, COMPUTE, Priority::Low);
    host.submit(kernel(Kernel::Prefetch { address: BASE, length: 1 << 40 }));
    host.wait_until("the error", |host| host.status(0).error() == Some(ErrorCode::AddressSpace));
    assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), BASE);
}

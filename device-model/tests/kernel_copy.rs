// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel that copies: both of its ranges may fault, in the middle of it, and each word is copied once.

use ersatz_abi::channel::Priority;
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::{AccessKind, FaultKind, FaultRecord};
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{AddressSpaceControl, Invalidation, Page, PageSize};
use ersatz_abi::regs;

use ersatz_device_testing::faults::{ASID, BASE, COMPUTE, bind, is_faulted, kernel, records, replayable, with_buffer};
use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{DATA, Host, RAM, command, reg};

/// Where the two ranges begin.
const SOURCE: u64 = BASE;
const TARGET: u64 = BASE + 0x1000_0000;
/// Pages of each.
const PAGES: u64 = 4;
/// Bytes of each that tests look at.
const LENGTH: u64 = PAGES * 4096;

/// Where a page of a range is: in VRAM and in the system by turns, in descending order; of the two ranges always in different ones.
fn home(range: u64, number: u64) -> Location {
    let is_source = range == SOURCE;
    let offset = (PAGES - number) * 8192 + if is_source { 1 << 20 } else { 0 };
    if number % 2 == u64::from(is_source) {
        Location::vram((1 << 20) + offset)
    } else {
        Location::system(DATA + offset)
    }
}

fn place(range: u64, offset: u64) -> Location {
    let home = home(range, offset / 4096);
    Location { address: home.address + offset % 4096, ..home }
}

fn value(offset: u64) -> u64 {
    offset ^ 0xc0de_0000
}

/// A GPU with a channel 0 on the compute engine, and content in every word of the source; `mapped` says which pages are.
fn with_content(control: AddressSpaceControl, mapped: impl Fn(u64, u64) -> bool) -> (Host, Space) {
    let (host, mut space) = with_buffer(control);
    for offset in (0..LENGTH).step_by(8) {
        host.store(place(SOURCE, offset), value(offset));
    }
    for (range, number) in [SOURCE, TARGET].into_iter().flat_map(|range| (0..PAGES).map(move |number| (range, number)))
    {
        if mapped(range, number) {
            map(&host, &mut space, range, number);
        }
    }
    bind(&host, 0, COMPUTE, Priority::Normal);
    (host, space)
}

fn map(host: &Host, space: &mut Space, range: u64, number: u64) {
    space.map(host, range + number * 4096, page(home(range, number), PageSize::Small));
}

/// Copies from the third word on to behind the first word, so that pages of the two do not begin together.
fn copy() -> Kernel {
    Kernel::Copy { source: SOURCE + 16, destination: TARGET + 8, length: LENGTH - 24 }
}

/// Asserts that [`copy`] has written its first words, and nothing else.
fn check(host: &Host, bytes: u64) {
    for offset in (0..LENGTH).step_by(8) {
        let expected = if (8..8 + bytes).contains(&offset) { value(offset + 8) } else { 0 };
        assert_eq!(host.load(place(TARGET, offset)), expected, "the target at {offset:#x}");
        assert_eq!(host.load(place(SOURCE, offset)), value(offset), "the source at {offset:#x}");
    }
}

fn counted(host: &Host) -> (u64, u64) {
    (host.counter(Counter::KernelBytesRead), host.counter(Counter::KernelBytesWritten))
}

fn replay(host: &Host) {
    host.write32(regs::FAULT_REPLAY.offset, 1);
}

/// What is reported, as the offset in its range and the access.
fn reported(host: &Host) -> Vec<(u64, AccessKind)> {
    let offset = |record: &FaultRecord| match record.access {
        AccessKind::Write => record.address - TARGET,
        _ => record.address - SOURCE,
    };
    records(host).iter().map(|record| (offset(record), record.access)).collect()
}

#[test]
fn every_word_goes_where_it_belongs_and_is_counted_once() {
    let (mut host, _space) = with_content(replayable(), |_, _| true);
    host.execute(Operation::Kernel(copy()), 1);
    check(&host, LENGTH - 24);
    assert_eq!(counted(&host), (LENGTH - 24, LENGTH - 24));
    assert_eq!(host.counter(Counter::Faults), 0);
}

#[test]
fn pages_of_all_sizes_are_copied() {
    let (mut host, mut space) = with_buffer(replayable());
    let (huge, big) = (2 << 20, 64 << 10);
    let (source, target) = (0x8000_0000, 0x9000_0000);
    space.map(&host, source, page(Location::vram(4 << 20), PageSize::Huge));
    space.map(&host, source + huge, page(Location::system(DATA), PageSize::Big));
    for number in 0..16 {
        let home = Location::system(DATA + (1 << 20) + number * 4096);
        space.map(&host, target + number * 4096, page(home, PageSize::Small));
    }
    space.map(&host, target + big, page(Location::vram(8 << 20), PageSize::Big));
    bind(&host, 0, COMPUTE, Priority::Normal);
    for offset in (0..big).step_by(8) {
        host.store(Location::vram((6 << 20) - big + offset), value(offset));
        host.store(Location::system(DATA + offset), value(big + offset));
    }
    let from = source + huge - big;
    host.execute(Operation::Kernel(Kernel::Copy { source: from, destination: target, length: 2 * big }), 1);
    for offset in (0..big).step_by(8) {
        assert_eq!(host.load(Location::system(DATA + (1 << 20) + offset)), value(offset));
        assert_eq!(host.load(Location::vram((8 << 20) + offset)), value(big + offset));
    }
    assert_eq!(counted(&host), (2 * big, 2 * big));
    assert_eq!(host.counter(Counter::TlbMisses), 2 + 17, "one walk a page");
}

#[test]
fn a_fault_of_the_source_stops_the_copy_at_its_word() {
    let (mut host, mut space) = with_content(replayable(), |range, number| range == TARGET || number != 2);
    host.submit(kernel(copy()));
    host.wait_until("the fault", |host| is_faulted(host, 0));
    assert_eq!(reported(&host), [(0x2000, AccessKind::Read)]);
    let done = 0x2000 - 16;
    check(&host, done);
    assert_eq!(counted(&host), (done, done));
    // Nothing is mended: it stops at the same word.
    replay(&host);
    host.wait_until("a second record", |host| host.counter(Counter::Faults) == 2);
    host.wait_until("the fault", |host| is_faulted(host, 0));
    assert_eq!(reported(&host), [(0x2000, AccessKind::Read)]);
    assert_eq!(counted(&host), (done, done), "no word twice");
    map(&host, &mut space, SOURCE, 2);
    replay(&host);
    host.wait_until("the end", |host| host.fence() == 1);
    check(&host, LENGTH - 24);
    assert_eq!(counted(&host), (LENGTH - 24, LENGTH - 24));
}

#[test]
fn a_fault_of_the_target_stops_the_copy_at_its_word() {
    let (mut host, mut space) = with_content(replayable(), |range, number| range == SOURCE || number != 1);
    host.submit(kernel(copy()));
    host.wait_until("the fault", |host| is_faulted(host, 0));
    assert_eq!(reported(&host), [(0x1000, AccessKind::Write)]);
    let done = 0x1000 - 8;
    check(&host, done);
    assert_eq!(counted(&host), (done, done), "what could not be written is not read");
    // What the device wrote is the CPU's from then on, and what it has not read yet may change.
    host.store(place(TARGET, 8), 42);
    host.store(place(SOURCE, 0x1008), 43);
    map(&host, &mut space, TARGET, 1);
    replay(&host);
    host.wait_until("the end", |host| host.fence() == 1);
    assert_eq!(host.load(place(TARGET, 8)), 42, "no word is written twice");
    assert_eq!(host.load(place(TARGET, 0x1000)), 43, "no word is read early");
    host.store(place(TARGET, 8), value(16));
    host.store(place(TARGET, 0x1000), value(0x1008));
    host.store(place(SOURCE, 0x1008), value(0x1008));
    check(&host, LENGTH - 24);
    assert_eq!(counted(&host), (LENGTH - 24, LENGTH - 24));
}

#[test]
fn accesses_in_flight_are_of_the_range_that_faulted() {
    let (mut host, mut space) = with_content(replayable(), |_, _| false);
    host.submit(kernel(copy()));
    host.wait_until("the fault", |host| is_faulted(host, 0));
    let at = |offsets: [u64; 4], access| offsets.map(|offset| (offset, access));
    assert_eq!(reported(&host), at([16, 0x1000, 0x2000, 0x3000], AccessKind::Read));
    (0..PAGES).for_each(|number| map(&host, &mut space, SOURCE, number));
    replay(&host);
    host.wait_until("the faults of the target", |host| host.counter(Counter::Faults) == 8);
    host.wait_until("the fault", |host| is_faulted(host, 0));
    assert_eq!(reported(&host), at([8, 0x1000, 0x2000, 0x3000], AccessKind::Write));
    // A page of the source goes before the target is there.
    space.unmap(&host, SOURCE, PageSize::Small);
    host.invalidate(Invalidation::AddressSpace(ASID));
    (0..PAGES).for_each(|number| map(&host, &mut space, TARGET, number));
    replay(&host);
    host.wait_until("the fault of the source", |host| host.counter(Counter::Faults) == 9);
    host.wait_until("the fault", |host| is_faulted(host, 0));
    assert_eq!(reported(&host), [(16, AccessKind::Read)]);
    map(&host, &mut space, SOURCE, 0);
    replay(&host);
    host.wait_until("the end", |host| host.fence() == 1);
    check(&host, LENGTH - 24);
}

#[test]
fn a_target_that_is_read_only_is_not_written() {
    for control in [replayable(), AddressSpaceControl(0)] {
        let (mut host, mut space) = with_content(control, |range, number| range == SOURCE || number != 1);
        let read_only = Page { write: false, atomic: false, ..page(home(TARGET, 1), PageSize::Small) };
        space.map(&host, TARGET + 4096, read_only);
        host.submit(kernel(copy()));
        if control == replayable() {
            host.wait_until("the fault", |host| is_faulted(host, 0));
            let [FaultRecord { address, access, kind, .. }] = records(&host)[..] else { panic!("not one record") };
            assert_eq!((address, access, kind), (TARGET + 4096, AccessKind::Write, FaultKind::WriteProtect));
        } else {
            host.wait_until("the error", |host| host.status(0).error() == Some(ErrorCode::MmuFault));
            assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), TARGET + 4096);
        }
        check(&host, 4096 - 8);
        assert_eq!(host.fence(), 0);
    }
    // A source that is read-only is as good as any.
    let (mut host, mut space) = with_content(replayable(), |range, number| range == TARGET || number != 1);
    space.map(&host, SOURCE + 4096, Page { write: false, atomic: false, ..page(home(SOURCE, 1), PageSize::Small) });
    host.execute(Operation::Kernel(copy()), 1);
    check(&host, LENGTH - 24);
}

#[test]
fn memory_that_is_not_there_ends_the_copy() {
    let beyond = Location::system(RAM);
    for (range, error) in [(SOURCE, ErrorCode::DmaRead), (TARGET, ErrorCode::DmaWrite)] {
        let (mut host, mut space) = with_content(replayable(), |other, number| other != range || number != 2);
        space.map(&host, range + 0x2000, page(beyond, PageSize::Small));
        host.submit(kernel(copy()));
        host.wait_until("the error", |host| host.status(0).error() == Some(error));
        assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), RAM);
        let done = if range == SOURCE { 0x2000 - 16 } else { 0x2000 - 8 };
        check(&host, done);
        assert_eq!(counted(&host), (done, done));
    }
}

#[test]
fn operands_that_are_not_valid_stop_the_channel() {
    for (kernel, refused) in [
        (Kernel::Copy { source: SOURCE, destination: SOURCE, length: 8 }, SOURCE),
        (Kernel::Copy { source: SOURCE, destination: SOURCE + 56, length: 64 }, SOURCE + 56),
        (Kernel::Copy { source: SOURCE + 56, destination: SOURCE, length: 64 }, SOURCE),
        (Kernel::Copy { source: SOURCE + 4, destination: TARGET, length: 64 }, SOURCE + 4),
        (Kernel::Copy { source: SOURCE, destination: TARGET + 1, length: 64 }, TARGET + 1),
        (Kernel::Copy { source: SOURCE, destination: TARGET, length: 12 }, 12),
        (Kernel::Copy { source: SOURCE, destination: TARGET, length: 0 }, 0),
        (Kernel::Copy { source: SOURCE, destination: 1 << 50, length: (1 << 40) + 8 }, (1 << 40) + 8),
        (Kernel::Copy { source: SOURCE, destination: u64::MAX - 7, length: 8 }, u64::MAX - 7),
    ] {
        let (mut host, _space) = with_content(replayable(), |_, _| true);
        host.submit(Command { fence: Some(1), ..command(Operation::Kernel(kernel)) });
        host.wait_until("the error", |host| host.status(0).error() == Some(ErrorCode::BadOperand));
        assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), refused, "{kernel:x?}");
        check(&host, 0);
    }
    // Ranges that touch do not overlap.
    let (mut host, _space) = with_content(replayable(), |_, _| true);
    host.execute(Operation::Kernel(Kernel::Copy { source: SOURCE + 64, destination: SOURCE, length: 64 }), 1);
    assert_eq!(host.load(place(SOURCE, 56)), value(120));
}

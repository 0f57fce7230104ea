// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands that end in an error: what they did before is done, and the counters have it to the byte.

use ersatz_abi::access_counter::AccessCounterControl;
use ersatz_abi::channel::Priority;
use ersatz_abi::command::{Cause, Command, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::kernel::{Kernel, next_random};
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{AddressSpaceControl, PageSize};
use ersatz_abi::regs;

use ersatz_device_model::dma::MapAccess;

use ersatz_device_testing::faults::{ASID, BASE, BUFFER, COMPUTE, COPY, bind};
use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{DATA, Host, LISTS, RAM, command, entry, reg};

/// Where the last 4 KiB of memory begin.
const LAST: u64 = RAM - 4096;

/// The first 64 KiB from [`BASE`] lead to memory that ends 4 KiB before they do: the last page of it is that at `0xe000`.
fn with_an_end(engine: u32) -> (Host, Space) {
    let host = Host::new();
    let mut space = Space::new(&host, ASID, AddressSpaceControl(0), Location::vram(60 << 20));
    for number in 0..16 {
        let location = Location::system(RAM - 0xf000 + number * 4096);
        space.map(&host, BASE + number * 4096, page(location, PageSize::Small));
    }
    bind(&host, 0, engine, Priority::Low);
    (host, space)
}

fn fail(host: &mut Host, kernel: Kernel, error: ErrorCode, address: u64) {
    host.submit(command(Operation::Kernel(kernel)));
    host.wait_until("the error", |host| host.status(0).error() == Some(error));
    assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), address);
}

#[test]
fn words_that_were_added_to_are_counted_though_the_next_one_is_not_there() {
    // One page of 64 KiB, so that a single stride comes to the end of memory.
    let host = &mut Host::new();
    let start = 0x8_0000_0000;
    host.map(start, 4096, MapAccess::ReadWrite);
    let mut space = Space::new(host, ASID, AddressSpaceControl(0), Location::vram(60 << 20));
    space.map(host, BASE, page(Location::system(start), PageSize::Big));
    bind(host, 0, COMPUTE, Priority::Low);
    let control = AccessCounterControl(0).with_enable(true).with_region_order(16).with_threshold(2);
    host.write32(regs::ACCESS_COUNTER_CONTROL.offset, control.0);
    let ring = |register: regs::Register| regs::ACCESS_RING_BASE + register.offset;
    host.write64(ring(regs::NOTIFICATION_BASE), BUFFER);
    host.write32(ring(regs::NOTIFICATION_ORDER), 4);
    host.write32(ring(regs::NOTIFICATION_CONTROL), 1);
    let add = Kernel::AtomicAdd { target: BASE + 4096 - 160, length: 1024, addend: 7 };
    fail(host, add, ErrorCode::DmaRead, start + 4096);
    assert_eq!(host.counter(Counter::KernelAtomics), 20);
    assert_eq!(host.counter(Counter::DmaErrors), 1, "refused once");
    assert_eq!(host.counter(Counter::AccessNotifications), 1, "160 bytes are two begun sectors");
}

#[test]
fn words_that_were_read_are_counted_though_the_chain_leads_nowhere() {
    for (last, error, address) in [
        (BASE + 0xf008, ErrorCode::DmaRead, RAM + 8),
        (0x1233, ErrorCode::BadOperand, 0x1233),
        (BASE + 0x1_0000, ErrorCode::MmuFault, BASE + 0x1_0000),
    ] {
        let (mut host, _space) = with_an_end(COMPUTE);
        for step in 0..5 {
            let next = if step == 4 { last } else { BASE + 0xe000 + (step + 1) * 8 };
            host.store(Location::system(LAST + step * 8), next);
        }
        let chase = Kernel::Chase { start: BASE + 0xe000, steps: 9, result: BASE };
        fail(&mut host, chase, error, address);
        assert_eq!(host.counter(Counter::KernelBytesRead), 5 * 8, "{error:?}");
        assert_eq!(host.counter(Counter::KernelBytesWritten), 0, "no result");
    }
}

#[test]
fn updates_are_counted_up_to_the_one_that_failed() {
    let (mut host, _space) = with_an_end(COMPUTE);
    let seed = 0x1234_5678_9abc;
    let mut random = seed;
    let mut done = 0;
    let refused = loop {
        random = next_random(random);
        let offset = random % (0x1_0000 / 8) * 8;
        if offset >= 0xf000 {
            break RAM + offset - 0xf000;
        }
        done += 1;
    };
    assert!((2..100).contains(&done), "a seed that leads into memory first, and soon beyond: {done}");
    let kernel = Kernel::RandomUpdate { table: BASE, length: 0x1_0000, seed, updates: 1 << 20 };
    fail(&mut host, kernel, ErrorCode::DmaRead, refused);
    assert_eq!(host.counter(Counter::KernelAtomics), done);
}

#[test]
fn of_a_copy_the_pieces_are_counted_by_where_they_went_and_whole_entries_by_cause() {
    let (mut host, _space) = with_an_end(COPY);
    let there = Location::virtual_address(BASE + 0xc000);
    let list = host.list(
        LISTS,
        &[
            entry(Location::vram(0), Location::vram(0x1_0000), 4096),
            entry(Location::system(DATA), Location::vram(0), 8192),
            // Three pages of it are there.
            entry(there, Location::vram(0), 0x4000),
        ],
    );
    host.submit(Command { cause: Cause::MigrateToDevice, ..command(Operation::Copy(list)) });
    host.wait_until("the error", |host| host.status(0).error() == Some(ErrorCode::DmaRead));
    assert_eq!(host.read64(reg(0, regs::ERROR_POSITION)), 2 << 32);
    assert_eq!(host.counter(Counter::BytesWithinVram), 4096);
    assert_eq!(host.counter(Counter::BytesToVram), 8192 + 0x3000);
    assert_eq!(host.counter(Counter::CopyEntries), 2);
    assert_eq!(host.counter(Counter::BytesMigratedToDevice), 4096 + 8192, "the last entry was not done");
    assert_eq!(host.counter(Counter::Commands), 0);
}

#[test]
fn fills_and_digests_are_counted_by_whole_entries() {
    let (mut host, _space) = with_an_end(COPY);
    let beyond = Location::virtual_address(BASE + 0xe000);
    let fill = host.list(LISTS, &[entry(beyond, Location::vram(0), 24), entry(beyond, beyond, 8192)]);
    host.submit(command(Operation::Fill(fill, 5)));
    host.wait_until("the error", |host| host.status(0).error() == Some(ErrorCode::DmaWrite));
    assert_eq!(host.counter(Counter::BytesFilled), 24);
    assert_eq!(host.load(Location::system(RAM - 8)), 5, "in part it was");
    let (mut host, _space) = with_an_end(COPY);
    let digest = host.list(LISTS, &[entry(beyond, Location::vram(0), 4096), entry(beyond, Location::vram(8), 8192)]);
    host.submit(command(Operation::Digest(digest)));
    host.wait_until("the error", |host| host.status(0).error() == Some(ErrorCode::DmaRead));
    assert_eq!(host.counter(Counter::BytesDigested), 4096);
    assert_eq!(host.load(Location::vram(8)), 0, "no digest of half an entry");
}

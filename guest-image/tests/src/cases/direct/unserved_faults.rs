// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Device page faults that end otherwise than by being served: cancelled, reset, an error, or nobody waits for them.

use std::sync::atomic::Ordering;

use ersatz_abi::channel::ChannelState;
use ersatz_abi::command::{Location, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::{AccessKind, FaultKind};
use ersatz_abi::kernel::Kernel;
use ersatz_abi::mmu::{AddressSpaceControl, MAX_PEERS, Page, PageSize, PageTableEntry, ROOT_LEVEL_48};
use ersatz_abi::notification::NotificationStatus;

use super::faults::{ASID, BASE, FaultBuffer, PAGE, compute};
use crate::direct::address_space::{AddressSpace, REPLAYABLE, Rights};
use crate::direct::channel::{Channel, Failure, Setup};
use crate::direct::gpu::{Gpu, NOWHERE};
use crate::suite::test_list;

test_list! { "direct_unserved_faults":
    a_cancelled_channel_stops_alone.direct();
    a_reset_ends_the_wait_for_an_answer.direct();
    without_replay_a_fault_is_an_error.direct();
    a_prefetch_waits_for_nobody.direct();
    tables_that_make_no_sense.direct();
}

fn a_cancelled_channel_stops_alone() {
    let gpu = Gpu::claim();
    let space = AddressSpace::new(&gpu, ASID, REPLAYABLE, gpu.system());
    let buffer = FaultBuffer::enable(&gpu);
    let (wrong, right) = (compute(&gpu, 1), compute(&gpu, 2));
    let memory = gpu.system().take(PAGE as usize);
    let set = |destination| Operation::Kernel(Kernel::Set { destination, length: 64, pattern: 8 });
    wrong.submit(set(BASE + PAGE));
    let fence = right.submit(set(BASE));
    [&wrong, &right].into_iter().for_each(Channel::wait_for_fault);
    assert_eq!(gpu.faulted_channels(), 0b110);
    gpu.expect_count(Counter::FaultsCancelled, 1, || gpu.cancel(wrong.number()));
    let failure = Failure { error: ErrorCode::FaultCancelled, position: 0, entry: 0, address: BASE + PAGE };
    assert_eq!(wrong.wait_for_failure(), failure);
    // Cancelling who does not wait, or answers for who has stopped, do nothing.
    gpu.cancel(wrong.number());
    assert!(gpu.status().channel_error() && !gpu.status().bad_access());
    assert!(buffer.take().len() >= 2);
    space.map(BASE, &memory, PageSize::Small, Rights::Write);
    gpu.replay();
    right.wait(fence);
    wrong.reset();
    wrong.run(set(BASE + 64));
    memory.check(|index| if index < 16 { 8 } else { 0 });
}

fn a_reset_ends_the_wait_for_an_answer() {
    let gpu = Gpu::claim();
    let space = AddressSpace::new(&gpu, ASID, REPLAYABLE, gpu.system());
    let buffer = FaultBuffer::enable(&gpu);
    let channel = compute(&gpu, gpu.configuration().channels() - 1);
    let memory = gpu.vram().take(PAGE as usize);
    let set = || channel.submit(Operation::Kernel(Kernel::Set { destination: BASE, length: PAGE, pattern: 3 }));
    set();
    channel.wait_for_fault();
    channel.reset();
    assert_eq!((gpu.faulted_channels(), gpu.status().channel_error()), (0, false));
    // The command is gone: an answer that comes now is for nobody.
    buffer.wait();
    space.map(BASE, &memory, PageSize::Small, Rights::Write);
    gpu.replay();
    channel.run(Operation::Nop);
    memory.check(|_| 0);
    channel.wait(set());
    memory.check(|_| 3);
    // Disabling does not end the wait, but takes effect behind it.
    space.unmap(BASE, PageSize::Small);
    space.invalidate(BASE, PAGE);
    let fence = set();
    channel.wait_for_fault();
    channel.ask_to_disable();
    assert_eq!(channel.state(), ChannelState::Faulted);
    memory.fill(|_| 0);
    space.map(BASE, &memory, PageSize::Small, Rights::Write);
    gpu.replay();
    channel.disable();
    assert_eq!(channel.fence(), fence);
    memory.check(|_| 3);
}

fn without_replay_a_fault_is_an_error() {
    let gpu = Gpu::claim();
    let _space = AddressSpace::new(&gpu, ASID, AddressSpaceControl(0), gpu.system());
    let buffer = FaultBuffer::enable(&gpu);
    let channel = compute(&gpu, 0);
    let read = |source| Operation::Kernel(Kernel::Read { source, length: 8 });
    for (place, error) in [(BASE, ErrorCode::MmuFault), (1 << 48, ErrorCode::MmuFault)] {
        channel.submit(read(place));
        assert_eq!(channel.wait_for_failure(), Failure { error, position: 0, entry: 0, address: place });
        channel.reset();
    }
    let other = Channel::open(&gpu, Setup { asid: ASID + 1, ..Setup::new(1, channel.engine()) });
    other.submit(read(BASE));
    let failure = Failure { error: ErrorCode::AddressSpace, position: 0, entry: 0, address: BASE };
    assert_eq!(other.wait_for_failure(), failure);
    assert_eq!(buffer.waiting(), 0);
}

fn a_prefetch_waits_for_nobody() {
    const PAGES: u64 = FaultBuffer::LENGTH as u64 + 4;
    let gpu = Gpu::claim();
    let space = AddressSpace::new(&gpu, ASID, REPLAYABLE, gpu.system());
    let buffer = FaultBuffer::enable(&gpu);
    let channel = compute(&gpu, 0);
    space.map(BASE + PAGE, &gpu.system().take(PAGE as usize), PageSize::Small, Rights::Read);
    let counted = gpu.count([Counter::Faults, Counter::PrefetchFaultsDropped], || {
        channel.run(Operation::Kernel(Kernel::Prefetch { address: BASE, length: PAGES * PAGE }));
    });
    let records = buffer.take();
    assert!(records.iter().all(|record| record.access == AccessKind::Prefetch && record.kind == FaultKind::NotPresent));
    // All but the one that is there, in order, until the buffer is more than half full.
    let expected = (0..PAGES).filter(|&page| page != 1).map(|page| BASE + page * PAGE);
    let taken = FaultBuffer::LENGTH as usize / 2 + 1;
    assert_eq!(Vec::from_iter(records.iter().map(|record| record.address)), Vec::from_iter(expected.take(taken)));
    assert_eq!(counted, [taken as u64, PAGES - 1 - taken as u64]);
    assert_eq!((gpu.faulted_channels(), buffer.status()), (0, NotificationStatus(0)));
    // Beyond the address space, and the level is that of the root.
    channel.run(Operation::Kernel(Kernel::Prefetch { address: 1 << 48, length: 8 }));
    let [record] = buffer.take()[..] else { panic!("there is to be one record") };
    assert_eq!((record.kind, record.level), (FaultKind::BadAddress, ROOT_LEVEL_48));
}

fn tables_that_make_no_sense() {
    const RESERVED: u64 = 1 << 7;
    let gpu = Gpu::claim();
    let space = AddressSpace::new(&gpu, ASID, REPLAYABLE, gpu.vram());
    let buffer = FaultBuffer::enable(&gpu);
    let channel = compute(&gpu, 0);
    let page = |location, size| {
        let page = Page { location, size, write: true, atomic: true };
        PageTableEntry::page(page).0
    };
    let nobody = (0..MAX_PEERS).find(|peer| gpu.peers().linked() >> peer & 1 == 0).expect("a peer that is not there");
    let good = page(Location::vram(0), PageSize::Small);
    let bad = [
        (good | RESERVED, PageSize::Small, FaultKind::BadTable),
        (page(Location::vram(PAGE), PageSize::Big), PageSize::Small, FaultKind::BadTable),
        (page(Location::peer(nobody, 0), PageSize::Small), PageSize::Small, FaultKind::BadAperture),
        (PageTableEntry::table(Location::vram(0)).0, PageSize::Small, FaultKind::BadTable),
        (page(Location::vram(PAGE), PageSize::Huge), PageSize::Huge, FaultKind::BadTable),
        (PageTableEntry::table(Location::system(NOWHERE)).0, PageSize::Huge, FaultKind::BadTable),
    ];
    for (index, (entry, size, kind)) in (0..).zip(bad) {
        let address = BASE + index * PageSize::Huge.bytes();
        space.entry(address, size).store(entry, Ordering::Release);
        channel.run(Operation::Kernel(Kernel::Prefetch { address, length: 8 }));
        let [record] = buffer.wait()[..] else { panic!("there is to be one record of {entry:#x}") };
        assert_eq!((record.address, record.kind), (address, kind), "entry {entry:#x}");
    }
    // Where a page itself is, is found out by the access.
    space.entry(BASE, PageSize::Small).store(page(Location::system(NOWHERE), PageSize::Small), Ordering::Release);
    channel.submit(Operation::Kernel(Kernel::Read { source: BASE, length: 8 }));
    let failure = channel.wait_for_failure();
    assert_eq!((failure.error, failure.address), (ErrorCode::DmaRead, NOWHERE));
    // Nothing of that is left in the function's error bits.
    gpu.reset_function();
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Device page faults that a driver serves: the fault buffer, and replay.

use std::collections::BTreeSet;

use ersatz_abi::command::{ListEntry, Location, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::fault::{AccessKind, FaultKind, FaultRecord};
use ersatz_abi::kernel::Kernel;
use ersatz_abi::mmu::PageSize;
use ersatz_abi::notification::NotificationStatus;

use crate::direct::address_space::{AddressSpace, REPLAYABLE, Rights};
use crate::direct::buffer::Buffer;
use crate::direct::channel::{Channel, Setup};
use crate::direct::gpu::Gpu;
use crate::direct::notification_ring::NotificationRing;
use crate::direct::patience::wait_until;
use crate::pattern::Pattern;
use crate::suite::test_list;

test_list! { "direct_faults":
    pages_are_mapped_as_they_are_missed.direct();
    a_copy_goes_on_where_it_faulted.direct();
    rights_are_widened_by_and_by.direct();
    what_overflows_is_heard_of_again.direct();
}

pub(super) type FaultBuffer<'a> = NotificationRing<'a, FaultRecord>;

pub(super) const ASID: u8 = 17;
pub(super) const BASE: u64 = 0x20_0000_0000;
pub(super) const PAGE: u64 = PageSize::Small.bytes();

pub(super) fn compute(gpu: &Gpu, number: u32) -> Channel<'_> {
    Channel::open(gpu, Setup { asid: ASID, ..Setup::new(number, gpu.compute_engines().start) })
}

/// Serves faults until there is nothing left to do, as the manual has it: takes all records, has them answered, gives
/// their room back, replays.
fn serve(gpu: &Gpu, buffer: &FaultBuffer<'_>, is_done: impl Fn() -> bool, mut answer: impl FnMut(&FaultRecord)) {
    loop {
        wait_until("fault, or end of the work", || buffer.waiting() != 0 || is_done());
        if buffer.waiting() == 0 {
            return;
        }
        buffer.clear_status(NotificationStatus(0).with_overflow(true));
        while buffer.waiting() != 0 {
            buffer.take().iter().for_each(&mut answer);
        }
        gpu.replay();
    }
}

/// The page of a buffer that stands for the page at an address.
fn page_of<'a>(buffer: &Buffer<'a>, address: u64) -> (u64, Buffer<'a>) {
    let page = address / PAGE * PAGE;
    (page, buffer.part(page - BASE..page - BASE + PAGE))
}

fn pages_are_mapped_as_they_are_missed() {
    const LENGTH: usize = 256 << 10;
    let gpu = Gpu::claim();
    let space = AddressSpace::new(&gpu, ASID, REPLAYABLE, gpu.system());
    let buffer = FaultBuffer::enable(&gpu);
    let channel = compute(&gpu, 4);
    let memory = gpu.vram().take(LENGTH);
    let (mut missed, mut records, mut last) = (BTreeSet::new(), 0, 0);
    let counters = [Counter::Faults, Counter::FaultsDropped];
    let counted = gpu.count(counters, || {
        let kernel = Kernel::Write { destination: BASE, length: LENGTH as u64, seed: 11 };
        let fence = channel.submit(Operation::Kernel(kernel));
        channel.wait_for_fault();
        assert!(channel.fence() < fence);
        serve(
            &gpu,
            &buffer,
            || channel.fence() >= fence,
            |record| {
                let expected = FaultRecord {
                    asid: ASID,
                    channel: 4,
                    engine: u8::try_from(channel.engine()).expect("the number of an engine"),
                    access: AccessKind::Write,
                    kind: FaultKind::NotPresent,
                    ..*record
                };
                assert_eq!(*record, expected);
                assert!(record.number > last, "fault {} behind {last}", record.number);
                last = record.number;
                records += 1;
                let (page, part) = page_of(&memory, record.address);
                if missed.insert(page) {
                    space.map(page, &part, PageSize::Small, Rights::Write);
                }
            },
        );
    });
    assert_eq!(counted, [records, 0]);
    assert_eq!(missed.len() as u64, LENGTH as u64 / PAGE, "each page was missed once");
    assert_eq!(gpu.faulted_channels(), 0);
    memory.check(|index| 11 + index);
}

fn a_copy_goes_on_where_it_faulted() {
    let gpu = Gpu::claim();
    let pattern = Pattern::new(1);
    let space = AddressSpace::new(&gpu, ASID, REPLAYABLE, gpu.vram());
    let buffer = FaultBuffer::enable(&gpu);
    let channel = Channel::open(&gpu, Setup { asid: ASID, ..Setup::new(0, 1) });
    let (source, memory) = (gpu.system().take(64 << 10), gpu.vram().take(64 << 10));
    source.fill(|index| pattern.word(index));
    // A first entry that nothing is missing for, and one that misses every other page.
    for offset in (0..64 << 10).step_by(2 * PAGE as usize) {
        let (page, part) = page_of(&memory, BASE + offset);
        space.map(page, &part, PageSize::Small, Rights::Write);
    }
    let entry = |offset: u64, length: u32| ListEntry {
        source: Location::system(source.address() + offset),
        destination: Location::virtual_address(BASE + offset),
        length,
        tag: offset,
    };
    let fence = channel.submit_list(&[entry(0, 4096), entry(4096, 60 << 10)], Operation::Copy);
    let mut missed = Vec::new();
    serve(
        &gpu,
        &buffer,
        || channel.fence() >= fence,
        |record| {
            let (page, part) = page_of(&memory, record.address);
            missed.push(page - BASE);
            space.map(page, &part, PageSize::Small, Rights::Write);
        },
    );
    // A copy waits at its first fault, so each is told once, in order.
    assert_eq!(missed, Vec::from_iter((PAGE..64 << 10).step_by(2 * PAGE as usize)));
    memory.check_same(&source);
}

fn rights_are_widened_by_and_by() {
    let gpu = Gpu::claim();
    let space = AddressSpace::new(&gpu, ASID, REPLAYABLE, gpu.system());
    let buffer = FaultBuffer::enable(&gpu);
    let channel = compute(&gpu, 0);
    let memory = gpu.system().take(PAGE as usize);
    let map = |rights| space.map(BASE, &memory, PageSize::Small, rights);
    let expect = |kind| {
        channel.wait_for_fault();
        let records = buffer.wait();
        assert!(
            records.iter().all(|record| (record.access, record.kind, record.level) == (AccessKind::Atomic, kind, 0))
        );
    };
    memory.fill(|index| index);
    map(Rights::Read);
    channel.run(Operation::Kernel(Kernel::Read { source: BASE, length: PAGE }));
    let fence = channel.submit(Operation::Kernel(Kernel::AtomicAdd { target: BASE, length: 8, addend: 5 }));
    expect(FaultKind::WriteProtect);
    map(Rights::Write);
    // The old rights are cached: without an invalidation nothing has changed.
    gpu.replay();
    expect(FaultKind::WriteProtect);
    space.invalidate(BASE, PAGE);
    gpu.replay();
    expect(FaultKind::AtomicDenied);
    map(Rights::Atomic);
    space.invalidate(BASE, PAGE);
    gpu.replay();
    channel.wait(fence);
    memory.check(|index| if index == 0 { 5 } else { index });
    assert_eq!(buffer.waiting(), 0);
}

fn what_overflows_is_heard_of_again() {
    const LENGTH: u64 = 8 * PAGE;
    let gpu = Gpu::claim();
    let space = AddressSpace::new(&gpu, ASID, REPLAYABLE, gpu.system());
    let buffer = FaultBuffer::enable(&gpu);
    // So many that each finding room for one fault would fill the buffer: a kernel tells of several at once.
    let count = gpu.configuration().channels();
    assert!(count >= FaultBuffer::LENGTH, "{count} channels");
    let channels: Vec<_> = (0..count).map(|number| compute(&gpu, number)).collect();
    let memory = gpu.vram().take((u64::from(count) * LENGTH) as usize);
    let before = [Counter::Faults, Counter::FaultsDropped].map(|counter| gpu.counter(counter));
    for (channel, index) in channels.iter().zip(0..) {
        let kernel = Kernel::Write { destination: BASE + index * LENGTH, length: LENGTH, seed: index << 32 };
        assert_eq!(channel.submit(Operation::Kernel(kernel)), 1);
    }
    channels.iter().for_each(Channel::wait_for_fault);
    wait_until("full fault buffer", || buffer.waiting() == FaultBuffer::LENGTH);
    assert_eq!(buffer.status(), NotificationStatus(0).with_overflow(true));
    assert_eq!(gpu.counter(Counter::Faults) - before[0], u64::from(FaultBuffer::LENGTH));
    assert_ne!(gpu.counter(Counter::FaultsDropped), before[1]);
    serve(
        &gpu,
        &buffer,
        || channels.iter().all(|channel| channel.fence() == 1),
        |record| {
            let (page, part) = page_of(&memory, record.address);
            if !space.look(page).valid() {
                space.map(page, &part, PageSize::Small, Rights::Write);
            }
        },
    );
    memory.check(|index| ((index / (LENGTH / 8)) << 32) + index % (LENGTH / 8));
}

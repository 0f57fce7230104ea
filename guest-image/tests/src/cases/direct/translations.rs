// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What engines cache of page tables, what an acknowledged invalidation guarantees, and the bits that the device sets in entries.

use std::sync::atomic::Ordering;

use ersatz_abi::command::Operation;
use ersatz_abi::counter::Counter;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::mmu::{AddressSpaceControl, Invalidation, PageSize, PageTableEntry};

use crate::direct::address_space::{AddressSpace, Rights};
use crate::direct::buffer::Buffer;
use crate::direct::channel::{Channel, Setup};
use crate::direct::gpu::Gpu;
use crate::suite::{Need, test_list};

test_list! { "direct_translations":
    a_stale_one_is_used_until_its_invalidation.direct();
    every_scope_of_invalidation.direct();
    address_spaces_are_apart.direct();
    accessed_and_dirty_bits.direct();
    a_table_becomes_a_page_and_is_free.direct().needs(&[Need::VramPages(2048)]);
    five_levels.direct();
}

const BASE: u64 = 0x40_0020_0000;
const PAGE: u64 = PageSize::Small.bytes();

/// Two pages of different content behind one virtual address, by turns.
struct Switch<'a> {
    space: AddressSpace<'a>,
    channel: Channel<'a>,
    pages: [Buffer<'a>; 2],
    result: Buffer<'a>,
}

/// Where the result is mapped.
const RESULT: u64 = BASE + (1 << 30);

impl<'a> Switch<'a> {
    /// An address space, a channel of a compute engine in it, and the first page mapped.
    fn new(gpu: &'a Gpu, asid: u8, number: u32) -> Self {
        let space = AddressSpace::new(gpu, asid, AddressSpaceControl(0), gpu.vram());
        let channel = Channel::open(gpu, Setup { asid, ..Setup::new(number, gpu.compute_engines().start) });
        let switch = Self {
            pages: [gpu.system().take(PAGE as usize), gpu.vram().take(PAGE as usize)],
            result: gpu.system().take(PAGE as usize),
            space,
            channel,
        };
        switch.pages.iter().zip(1..).for_each(|(page, value)| page.write(0, value));
        switch.space.map(RESULT, &switch.result, PageSize::Small, Rights::Write);
        switch.turn_to(0);
        switch
    }

    fn turn_to(&self, page: usize) {
        self.space.map(BASE, &self.pages[page], PageSize::Small, Rights::Write);
    }

    /// Which of the pages the engine reads.
    fn read(&self) -> usize {
        self.channel.run(Operation::Kernel(Kernel::Sum { source: BASE, length: 8, result: RESULT }));
        self.result.read(0) as usize - 1
    }
}

fn a_stale_one_is_used_until_its_invalidation() {
    let gpu = Gpu::claim();
    let switch = Switch::new(&gpu, 5, 0);
    let copying = Channel::open(&gpu, Setup::new(1, 0));
    let range = switch.space.range(BASE + 8, 1);
    let counted = gpu.count([Counter::Invalidations], || {
        for (turn, by_command) in [(1, false), (0, true), (1, true), (0, false)] {
            let stale = 1 - turn;
            assert_eq!(switch.read(), stale);
            switch.turn_to(turn);
            assert_eq!(switch.read(), stale, "a translation that is cached");
            if by_command {
                // By whichever engine, it means the TLBs of all.
                copying.run(Operation::Invalidate(range));
            } else {
                gpu.invalidate(range);
            }
            assert_eq!(switch.read(), turn, "by command: {by_command}");
        }
    });
    assert_eq!(counted, [4]);
}

fn every_scope_of_invalidation() {
    let gpu = Gpu::claim();
    let switch = Switch::new(&gpu, 255, 0);
    assert_eq!(switch.read(), 0);
    switch.turn_to(1);
    let elsewhere =
        [switch.space.range(BASE + PAGE, PAGE), switch.space.range(BASE - 1, 1), Invalidation::AddressSpace(254)];
    for invalidation in elsewhere {
        gpu.invalidate(invalidation);
        assert_eq!(switch.read(), 0, "{invalidation:x?}");
    }
    for (invalidation, turn) in [(Invalidation::AddressSpace(255), 1), (Invalidation::All, 0)] {
        switch.turn_to(turn);
        gpu.invalidate(invalidation);
        assert_eq!(switch.read(), turn, "{invalidation:x?}");
    }
    let counted = gpu.count([Counter::TlbMisses, Counter::TlbHits], || assert_eq!(switch.read(), 0));
    assert_eq!(counted[0], 0);
    assert_ne!(counted[1], 0);
}

fn address_spaces_are_apart() {
    let gpu = Gpu::claim();
    let (one, other) = (Switch::new(&gpu, 1, 0), Switch::new(&gpu, 2, 1));
    other.turn_to(1);
    assert_eq!((one.read(), other.read()), (0, 1));
    one.turn_to(1);
    other.turn_to(0);
    other.space.invalidate(BASE, PAGE);
    assert_eq!((one.read(), other.read()), (0, 0), "the range is one of the other address space");
    one.space.invalidate(BASE, PAGE);
    assert_eq!((one.read(), other.read()), (1, 0));
}

fn accessed_and_dirty_bits() {
    let gpu = Gpu::claim();
    let control = AddressSpaceControl(0).with_track(true);
    let space = AddressSpace::new(&gpu, 3, control, gpu.system());
    let channel = Channel::open(&gpu, Setup { asid: 3, ..Setup::new(0, gpu.compute_engines().start) });
    let memory = gpu.system().take(PAGE as usize);
    let read = || channel.run(Operation::Kernel(Kernel::Read { source: BASE, length: 8 }));
    let write = || channel.run(Operation::Kernel(Kernel::Set { destination: BASE, length: 8, pattern: 1 }));
    let bits = || (space.look(BASE).accessed(), space.look(BASE).dirty());
    let clear_dirty = || {
        let old = space.look(BASE);
        let slot = space.entry(BASE, PageSize::Small);
        let exchanged = slot.compare_exchange(old.0, old.with_dirty(false).0, Ordering::AcqRel, Ordering::Relaxed);
        assert_eq!(exchanged, Ok(old.0));
    };
    space.map(BASE, &memory, PageSize::Small, Rights::Write);
    assert_eq!(bits(), (false, false));
    read();
    assert_eq!(bits(), (true, false));
    write();
    assert_eq!(bits(), (true, true));
    clear_dirty();
    write();
    assert_eq!(bits(), (true, false), "a write through a translation that was written through before");
    space.invalidate(BASE, PAGE);
    write();
    assert_eq!(bits(), (true, true));
    let last = space.unmap(BASE, PageSize::Small);
    space.invalidate(BASE, PAGE);
    assert!(last.valid() && last.dirty());
    // Of sixteen entries one is marked.
    let big = gpu.vram().take(PageSize::Big.bytes() as usize);
    space.map(BASE, &big, PageSize::Big, Rights::Write);
    write();
    let entries = (0..16).map(|index| space.look(BASE + index * PAGE));
    assert_eq!(entries.filter(|entry| entry.dirty()).count(), 1);
    assert!(space.unmap(BASE, PageSize::Big).dirty());
}

fn a_table_becomes_a_page_and_is_free() {
    const LENGTH: u64 = PageSize::Huge.bytes();
    let gpu = Gpu::claim();
    let space = AddressSpace::new(&gpu, 8, AddressSpaceControl(0), gpu.system());
    let channel = Channel::open(&gpu, Setup { asid: 8, ..Setup::new(0, gpu.compute_engines().start) });
    let memory = gpu.vram().take(LENGTH as usize);
    let add = || channel.run(Operation::Kernel(Kernel::AtomicAdd { target: BASE, length: LENGTH, addend: 1 }));
    space.map(BASE, &memory, PageSize::Small, Rights::Atomic);
    add();
    let old: Vec<_> =
        (0..LENGTH).step_by(PAGE as usize).map(|offset| space.entry(BASE + offset, PageSize::Small)).collect();
    space.map(BASE, &memory, PageSize::Huge, Rights::Atomic);
    space.invalidate(BASE, LENGTH);
    // The table's memory is now for something else, and whatever it holds maps nothing.
    old.iter().zip(0..).for_each(|(entry, index)| entry.store(u64::MAX - index, Ordering::Relaxed));
    let counted = gpu.count([Counter::TlbMisses], add);
    assert_eq!(counted, [1], "one translation for all of it");
    memory.check(|_| 2);
    assert!(old.iter().zip(0..).all(|(entry, index)| entry.load(Ordering::Relaxed) == u64::MAX - index));
}

fn five_levels() {
    const HIGH: u64 = (1 << 57) - PAGE;
    let gpu = Gpu::claim();
    let control = AddressSpaceControl(0).with_five_levels(true);
    let space = AddressSpace::new(&gpu, 77, control, gpu.vram());
    let channel = Channel::open(&gpu, Setup { asid: 77, ..Setup::new(0, gpu.compute_engines().start) });
    let memory = gpu.system().take(PAGE as usize);
    space.map(HIGH, &memory, PageSize::Small, Rights::Write);
    channel.run(Operation::Kernel(Kernel::Write { destination: HIGH, length: PAGE, seed: 1 }));
    memory.check(|index| 1 + index);
    assert!(PageTableEntry(space.entry(HIGH, PageSize::Small).load(Ordering::Relaxed)).leaf());
}

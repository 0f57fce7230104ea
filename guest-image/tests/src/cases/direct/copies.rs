// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Copies, fills and digests, by bus address, VRAM offset and virtual address.

use ersatz_abi::command::{Cause, ListEntry, Location, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::mmu::{AddressSpaceControl, PageSize};
use ersatz_abi::regs;

use super::patchwork::Patchwork;
use crate::bus::Function;
use crate::device::Device;
use crate::direct::address_space::{AddressSpace, Rights};
use crate::direct::buffer::Buffer;
use crate::direct::channel::{Channel, Setup, copy_entry};
use crate::direct::gpu::Gpu;
use crate::pattern::Pattern;
use crate::suite::{Need, test_list};
use crate::vram_bar::VramBar;

/// Room for a few pieces of 2 MiB.
const NEEDS: &[Need] = &[Need::VramPages(2048)];

test_list! { "direct_copies":
    lengths_of_all_kinds_there_and_back.direct().needs(NEEDS);
    a_list_of_scattered_pages.direct().needs(NEEDS);
    by_virtual_address.direct().needs(NEEDS);
    fills_and_digests.direct();
    where_the_bar_does_not_show_it.direct().patience(2).needs(&[Need::ResizableBar]);
}

/// Those that pages have, and the smallest there is.
const LENGTHS: [usize; 4] = [8, 4 << 10, 64 << 10, 2 << 20];

fn lengths_of_all_kinds_there_and_back() {
    let gpu = Gpu::claim();
    let pattern = Pattern::new(1);
    let total = LENGTHS.iter().sum::<usize>() as u64;
    let channel = Channel::open(&gpu, Setup::new(0, 0));
    let (from, back) =
        (LENGTHS.map(|length| gpu.system().take(length)), LENGTHS.map(|length| gpu.system().take(length)));
    let there = LENGTHS.map(|length| gpu.vram().take(length));
    from.iter().for_each(|buffer| buffer.fill(|index| pattern.word(index)));
    let entries = |sources: &[Buffer<'_>], destinations: &[Buffer<'_>]| -> Vec<ListEntry> {
        sources.iter().zip(destinations).map(|(&source, &destination)| copy_entry(source, destination)).collect()
    };
    let counters = [Counter::BytesToVram, Counter::BytesMigratedToDevice, Counter::CopyEntries, Counter::Commands];
    let counted = gpu.count(counters, || {
        let list = channel.list(&entries(&from, &there));
        channel.wait(channel.submit_as(Operation::Copy(list), Cause::MigrateToDevice, false));
    });
    assert_eq!(counted, [total, total, 4, 1]);
    // The CPU sees it through BAR2.
    there.iter().for_each(|buffer| buffer.check(|index| pattern.word(index)));
    let counters = [Counter::BytesToSystem, Counter::BytesWithinVram, Counter::BytesWithinSystem];
    let counted = gpu.count(counters, || channel.copy(&entries(&there, &back)));
    assert_eq!(counted, [total, 0, 0]);
    back.iter().for_each(|buffer| buffer.check(|index| pattern.word(index)));
    // Inside either memory.
    let counted = gpu.count(counters, || {
        channel.copy(&[copy_entry(there[1], gpu.vram().take(LENGTHS[1])), copy_entry(from[2], back[2])]);
    });
    assert_eq!(counted, [0, LENGTHS[1] as u64, LENGTHS[2] as u64]);
}

fn a_list_of_scattered_pages() {
    const PAGES: u64 = 512;
    let gpu = Gpu::claim();
    let pattern = Pattern::new(1);
    let channel = Channel::open(&gpu, Setup::new(3, gpu.copy_engines().end - 1));
    let (system, vram) = (gpu.system().take(2 << 20), gpu.vram().take(2 << 20));
    let place = |index: u64| (index * 4096)..((index + 1) * 4096);
    // An odd number is prime to the number of pages: every page is met once.
    let scattered = |index: u64| index * 177 % PAGES;
    system.fill(|index| pattern.word(index));
    let there: Vec<_> =
        (0..PAGES).map(|index| copy_entry(system.part(place(index)), vram.part(place(scattered(index))))).collect();
    channel.copy(&there);
    for index in 0..PAGES {
        vram.part(place(scattered(index))).check(|word| pattern.word(index * 512 + word));
    }
    system.fill(|_| 0);
    let back: Vec<_> = there
        .iter()
        .map(|entry| ListEntry { source: entry.destination, destination: entry.source, ..*entry })
        .collect();
    channel.copy(&back);
    system.check(|index| pattern.word(index));
}

fn by_virtual_address() {
    const HUGE: u64 = 0x7000_0020_0000;
    let gpu = Gpu::claim();
    let pattern = Pattern::new(1);
    // Tables in VRAM here; elsewhere they are in system memory.
    let space = AddressSpace::new(&gpu, 9, AddressSpaceControl(0), gpu.vram());
    let channel = Channel::open(&gpu, Setup { asid: 9, ..Setup::new(1, 0) });
    let patchwork = Patchwork::new(&gpu, &space, HUGE - Patchwork::LENGTH);
    let (huge, source) = (gpu.vram().take(2 << 20), gpu.system().take(512 << 10));
    space.map(HUGE, &huge, PageSize::Huge, Rights::Write);
    source.fill(|index| pattern.word(index));
    // One entry, over pages of all sizes in both memories.
    let whole = u32::try_from(source.length()).expect("a short buffer");
    let by_virtual = Location::virtual_address(patchwork.address());
    channel.copy(&[ListEntry { source: source.location(), destination: by_virtual, length: whole, tag: 0 }]);
    patchwork.check(|index| pattern.word(index));
    let rest = source.length() - Patchwork::LENGTH;
    huge.part(0..rest).check(|index| pattern.word(Patchwork::LENGTH / 8 + index));
    // And back to an offset in VRAM.
    let back = gpu.vram().take(512 << 10);
    channel.copy(&[ListEntry { source: by_virtual, destination: back.location(), length: whole, tag: 0 }]);
    back.check_same(&source);
}

fn fills_and_digests() {
    let gpu = Gpu::claim();
    let pattern = Pattern::new(1);
    let channel = Channel::open(&gpu, Setup::new(2, 1));
    let (system, vram) = (gpu.system().take(64 << 10), gpu.vram().take(64 << 10));
    let fill = |buffer: &Buffer<'_>| ListEntry {
        source: Location::vram(0),
        destination: buffer.location(),
        length: 0x8000,
        tag: 0,
    };
    let counted = gpu.count([Counter::BytesFilled], || {
        let entries = [fill(&system), fill(&vram.part(0x8000..0x1_0000))];
        channel.wait(channel.submit_list(&entries, |list| Operation::Fill(list, 0x0123_4567_89ab_cdef)));
    });
    assert_eq!(counted, [0x1_0000]);
    let filled = |index: u64| if index < 0x1000 { 0x0123_4567_89ab_cdef } else { 0 };
    system.check(filled);
    vram.check(|index| filled(index ^ 0x1000));
    system.fill(|index| pattern.word(index));
    vram.fill(|index| pattern.word(!index));
    let results = gpu.system().take(16);
    let digest = |buffer: &Buffer<'_>, result: Buffer<'_>| ListEntry {
        source: buffer.location(),
        destination: result.location(),
        length: 64 << 10,
        tag: 0,
    };
    let entries = [digest(&system, results.part(0..8)), digest(&vram, results.part(8..16))];
    let counted = gpu.count([Counter::BytesDigested], || {
        channel.wait(channel.submit_list(&entries, Operation::Digest));
    });
    assert_eq!(counted, [0x2_0000]);
    for (buffer, offset) in [(system, 0), (vram, 8)] {
        assert_eq!(results.read(offset), u64::from(crc32c::crc32c(&buffer.to_bytes())));
    }
}

fn where_the_bar_does_not_show_it() {
    let function = Function::of(&Device::open());
    let bar = VramBar::of(&function);
    let (at_first, smallest) = (bar.size(), bar.sizes()[0]);
    let resize = |size| {
        function.unbind();
        bar.resize(size);
        function.bind();
    };
    resize(smallest);
    let gpu = Gpu::claim();
    let pattern = Pattern::new(1);
    let channel = Channel::open(&gpu, Setup::new(0, 0));
    let (source, back) = (gpu.system().take(64 << 10), gpu.system().take(64 << 10));
    source.fill(|index| pattern.word(index));
    // The last bytes of VRAM.
    let beyond = gpu.registers().read64(regs::VRAM_SIZE) - source.length();
    assert!(beyond >= smallest, "BAR2 shows all of VRAM");
    let there = ListEntry { destination: Location::vram(beyond), ..copy_entry(source, source) };
    let home = ListEntry { source: there.destination, ..copy_entry(back, back) };
    channel.copy(&[there, home]);
    back.check_same(&source);
    drop(gpu);
    resize(at_first);
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Many channels on all engines, rings that wrap, engines that change.

use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::command::{Cause, Command, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::mmu::{AddressSpaceControl, Invalidation, PageSize};

use super::long_work::LongFill;
use crate::direct::address_space::{AddressSpace, Rights};
use crate::direct::channel::{Channel, Setup, copy_entry};
use crate::direct::gpu::Gpu;
use crate::pattern::Pattern;
use crate::process::Child;
use crate::suite::test_list;

test_list! { "direct_channels":
    a_ring_goes_round.direct();
    all_engines_and_priorities_at_once.direct();
    processes_side_by_side.direct();
    the_higher_priority_goes_first.direct();
    a_channel_changes_its_engine.direct();
    a_doorbell_before_the_enable_bit_is_heard.direct();
}

fn a_ring_goes_round() {
    const TIMES: u64 = 100;
    let gpu = Gpu::claim();
    let channel = Channel::open(&gpu, Setup::new(15, 0));
    assert_eq!(channel.state(), ChannelState::Idle);
    let mut counted = [0; 2];
    gpu.expect_count(Counter::Doorbells, TIMES + 1, || {
        counted = gpu.count([Counter::Commands, Counter::Fences], || {
            for _ in 0..TIMES {
                channel.submit(Operation::Nop);
            }
            // Without a fence GET alone tells.
            let quiet =
                Command { operation: Operation::Nop, cause: Cause::Inspect, fence: None, interrupt: false, tag: 0 };
            channel.submit_words(&quiet.encode());
            channel.wait_until_idle();
        });
    });
    assert_eq!(counted, [TIMES + 1, TIMES]);
    assert_eq!((channel.fence(), u64::from(channel.get()), channel.get_in_memory()), (TIMES, TIMES + 1, channel.get()));
}

fn all_engines_and_priorities_at_once() {
    const ASID: u8 = 33;
    const BASE: u64 = 1 << 40;
    const TIMES: u64 = 30;
    const LENGTH: usize = 32 << 10;
    let gpu = Gpu::claim();
    let pattern = Pattern::new(1);
    let space = AddressSpace::new(&gpu, ASID, AddressSpaceControl(0), gpu.vram());
    let setup = |number: u32, engine| Setup {
        asid: ASID,
        priority: Priority::ALL[number as usize % Priority::ALL.len()],
        ..Setup::new(number, engine)
    };
    // Two channels of each copy engine and three of each compute engine.
    let engines = gpu.copy_engines().flat_map(|engine| [engine; 2]).collect::<Vec<_>>();
    let copying: Vec<_> =
        (0..).zip(engines).map(|(number, engine)| Channel::open(&gpu, setup(number, engine))).collect();
    let engines = gpu.compute_engines().flat_map(|engine| [engine; 3]).collect::<Vec<_>>();
    let computing: Vec<_> =
        (8..).zip(engines).map(|(number, engine)| Channel::open(&gpu, setup(number, engine))).collect();
    let pairs: Vec<_> = copying.iter().map(|_| (gpu.system().take(LENGTH), gpu.vram().take(LENGTH))).collect();
    let sums = gpu.vram().take(4096);
    space.map(BASE, &sums, PageSize::Small, Rights::Atomic);
    for ((source, _), number) in pairs.iter().zip(0..) {
        source.fill(|index| pattern.word(number << 32 | index));
    }
    for _ in 0..TIMES {
        for (channel, &(source, destination)) in copying.iter().zip(&pairs) {
            channel.submit_list(&[copy_entry(source, destination)], Operation::Copy);
        }
        for channel in &computing {
            channel.submit(Operation::Kernel(Kernel::AtomicAdd { target: BASE, length: 4096, addend: 1 }));
        }
    }
    copying.iter().chain(&computing).for_each(|channel| channel.wait(TIMES));
    for ((_, destination), number) in pairs.iter().zip(0..) {
        destination.check(|index| pattern.word(number << 32 | index));
    }
    let all = TIMES * computing.len() as u64;
    sums.check(|_| all);
}

/// Every processor at the device at once: registers, doorbells and memory.
fn processes_side_by_side() {
    const ASID: u8 = 34;
    const BASE: u64 = 1 << 30;
    const TIMES: u64 = 150;
    let gpu = Gpu::claim();
    let space = AddressSpace::new(&gpu, ASID, AddressSpaceControl(0), gpu.system());
    let sums = gpu.system().take(4096);
    space.map(BASE, &sums, PageSize::Small, Rights::Atomic);
    let adding = Channel::open(&gpu, Setup { asid: ASID, ..Setup::new(0, gpu.compute_engines().start) });
    let copying = gpu.copy_engines().chain(gpu.copy_engines()).zip(1..).map(|(engine, number)| {
        let channel = Channel::open(&gpu, Setup::new(number, engine));
        let (source, destination) = (gpu.system().take(8192), gpu.vram().take(8192));
        // Before processes part: each would take the same memory for it.
        let list = channel.list(&[copy_entry(source, destination)]);
        (channel, source, destination, Operation::Copy(list))
    });
    let copying = Vec::from_iter(copying);
    let mut children = Vec::from_iter(copying.iter().map(|(channel, source, destination, copy)| {
        Child::spawn(|| {
            let pattern = Pattern::new(channel.number().into());
            for round in 0..TIMES {
                source.fill(|index| pattern.word(round << 32 | index));
                channel.run(*copy);
                destination.check_same(source);
            }
        })
    }));
    let add = Kernel::AtomicAdd { target: BASE, length: 4096, addend: 1 };
    children.push(Child::spawn(|| {
        (0..TIMES).for_each(|_| adding.run(Operation::Kernel(add)));
    }));
    children.push(Child::spawn(|| {
        let mut last = [0; 2];
        for _ in 0..TIMES {
            gpu.invalidate(Invalidation::All);
            let now = [Counter::Commands, Counter::Invalidations].map(|counter| gpu.counter(counter));
            assert!(now[0] >= last[0] && now[1] > last[1], "{last:?}, then {now:?}");
            last = now;
        }
    }));
    children.into_iter().for_each(Child::succeed);
    sums.check(|_| TIMES);
    assert!(!gpu.status().bad_access());
}

fn the_higher_priority_goes_first() {
    let gpu = Gpu::claim();
    let busy = Channel::open(&gpu, Setup::new(10, 0));
    let channels = Priority::ALL
        .iter()
        .map(|&priority| Channel::open(&gpu, Setup { priority, ..Setup::new(u32::from(priority as u8), 0) }));
    let channels = Vec::from_iter(channels);
    let (last, seen, names) = (gpu.system().take(8), gpu.system().take(24), gpu.system().take(24));
    names.fill(|index| index + 1);
    // Something keeps the engine from them until all have asked, the lowest first.
    let fence = LongFill::of(&busy, gpu.vram().take(1 << 20)).begin(&busy);
    for (channel, place) in channels.iter().zip((0..).step_by(8)) {
        let place = place..place + 8;
        // Each looks who was there before, and leaves its own name.
        let entries = [copy_entry(last, seen.part(place.clone())), copy_entry(names.part(place), last)];
        channel.submit_list(&entries, Operation::Copy);
    }
    assert!(busy.fence() < fence, "the engine was done before there was something to choose from");
    busy.reset();
    channels.iter().for_each(|channel| channel.wait(1));
    // Low has seen normal, normal has seen high, high has seen nobody.
    assert_eq!([0, 8, 16].map(|place| seen.read(place)), [2, 3, 0]);
}

fn a_channel_changes_its_engine() {
    let gpu = Gpu::claim();
    let (source, destination) = (gpu.system().take(4096), gpu.vram().take(4096));
    source.fill(|index| index);
    let channel = Channel::open(&gpu, Setup::new(0, gpu.compute_engines().start));
    channel.run(Operation::Nop);
    channel.disable();
    assert_eq!(channel.get(), 1);
    // Commands that wait in the ring are executed by the new engine, which can.
    let fence = channel.submit_list(&[copy_entry(source, destination)], Operation::Copy);
    channel.move_to(gpu.copy_engines().start);
    channel.wait(fence);
    destination.check_same(&source);
    channel.move_to(gpu.compute_engines().start);
    channel.submit_list(&[copy_entry(source, destination)], Operation::Copy);
    assert_eq!(channel.wait_for_failure().error, ErrorCode::WrongEngine);
}

fn a_doorbell_before_the_enable_bit_is_heard() {
    let gpu = Gpu::claim();
    let channel = Channel::open(&gpu, Setup::new(0, 0));
    channel.disable();
    let fence = channel.submit(Operation::Nop);
    assert_eq!((channel.state(), channel.fence()), (ChannelState::Disabled, 0));
    channel.enable();
    channel.wait(fence);
}

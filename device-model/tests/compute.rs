// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernels over virtual addresses: what they compute, with pages of all sizes wherever they are, and that it is the same after any
//! number of faults.

use ersatz_abi::channel::ChannelState;
use ersatz_abi::command::{Command, List, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::kernel::{Kernel, next_random};
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{AddressSpaceControl, PageSize};
use ersatz_abi::regs;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{DATA, Host, LISTS, command, entry, reg};

/// The compute engine: behind two copy engines.
const COMPUTE: u32 = 2;
const ASID: u8 = 7;
const VECTOR: u32 = 9;
/// Where tests map memory.
const BASE: u64 = 0x7f12_3456_0000;

fn control() -> AddressSpaceControl {
    AddressSpaceControl(0).with_replayable(true)
}

/// A GPU whose channel 0 is one of an engine, in an address space whose tables are at the end of VRAM.
fn on_engine(engine: u32, control: AddressSpaceControl) -> (Host, Space) {
    let host = Host::new();
    let space = Space::new(&host, ASID, control, Location::vram(60 << 20));
    host.write32(reg(0, regs::ENGINE), engine);
    host.write32(reg(0, regs::ASID), ASID.into());
    host.enable(0, VECTOR);
    (host, space)
}

/// 64 KiB from [`BASE`] on: small pages, by turns in VRAM and in the system, in no order.
fn scatter(host: &Host, space: &mut Space) {
    for number in 0..16 {
        space.map(host, BASE + number * 4096, page(home(number), PageSize::Small));
    }
}

fn home(number: u64) -> Location {
    let slot = number * 7 % 16;
    match number % 2 {
        0 => Location::vram((1 << 20) + slot * 8192),
        _ => Location::system(DATA + slot * 4096),
    }
}

fn word_at(host: &Host, address: u64) -> u64 {
    let offset = address - BASE;
    let home = home(offset / 4096);
    host.load(Location { address: home.address + offset % 4096, ..home })
}

fn run(host: &mut Host, kernel: Kernel, fence: u64) {
    host.execute(Operation::Kernel(kernel), fence);
}

#[test]
fn kernels_compute_what_they_say() {
    let (mut host, mut space) = on_engine(COMPUTE, control());
    scatter(&host, &mut space);
    let result = BASE + 0xf000;
    run(&mut host, Kernel::Write { destination: BASE + 8, length: 0x8000, seed: 5 }, 1);
    for offset in (0..0x8000).step_by(8) {
        assert_eq!(word_at(&host, BASE + 8 + offset), 5 + offset / 8);
    }
    assert_eq!(word_at(&host, BASE), 0, "what is before the range is untouched");
    run(&mut host, Kernel::Sum { source: BASE + 8, length: 0x8000, result }, 2);
    assert_eq!(word_at(&host, result), (0..0x1000).map(|number| 5 + number).sum::<u64>());
    run(&mut host, Kernel::AtomicAdd { target: BASE + 8, length: 0x8000, addend: u64::MAX }, 3);
    run(&mut host, Kernel::Sum { source: BASE + 8, length: 0x8000, result }, 4);
    assert_eq!(word_at(&host, result), (0..0x1000).map(|number| 4 + number).sum::<u64>());
    run(
        &mut host,
        Kernel::Set { destination: BASE, length: 0x2000, pattern: u64::from_le_bytes(*b"\0\0\x80\x3f\0\0\0\x40") },
        5,
    );
    run(&mut host, Kernel::Set { destination: BASE + 0x4000, length: 0x2000, pattern: 0 }, 6);
    run(&mut host, Kernel::Saxpy { x: BASE, y: BASE + 0x4000, length: 0x2000, factor: 3.0_f32.to_bits() }, 7);
    let pair = |bits: u64| (f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32));
    assert_eq!(pair(word_at(&host, BASE + 0x5ff8)), (3.0, 6.0));
    run(&mut host, Kernel::Saxpy { x: BASE, y: BASE, length: 8, factor: 1.0_f32.to_bits() }, 8);
    assert_eq!(pair(word_at(&host, BASE)), (2.0, 4.0), "an array on itself");
    run(&mut host, Kernel::Read { source: BASE, length: 0x1_0000 }, 9);
    assert_eq!(host.counter(Counter::KernelAtomics), 0x1000);
    assert_eq!(host.counter(Counter::KernelBytesRead), 2 * 0x8000 + 2 * 0x2000 + 16 + 0x1_0000);
    assert_eq!(host.counter(Counter::ChannelErrors), 0);
}

#[test]
fn compare_and_swap_replaces_what_it_expects() {
    let (mut host, mut space) = on_engine(COMPUTE, control());
    scatter(&host, &mut space);
    let (target, result) = (BASE + 0x1008, BASE + 0x2000);
    let swap = |expected, replacement| Kernel::CompareAndSwap { target, expected, replacement, result };
    run(&mut host, swap(0, 11), 1);
    assert_eq!((word_at(&host, target), word_at(&host, result)), (11, 0));
    run(&mut host, swap(0, 12), 2);
    assert_eq!((word_at(&host, target), word_at(&host, result)), (11, 11), "what is not expected stays");
}

#[test]
fn a_chain_is_followed_wherever_it_leads() {
    let (mut host, mut space) = on_engine(COMPUTE, control());
    scatter(&host, &mut space);
    let place = |step: u64| BASE + step * 0x1238 % 0xe000;
    for step in 0..500 {
        let (at, home) = (place(step) - BASE, home((place(step) - BASE) / 4096));
        host.store(Location { address: home.address + at % 4096, ..home }, place(step + 1));
    }
    let result = BASE + 0xf000;
    run(&mut host, Kernel::Chase { start: place(0), steps: 500, result }, 1);
    assert_eq!(word_at(&host, result), place(500));
    let last = place(499) - BASE;
    host.store(Location { address: home(last / 4096).address + last % 4096, ..home(last / 4096) }, 0x1234_5601);
    host.submit(command(Operation::Kernel(Kernel::Chase { start: place(0), steps: 501, result })));
    host.wait_until("the error", |host| host.status(0).error() == Some(ErrorCode::BadOperand));
    assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), 0x1234_5601, "a pointer that is not aligned");
}

#[test]
fn big_and_huge_pages_in_48_and_57_bits() {
    for five_levels in [false, true] {
        let (mut host, mut space) = on_engine(COMPUTE, control().with_five_levels(five_levels));
        let base = if five_levels { 0x1ab_cdef_0120_0000 } else { 0xabcd_ef20_0000 };
        space.map(&host, base, page(Location::vram(4 << 20), PageSize::Huge));
        space.map(&host, base + (2 << 20), page(Location::system(DATA), PageSize::Big));
        space.map(&host, base + (2 << 20) + (64 << 10), page(Location::system(DATA + (1 << 20)), PageSize::Small));
        let length = (2 << 20) + (64 << 10) + 4096;
        let fill = Kernel::Set { destination: base, length, pattern: 7 };
        host.execute(Operation::Kernel(fill), 1);
        assert_eq!(host.load(Location::vram((6 << 20) - 8)), 7);
        assert_eq!(host.load(Location::system(DATA + (64 << 10) - 8)), 7);
        assert_eq!(host.load(Location::system(DATA + (1 << 20) + 4088)), 7);
        assert_eq!(host.load(Location::system(DATA + (64 << 10))), 0);
        assert_eq!(host.counter(Counter::TlbMisses), 3, "one walk a page");
    }
}

#[test]
fn lists_take_virtual_addresses() {
    let (mut host, mut space) = on_engine(1, control());
    scatter(&host, &mut space);
    for offset in (0..0x6000).step_by(8) {
        host.store(Location::system(DATA + (4 << 20) + offset), offset ^ 0x5555);
    }
    let source = Location::system(DATA + (4 << 20));
    let there = Location::virtual_address(BASE + 0x808);
    let list = host.list(LISTS, &[entry(source, there, 0x6000)]);
    host.execute(Operation::Copy(list), 1);
    (0..0x6000).step_by(8).for_each(|offset| assert_eq!(word_at(&host, BASE + 0x808 + offset), offset ^ 0x5555));
    let digest = Location::virtual_address(BASE + 0xe000);
    let list = host.list(LISTS, &[entry(there, digest, 0x6000), entry(source, Location::vram(0), 0x6000)]);
    host.execute(Operation::Digest(list), 2);
    assert_eq!(word_at(&host, BASE + 0xe000), host.load(Location::vram(0)), "the same bytes");
    let list = host.list(LISTS, &[entry(there, there, 8)]);
    host.execute(Operation::Fill(list, 3), 3);
    assert_eq!((word_at(&host, BASE + 0x808), word_at(&host, BASE + 0x810)), (3, 8 ^ 0x5555));
    assert_eq!(host.counter(Counter::BytesToVram) + host.counter(Counter::BytesWithinSystem), 0x6000);
}

#[test]
fn each_engine_does_its_own() {
    for (engine, operation) in [
        (COMPUTE, Operation::Copy(List { address: LISTS, count: 1 })),
        (0, Operation::Kernel(Kernel::Read { source: BASE, length: 8 })),
    ] {
        let (mut host, _space) = on_engine(engine, control());
        host.submit(command(operation));
        host.wait_until("the error", |host| host.status(0).error() == Some(ErrorCode::WrongEngine));
        assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), ersatz_device_testing::RING);
    }
}

#[test]
fn without_an_address_space_there_is_no_virtual_address() {
    let host = &mut Host::new();
    host.write32(reg(0, regs::ENGINE), COMPUTE);
    host.enable(0, VECTOR);
    host.submit(command(Operation::Kernel(Kernel::Read { source: BASE, length: 8 })));
    host.wait_until("the error", |host| host.status(0).error() == Some(ErrorCode::AddressSpace));
    assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), BASE);
}

#[test]
fn a_channel_cannot_be_bound_to_what_is_not_there() {
    for (register, value) in [(regs::ENGINE, 3), (regs::ASID, 256), (regs::PRIORITY, 3), (regs::ENGINE, 0x100)] {
        let host = Host::new();
        host.write32(reg(0, register), value);
        assert_eq!(host.read32(reg(0, register)), value);
        host.enable(0, VECTOR);
        assert_eq!(host.status(0).error(), Some(ErrorCode::BadSetup), "{}", register.name);
    }
}

/// Two engines and a CPU add to the same words: nothing is lost.
#[test]
fn atomics_are_atomic_for_engines_and_cpus() {
    let mut config = ersatz_device_model::GpuConfig::new(64 << 20);
    config.compute_engines = 2;
    let mut host = Host::with(config, ersatz_device_testing::Interrupts::default());
    let mut space = Space::new(&host, ASID, control(), Location::vram(60 << 20));
    space.map(&host, BASE, page(Location::system(DATA), PageSize::Small));
    for channel in [0, 1] {
        host.write32(reg(channel, regs::ENGINE), COMPUTE + channel);
        host.write32(reg(channel, regs::ASID), ASID.into());
        host.enable(channel, VECTOR + channel);
    }
    let add = Operation::Kernel(Kernel::AtomicAdd { target: BASE, length: 512, addend: 1 });
    for round in 1..=50 {
        for channel in [0, 1] {
            host.submit_to(channel, Command { fence: Some(round), ..command(add) });
        }
        let word = host.memory.get_slice(GuestAddress(DATA), 8).unwrap();
        let word = vm_memory::VolatileMemory::get_atomic_ref::<std::sync::atomic::AtomicU64>(&word, 0).unwrap();
        for _ in 0..100 {
            word.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        host.wait_until("both", |host| host.fence_of(0) == round && host.fence_of(1) == round);
    }
    assert_eq!(host.memory.read_obj::<u64>(GuestAddress(DATA)).unwrap(), 50 * (2 + 100));
    assert_eq!(host.memory.read_obj::<u64>(GuestAddress(DATA + 504)).unwrap(), 50 * 2);
}

/// The same kernel on a plain array.
fn model(kernel: &Kernel, memory: &mut [u64]) {
    let at = |address: u64| ((address - BASE) / 8) as usize;
    let range = |start: u64, length: u64| at(start)..at(start) + (length / 8) as usize;
    match *kernel {
        Kernel::Write { destination, length, seed } => {
            (0..).zip(&mut memory[range(destination, length)]).for_each(|(number, word)| *word = seed + number);
        }
        Kernel::Sum { source, length, result } => {
            let sum = memory[range(source, length)].iter().fold(0_u64, |sum, word| sum.wrapping_add(*word));
            memory[at(result)] = sum;
        }
        Kernel::AtomicAdd { target, length, addend } => {
            memory[range(target, length)].iter_mut().for_each(|word| *word = word.wrapping_add(addend));
        }
        Kernel::RandomUpdate { table, length, seed, updates } => {
            let mut random = seed;
            for _ in 0..updates {
                random = next_random(random);
                memory[at(table) + (random % (length / 8)) as usize] ^= random;
            }
        }
        Kernel::Saxpy { x, y, length, factor } => {
            for number in 0..(length / 8) as usize {
                let (x, y) = (memory[at(x) + number], &mut memory[at(y) + number]);
                let half = |x: u64, y: u64| {
                    let product = f32::from_bits(factor) * f32::from_bits(x as u32);
                    u64::from((product + f32::from_bits(y as u32)).to_bits())
                };
                *y = half(x, *y) | half(x >> 32, *y >> 32) << 32;
            }
        }
        Kernel::Copy { source, destination, length } => memory.copy_within(range(source, length), at(destination)),
        _ => unreachable!("the strategy makes none"),
    }
}

fn kernel() -> impl Strategy<Value = Kernel> {
    let range = (0..0x1000_u64, 1..0xf00_u64).prop_map(|(at, words)| (BASE + at * 8, words * 8));
    prop_oneof![
        (range.clone(), 0..1000_u64).prop_map(|((destination, length), seed)| Kernel::Write {
            destination,
            length,
            seed
        }),
        (range.clone(), 0..0x1f00_u64).prop_map(|((source, length), word)| Kernel::Sum {
            source,
            length,
            result: BASE + word * 8
        }),
        (range.clone(), any::<u64>()).prop_map(|((target, length), addend)| Kernel::AtomicAdd {
            target,
            length,
            addend
        }),
        (1..=u64::MAX, 1..400_u64).prop_map(|(seed, updates)| Kernel::RandomUpdate {
            table: BASE,
            length: 0x1_0000,
            seed,
            updates
        }),
        (range.clone(), any::<bool>()).prop_map(|((low, length), is_upwards)| {
            let length = length.min((BASE + 0x1_0000 - low) / 16 * 8);
            let high = low + length;
            let (source, destination) = if is_upwards { (low, high) } else { (high, low) };
            Kernel::Copy { source, destination, length }
        }),
        (range, 1..8_u32).prop_map(|((x, length), factor)| Kernel::Saxpy {
            x,
            y: if x + 2 * length <= BASE + 0x1_0000 { x + length } else { x },
            length,
            factor: (factor as f32).to_bits(),
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is not mapped when a kernel gets there is mapped then, and only then; at times a page is taken away again under
    /// it. Every result is what it is without any fault.
    #[test]
    fn faults_change_no_result(kernels in proptest::collection::vec(kernel(), 1..5), mapped in any::<u16>(), steal in any::<u64>()) {
        let (mut host, mut space) = on_engine(COMPUTE, control());
        let mut expected = vec![0_u64; 0x2000];
        let mut present = mapped;
        let mut random = steal | 1;
        for number in (0..16).filter(|number| present & (1 << number) != 0) {
            space.map(&host, BASE + number * 4096, page(home(number), PageSize::Small));
        }
        for (fence, kernel) in (1..).zip(&kernels) {
            model(kernel, &mut expected);
            host.submit(Command { fence: Some(fence), ..command(Operation::Kernel(*kernel)) });
            loop {
                host.wait_until("a fault or the end", |host| {
                    host.fence() == fence || host.status(0).state() == Some(ChannelState::Faulted)
                });
                if host.fence() == fence {
                    break;
                }
                prop_assert_eq!(host.read64(regs::FAULTED_CHANNELS.offset), 1);
                // Take one page away, and give one that is missing: in the end they are all there.
                random = next_random(random);
                let missing: Vec<u64> = (0..16).filter(|number| present & (1 << number) == 0).collect();
                if random % 4 == 0 {
                    let number = random >> 8 & 15;
                    space.unmap(&host, BASE + number * 4096, PageSize::Small);
                    present &= !(1 << number);
                    host.invalidate(ersatz_abi::mmu::Invalidation::AddressSpace(ASID));
                }
                for number in missing.iter().copied().filter(|number| random >> (16 + number) & 1 != 0) {
                    space.map(&host, BASE + number * 4096, page(home(number), PageSize::Small));
                    present |= 1 << number;
                }
                host.write32(regs::FAULT_REPLAY.offset, 1);
            }
        }
        for (number, value) in (0..).zip(&expected) {
            prop_assert_eq!(word_at(&host, BASE + number * 8), *value, "word {}", number);
        }
    }
}

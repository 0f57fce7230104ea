// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernels over virtual memory: their results, to the last bit, as the CPU computes them.

use std::sync::atomic::Ordering;

use ersatz_abi::command::Operation;
use ersatz_abi::counter::Counter;
use ersatz_abi::kernel::{Kernel, next_random};
use ersatz_abi::mmu::{AddressSpaceControl, PageSize};

use super::patchwork::Patchwork;
use crate::direct::address_space::{AddressSpace, Rights};
use crate::direct::buffer::Buffer;
use crate::direct::channel::{Channel, Setup};
use crate::direct::gpu::Gpu;
use crate::pattern::Pattern;
use crate::suite::test_list;

test_list! { "direct_kernels":
    write_read_set_and_sum.direct();
    saxpy_rounds_twice.direct();
    atomic_add_and_compare_and_swap.direct();
    chase_and_random_update.direct();
    kernel_copy_between_patchworks.direct();
    atomics_of_engines_and_of_a_cpu_add_up.direct();
}

const ASID: u8 = 200;
/// Two patchworks, and where the results are.
const X: u64 = 0x1_0000_0000;
const Y: u64 = 0x80_0000_0000;
const RESULT: u64 = 0x7fff_ffff_f000;
/// Bytes in a patchwork, and words.
const LENGTH: u64 = Patchwork::LENGTH;
const WORDS: u64 = LENGTH / 8;

/// What kernels run on.
struct Stage<'a> {
    channel: Channel<'a>,
    x: Patchwork<'a>,
    y: Patchwork<'a>,
    result: Buffer<'a>,
}

impl<'a> Stage<'a> {
    fn new(gpu: &'a Gpu) -> Self {
        let space = AddressSpace::new(gpu, ASID, AddressSpaceControl(0), gpu.system());
        let channel = Channel::open(gpu, Setup { asid: ASID, ..Setup::new(5, gpu.compute_engines().start) });
        let (x, y) = (Patchwork::new(gpu, &space, X), Patchwork::new(gpu, &space, Y));
        let result = gpu.system().take(4096);
        space.map(RESULT, &result, PageSize::Small, Rights::Write);
        Self { channel, x, y, result }
    }

    fn run(&self, kernel: Kernel) {
        self.channel.run(Operation::Kernel(kernel));
    }

    /// The result of a kernel that has one.
    fn result_of(&self, kernel: Kernel) -> u64 {
        self.result.write(0, u64::MAX);
        self.run(kernel);
        self.result.read(0)
    }
}

fn write_read_set_and_sum() {
    const SEED: u64 = u64::MAX - 7;
    let gpu = Gpu::claim();
    let stage = Stage::new(&gpu);
    let counters = [Counter::KernelBytesRead, Counter::KernelBytesWritten, Counter::KernelAtomics];
    let counted = gpu.count(counters, || {
        stage.run(Kernel::Write { destination: X, length: LENGTH, seed: SEED });
        stage.run(Kernel::Read { source: X, length: LENGTH });
    });
    assert_eq!(counted, [LENGTH, LENGTH, 0]);
    stage.x.check(|index| SEED.wrapping_add(index));
    let sum = (0..WORDS).fold(0, |sum: u64, index| sum.wrapping_add(SEED.wrapping_add(index)));
    assert_eq!(stage.result_of(Kernel::Sum { source: X, length: LENGTH, result: RESULT }), sum);
    // All but the first word and the last.
    stage.run(Kernel::Set { destination: X + 8, length: LENGTH - 16, pattern: 42 });
    stage.x.check(|index| if index == 0 || index == WORDS - 1 { SEED.wrapping_add(index) } else { 42 });
}

fn saxpy_rounds_twice() {
    let gpu = Gpu::claim();
    let stage = Stage::new(&gpu);
    let pair = |low: f32, high: f32| u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32;
    let (x, y) = (|index: u64| (index as f32).sqrt(), |index: u64| 1.0 / (index as f32 + 1.0));
    let factor = std::f32::consts::PI;
    stage.x.fill(|index| pair(x(2 * index), x(2 * index + 1)));
    stage.y.fill(|index| pair(y(2 * index), y(2 * index + 1)));
    stage.run(Kernel::Saxpy { x: X, y: Y, length: LENGTH, factor: factor.to_bits() });
    let expected = |index: u64| factor * x(index) + y(index);
    stage.y.check(|index| pair(expected(2 * index), expected(2 * index + 1)));
    stage.x.check(|index| pair(x(2 * index), x(2 * index + 1)));
}

fn atomic_add_and_compare_and_swap() {
    let gpu = Gpu::claim();
    let pattern = Pattern::new(1);
    let stage = Stage::new(&gpu);
    stage.x.fill(|index| pattern.word(index));
    let counted = gpu.count([Counter::KernelAtomics], || {
        stage.run(Kernel::AtomicAdd { target: X, length: LENGTH, addend: 3 });
    });
    assert_eq!(counted, [WORDS]);
    let added = |index| pattern.word(index).wrapping_add(3);
    stage.x.check(added);
    let swap = |index: u64, expected| {
        let target = X + 8 * index;
        stage.result_of(Kernel::CompareAndSwap { target, expected, replacement: 5, result: RESULT })
    };
    assert_eq!(swap(700, added(700)), added(700));
    assert_eq!(swap(701, added(700)), added(701), "a word that is not as expected");
    stage.x.check(|index| if index == 700 { 5 } else { added(index) });
}

fn chase_and_random_update() {
    const STEPS: u64 = 10_000;
    const TABLE: u64 = 128 << 10;
    let gpu = Gpu::claim();
    let stage = Stage::new(&gpu);
    // A factor one above a multiple of four, and an odd addend: the chain meets every word before it closes.
    let next = |index: u64| (index * 1021 + 4099) % WORDS;
    stage.x.fill(|index| X + 8 * next(index));
    let end = (0..STEPS).fold(17, |index, _| next(index));
    assert_eq!(stage.result_of(Kernel::Chase { start: X + 8 * 17, steps: STEPS, result: RESULT }), X + 8 * end);
    stage.run(Kernel::RandomUpdate { table: Y, length: TABLE, seed: 99, updates: STEPS });
    let mut table = vec![0; (TABLE / 8) as usize];
    update_at_random(&mut table, 99, STEPS);
    stage.y.check(|index| table.get(index as usize).copied().unwrap_or(0));
}

/// What the kernel *random-update* does.
pub(super) fn update_at_random(table: &mut [u64], seed: u64, updates: u64) {
    let words = table.len() as u64;
    let random = std::iter::successors(Some(next_random(seed)), |&random| Some(next_random(random)));
    random.take(updates as usize).for_each(|random| table[(random % words) as usize] ^= random);
}

fn kernel_copy_between_patchworks() {
    let gpu = Gpu::claim();
    let (pattern, other) = (Pattern::new(1), Pattern::new(2));
    let stage = Stage::new(&gpu);
    stage.x.fill(|index| pattern.word(index));
    stage.y.fill(|index| other.word(index));
    // The pages of the two ranges do not begin at the same words; a word before and a word behind are not written.
    let length = LENGTH - 24;
    let counters = [Counter::KernelBytesRead, Counter::KernelBytesWritten, Counter::KernelAtomics];
    let counted = gpu.count(counters, || {
        stage.run(Kernel::Copy { source: X + 16, destination: Y + 8, length });
    });
    assert_eq!(counted, [length, length, 0]);
    let is_copied = |index| (1..WORDS - 2).contains(&index);
    stage.y.check(|index| if is_copied(index) { pattern.word(index + 1) } else { other.word(index) });
    stage.x.check(|index| pattern.word(index));
}

fn atomics_of_engines_and_of_a_cpu_add_up() {
    const TIMES: u64 = 200;
    let gpu = Gpu::claim();
    let space = AddressSpace::new(&gpu, ASID, AddressSpaceControl(0), gpu.system());
    let memories = [gpu.system().take(4096), gpu.vram().take(4096)];
    for (memory, address) in memories.iter().zip([X, Y]) {
        space.map(address, memory, PageSize::Small, Rights::Atomic);
    }
    let setup = |number: u32, engine| Setup { asid: ASID, ..Setup::new(number, engine) };
    let channels: Vec<_> =
        (0..).zip(gpu.compute_engines()).map(|(n, engine)| Channel::open(&gpu, setup(n, engine))).collect();
    let mut of_cpu = 0;
    for _ in 0..TIMES {
        for channel in &channels {
            for target in [X, Y] {
                channel.submit(Operation::Kernel(Kernel::AtomicAdd { target, length: 4096, addend: 1 }));
            }
        }
        while channels.iter().any(|channel| channel.get_in_memory() != channel.put()) {
            for memory in &memories {
                memory.word(64).fetch_add(1, Ordering::Relaxed);
            }
            of_cpu += 1;
        }
    }
    let of_engines = TIMES * channels.len() as u64;
    memories.iter().for_each(|memory| memory.check(|index| of_engines + if index == 8 { of_cpu } else { 0 }));
}

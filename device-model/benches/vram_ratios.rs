// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether the size of VRAM matters: the time of the same work with a terabyte of it, in times of that with 256 MiB.
//!
//! The two are measured in turn, and every sample has new memory, as in `copy_ratios`.

#![allow(missing_docs, reason = "criterion_group! makes public functions")]

mod ratio;

use std::time::Duration;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use ersatz_abi::command::{Command, ListEntry, Operation};
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{AddressSpaceControl, PageSize};
use ersatz_abi::regs;
use ersatz_device_model::GpuConfig;

use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{DATA, Host, LISTS, command, entry, reg};
use ratio::Ratio;

const LITTLE: u64 = 256 << 20;
const MUCH: u64 = 1 << 40;

/// A device that does the same work again and again.
struct Worker {
    host: Host,
    channel: u32,
    operation: Operation,
    fence: u64,
}

impl Worker {
    fn new(host: Host, channel: u32, operation: Operation) -> Self {
        let mut worker = Self { host, channel, operation, fence: 0 };
        // The first time finds memory that was never touched.
        worker.work();
        worker
    }

    fn work(&mut self) {
        self.fence += 1;
        let work = Command { fence: Some(self.fence), interrupt: true, ..command(self.operation) };
        self.host.submit_to(self.channel, work);
        self.host.interrupts.wait_for_one();
    }
}

/// Copies 16 MiB in pages of 64 KiB, spread over all of VRAM.
fn copies(vram: u64) -> Worker {
    const PAGE: u64 = 64 << 10;
    const PAGES: u64 = 256;
    let host = Host::unlogged_with(GpuConfig::new(vram));
    host.enable(0, 1);
    let entries: Vec<ListEntry> = (0..PAGES)
        .map(|number| {
            let place = number * 97 % PAGES * (vram / PAGES);
            entry(Location::system(DATA + number * PAGE), Location::vram(place), PAGE as u32)
        })
        .collect();
    let list = host.list(LISTS, &entries);
    Worker::new(host, 0, Operation::Copy(list))
}

/// Updates words here and there in pages that are spread over all of VRAM, by virtual address.
fn random_updates(vram: u64) -> Worker {
    const PAGES: u64 = 16;
    let host = Host::unlogged_with(GpuConfig::new(vram));
    let mut space = Space::new(&host, 1, AddressSpaceControl(0), Location::vram(vram - (4 << 20)));
    let huge = PageSize::Huge.bytes();
    for number in 0..PAGES {
        let home = Location::vram(vram / PAGES * number / huge * huge);
        space.map(&host, number * huge, page(home, PageSize::Huge));
    }
    host.write32(reg(1, regs::ENGINE), 2);
    host.write32(reg(1, regs::ASID), 1);
    host.enable(1, 2);
    let update = Kernel::RandomUpdate { table: 0, length: PAGES * huge, seed: 1, updates: 16_384 };
    Worker::new(host, 1, Operation::Kernel(update))
}

fn compare(pairs: u64, worker: impl Fn(u64) -> Worker) -> f64 {
    let (mut much, mut little) = (worker(MUCH), worker(LITTLE));
    ratio::of(pairs, || much.work(), || little.work())
}

fn vram_size(criterion: &mut Criterion<Ratio>) {
    let mut group = criterion.benchmark_group("time with 1 TiB of VRAM beside 256 MiB");
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function("copies", |bencher| bencher.iter_custom(|pairs| compare(pairs, copies)));
    group.bench_function("random updates", |bencher| bencher.iter_custom(|pairs| compare(pairs, random_updates)));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(Ratio).sample_size(60).measurement_time(Duration::from_secs(12));
    targets = vram_size
}
criterion_main!(benches);

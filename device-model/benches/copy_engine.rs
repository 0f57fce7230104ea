// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The copy engine and a plain memcpy of the same memory: 2 MiB pages, and lists of scattered 4 KiB pages; and what a list entry
//! costs besides its bytes. How they compare is better seen from `copy_ratios`.

#![allow(missing_docs, reason = "criterion_group! makes public functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ersatz_abi::command::{Command, Operation};
use ersatz_device_model::GpuConfig;

use ersatz_device_testing::pages::{BATCH, Engine, KINDS, Plain, VRAM};
use ersatz_device_testing::{DATA, Host, LISTS, command, entry, system, vram};

fn copies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("copy");
    group.throughput(Throughput::Bytes(BATCH)).sample_size(20);
    for (pages, direction) in KINDS {
        let what = format!("{}, {}", pages.name, direction.name());
        let plain = Plain::new(pages, direction);
        group.bench_function(format!("memcpy, {what}"), |bencher| bencher.iter(|| plain.copy()));
        let mut engine = Engine::new(GpuConfig::new(VRAM), pages, direction);
        group.bench_function(format!("engine, {what}"), |bencher| bencher.iter(|| engine.copy()));
    }
    group.finish();
}

/// What an entry costs besides its bytes: lists of entries of eight bytes.
fn entries(criterion: &mut Criterion) {
    const ENTRIES: u64 = 16_384;
    let mut host = Host::unlogged();
    host.enable(0, 1);
    let mut fence = 0;
    let entries: Vec<_> = (0..ENTRIES).map(|number| entry(system(DATA + number * 8), vram(number * 8), 8)).collect();
    let list = host.list(LISTS, &entries);
    let mut group = criterion.benchmark_group("entries");
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("8 bytes each", |bencher| {
        bencher.iter(|| {
            fence += 1;
            host.submit(Command { fence: Some(fence), interrupt: true, ..command(Operation::Copy(list)) });
            host.interrupts.wait_for_one();
        });
    });
    group.finish();
}

criterion_group!(benches, copies, entries);
criterion_main!(benches);

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The copy engine beside a plain memcpy of the same memory: 2 MiB pages, and lists of scattered 4 KiB pages; and what the trace costs
//! it.
//!
//! Each engine figure includes everything a driver waits for: the doorbell, fetching command and list, the fence and the
//! interrupt.

#![allow(missing_docs, reason = "criterion_group! makes public functions")]

#[path = "../tests/host/mod.rs"]
mod host;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use ersatz_abi::command::{Command, List, ListEntry, Operation};
use ersatz_device_model::GpuConfig;
use ersatz_device_model::clock::HostClock;
use ersatz_device_model::trace::{Identity, TraceOptions, Tracer};
use ersatz_device_model::vram::Vram;
use vm_memory::{GuestAddress, GuestMemoryBackend};

use host::{DATA, Host, LISTS, command, entry, system, vram};

/// Bytes moved an iteration: more than caches hold.
const BATCH: u64 = 32 << 20;

/// The pages of a batch: in order, or each a prime stride from the last.
fn places(page: u64, scattered: bool) -> Vec<(u64, u64)> {
    let count = BATCH / page;
    let step = if scattered { 4099 } else { 1 };
    (0..count).map(|number| (number * page, number * step % count * page)).collect()
}

fn submit_and_wait(host: &mut Host, list: List, fence: &mut u64) {
    *fence += 1;
    host.submit(Command { fence: Some(*fence), interrupt: true, ..command(Operation::Copy(list)) });
    host.interrupts.wait_for_one();
}

fn engine(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, page: u64, scattered: bool) {
    let mut host = Host::unlogged();
    host.enable(0, 1);
    let mut fence = 0;
    for to_vram in [true, false] {
        let entries: Vec<ListEntry> = places(page, scattered)
            .into_iter()
            .map(|(ram, device)| match to_vram {
                true => entry(system(DATA + ram), vram(device), page as u32),
                false => entry(vram(device), system(DATA + ram), page as u32),
            })
            .collect();
        let list = host.list(LISTS, &entries);
        let direction = if to_vram { "to VRAM" } else { "to the system" };
        group.bench_function(format!("engine, {name}, {direction}"), |bencher| {
            bencher.iter(|| submit_and_wait(&mut host, list, &mut fence));
        });
    }
}

fn memcpy(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, page: u64, scattered: bool) {
    let host = Host::unlogged();
    let device = Vram::new(64 << 20).expect("VRAM");
    let pages = places(page, scattered);
    for to_vram in [true, false] {
        let direction = if to_vram { "to VRAM" } else { "to the system" };
        group.bench_function(format!("memcpy, {name}, {direction}"), |bencher| {
            bencher.iter(|| {
                for &(ram, at) in &pages {
                    let ram = host.memory.get_slice(GuestAddress(DATA + ram), page as usize).expect("RAM");
                    let there = device.slice(at, page).expect("VRAM");
                    let (from, to) = if to_vram { (ram, there) } else { (there, ram) };
                    black_box(from).copy_to_volatile_slice(black_box(to));
                }
            });
        });
    }
}

fn copies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("copy");
    group.throughput(Throughput::Bytes(BATCH)).sample_size(20);
    for (name, page, scattered) in [("2 MiB pages", 2 << 20, false), ("scattered 4 KiB pages", 4096, true)] {
        memcpy(&mut group, name, page, scattered);
        engine(&mut group, name, page, scattered);
    }
    group.finish();
}

/// The same list of scattered 4 KiB pages with the trace off and on: a record a page. The log is made anew for each measurement, and
/// none finds it full.
fn tracing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tracing");
    group.throughput(Throughput::Bytes(BATCH)).sample_size(20);
    for traced in [false, true] {
        let name = if traced { "4 KiB pages, on" } else { "4 KiB pages, off" };
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let mut config = GpuConfig::new(64 << 20);
                if traced {
                    let capacity = (iterations + 1) * (BATCH / 4096 + 64);
                    let options = TraceOptions { identity: Identity::default(), capacity };
                    config.tracer = Tracer::create(&folder.path().join("log"), &options, Arc::new(HostClock::new()))
                        .expect("a log in a temporary folder");
                }
                let mut host = Host::unlogged_with(config);
                host.enable(0, 1);
                let entries: Vec<ListEntry> = places(4096, true)
                    .into_iter()
                    .map(|(ram, device)| entry(system(DATA + ram), vram(device), 4096))
                    .collect();
                let (list, mut fence) = (host.list(LISTS, &entries), 0);
                // The first copy finds memory that was never touched.
                submit_and_wait(&mut host, list, &mut fence);
                let start = Instant::now();
                (0..iterations).for_each(|_| submit_and_wait(&mut host, list, &mut fence));
                start.elapsed()
            });
        });
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
    group.bench_function("8 bytes each", |bencher| bencher.iter(|| submit_and_wait(&mut host, list, &mut fence)));
    group.finish();
}

criterion_group!(benches, copies, tracing, entries);
criterion_main!(benches);

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a command costs, and what a second engine brings.
//!
//! Figures include what a driver waits for: the doorbell, the fetch, the fence and the interrupt of the last command.

#![allow(missing_docs, reason = "criterion_group! makes public functions")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ersatz_abi::command::{Command, List, ListEntry, Operation};
use ersatz_abi::list::Location;
use ersatz_abi::regs;

use ersatz_device_testing::{DATA, Host, LISTS, command, entry, reg};

/// Commands of one batch: as many as the ring has room for.
const COMMANDS: u64 = 64;
/// Bytes that one channel moves.
const BATCH: u64 = 16 << 20;

/// Commands that do nothing, and invalidations, which every engine has to acknowledge.
fn commands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commands");
    group.throughput(Throughput::Elements(COMMANDS));
    let operations = [
        ("nop", Operation::Nop),
        ("invalidate", Operation::Invalidate(ersatz_abi::mmu::Invalidation::AddressSpace(0))),
    ];
    for (name, operation) in operations {
        let mut host = Host::unlogged();
        host.enable(0, 1);
        let mut fence = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for number in 1..=COMMANDS {
                    fence += 1;
                    let last = number == COMMANDS;
                    host.push_words(Command { fence: Some(fence), interrupt: last, ..command(operation) }.encode());
                }
                host.ring_doorbell(0);
                host.interrupts.wait_for_one();
            });
        });
    }
    group.finish();
}

/// The pages of a batch from `place` on, by turns from and to, so that no two channels touch the same.
fn batch(host: &Host, channel: u64, scattered: u64) -> List {
    let page = 64 << 10;
    let entries: Vec<ListEntry> = (0..BATCH / page)
        .map(|number| {
            let from = channel * BATCH + number * page;
            let to = channel * BATCH + number * scattered % (BATCH / page) * page;
            entry(Location::system(DATA + from), Location::vram(to), page as u32)
        })
        .collect();
    host.list(LISTS + channel * 0x10_0000, &entries)
}

/// The same work for each of one and of two channels, each with an engine of its own.
fn scaling(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scaling");
    group.sample_size(20);
    for channels in [1_u32, 2] {
        let mut host = Host::unlogged();
        let lists: Vec<List> = (0..channels.into()).map(|channel| batch(&host, channel, 97)).collect();
        for channel in 0..channels {
            host.write32(reg(channel, regs::ENGINE), channel);
            host.enable(channel, 1 + channel);
        }
        let mut fence = 0;
        group.throughput(Throughput::Bytes(BATCH * u64::from(channels)));
        group.bench_function(BenchmarkId::new("copy engines", channels), |bencher| {
            bencher.iter(|| {
                fence += 1;
                for (channel, list) in (0..).zip(&lists) {
                    let copy = command(Operation::Copy(*list));
                    host.submit_to(channel, Command { fence: Some(fence), interrupt: true, ..copy });
                }
                // A fence is there before its interrupt: one that came with another's needs no waiting for.
                while (0..channels).any(|channel| host.fence_of(channel) != fence) {
                    host.interrupts.wait_for_one();
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commands, scaling);
criterion_main!(benches);

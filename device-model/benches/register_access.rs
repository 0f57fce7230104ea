// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What an access to the device costs in process: registers, config space, and the way from a doorbell to its interrupt.

#![allow(missing_docs, reason = "criterion_group! makes public functions")]

use criterion::{Criterion, criterion_group, criterion_main};
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::regs;
use ersatz_device_model::bus::PciFunction;

use ersatz_device_testing::{Host, command, reg};

fn registers(criterion: &mut Criterion) {
    let host = Host::unlogged();
    let mut group = criterion.benchmark_group("register");
    group.bench_function("read ID", |bencher| bencher.iter(|| host.read32(regs::ID.offset)));
    group.bench_function("read a channel's status", |bencher| bencher.iter(|| host.status(0)));
    group.bench_function("read a counter", |bencher| bencher.iter(|| host.read64(regs::COUNTER_BASE)));
    group.bench_function("write a channel's vector", |bencher| bencher.iter(|| host.write32(reg(0, regs::VECTOR), 1)));
    group.bench_function("read the vendor id", |bencher| {
        bencher.iter(|| {
            let mut data = [0; 4];
            host.gpu.config_read(0, &mut data);
            data
        });
    });
    group.finish();
}

fn round_trip(criterion: &mut Criterion) {
    let mut host = Host::unlogged();
    host.enable(0, 1);
    let mut fence = 0;
    criterion.bench_function("doorbell to interrupt", |bencher| {
        bencher.iter(|| {
            fence += 1;
            host.submit(Command { fence: Some(fence), interrupt: true, ..command(Operation::Nop) });
            host.interrupts.wait_for_one();
        });
    });
}

criterion_group!(benches, registers, round_trip);
criterion_main!(benches);

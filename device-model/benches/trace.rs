// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What an event costs: with the trace off, on, on with many emitted at once, and on with another thread writing as well (twice the
//! events then); and how fast a log is read.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ersatz_abi::command::{Cause, Location};
use ersatz_device_model::clock::HostClock;
use ersatz_device_model::trace::{Event, Identity, Summary, TraceFile, TraceOptions, Tracer};
use tempfile::TempDir;

/// Events for each measurement, on a log of its own: none finds the log full.
const EVENTS: u64 = 10_000;
/// As many pages as an engine copies in one piece of work.
const AT_ONCE: u64 = 64;

fn event(page: u64) -> Event {
    Event::Copy {
        channel: 0,
        engine: 0,
        cause: Cause::MigrateToDevice,
        source: Location::system(page * 4096),
        destination: Location::vram(page * 4096),
        length: 4096,
        tag: page,
    }
}

/// A log in a folder that goes with it.
struct Log {
    tracer: Tracer,
    path: PathBuf,
    _folder: TempDir,
}

impl Log {
    fn new(capacity: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("trace");
        let options = TraceOptions { identity: Identity::default(), capacity };
        let tracer = Tracer::create(&path, &options, Arc::new(HostClock::new())).expect("a log in a temporary folder");
        Self { tracer, path, _folder: folder }
    }
}

fn emit_all(tracer: &Tracer) {
    for page in 0..EVENTS {
        tracer.emit(black_box(event(page)));
    }
}

fn emit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("emit");
    group.throughput(Throughput::Elements(EVENTS));
    let off = Tracer::disabled();
    group.bench_function("off", |bencher| bencher.iter(|| emit_all(&off)));
    group.bench_function("on", |bencher| {
        let written = |log: Log| {
            emit_all(&log.tracer);
            log
        };
        bencher.iter_batched(|| Log::new(EVENTS), written, BatchSize::PerIteration);
    });
    group.bench_function("on, 64 at once", |bencher| {
        let written = |log: Log| {
            for first in (0..EVENTS).step_by(AT_ONCE as usize) {
                let pages = first..EVENTS.min(first + AT_ONCE);
                log.tracer.emit_all(black_box(pages).map(event).collect::<Vec<_>>().into_iter());
            }
            log
        };
        bencher.iter_batched(|| Log::new(EVENTS), written, BatchSize::PerIteration);
    });
    group.bench_function("on, two writers", |bencher| {
        let written = |log: Log| {
            std::thread::scope(|scope| {
                scope.spawn(|| emit_all(&log.tracer));
                emit_all(&log.tracer);
            });
            log
        };
        bencher.iter_batched(|| Log::new(2 * EVENTS), written, BatchSize::PerIteration);
    });
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let log = Log::new(EVENTS);
    emit_all(&log.tracer);
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("summary", |bencher| {
        bencher.iter(|| {
            let file = TraceFile::open(&log.path).expect("the log just written");
            black_box(Summary::of(&file).expect("a readable log"))
        });
    });
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = short(); targets = emit, read }
criterion_main!(benches);

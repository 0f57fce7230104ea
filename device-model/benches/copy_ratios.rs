// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How fast the copy engine is beside a plain memcpy of the same pages, and without a trace beside with one.
//!
//! The two are measured in turn, one copy each, and the figure is their ratio: what else the machine does meanwhile slows down
//! both. Where the memory of each happens to lie makes more of a difference than a trace does, so every sample has new memory.

#![allow(missing_docs, reason = "criterion_group! makes public functions")]

mod ratio;

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use ersatz_device_model::GpuConfig;
use ersatz_device_model::clock::HostClock;
use ersatz_device_model::trace::{Identity, TraceOptions, Tracer};

use ersatz_device_testing::pages::{BATCH, Engine, KINDS, Pages, Plain, VRAM};
use ratio::Ratio;

/// Copies of each kind in one sample at most: as many as the trace has room for.
const MOST_COPIES: u64 = 256;

/// The engine's speed as a share of memcpy's.
fn beside_memcpy(criterion: &mut Criterion<Ratio>) {
    let mut group = criterion.benchmark_group("engine's speed beside memcpy's");
    group.sampling_mode(SamplingMode::Flat);
    for (pages, direction) in KINDS {
        group.bench_function(format!("{}, {}", pages.name, direction.name()), |bencher| {
            bencher.iter_custom(|pairs| {
                let plain = Plain::new(pages, direction);
                let mut engine = Engine::new(GpuConfig::new(VRAM), pages, direction);
                ratio::of(pairs, || plain.copy(), || engine.copy())
            });
        });
    }
    group.finish();
}

/// The time of a copy with a trace, which gets a record a page, in times without one.
fn tracing(criterion: &mut Criterion<Ratio>) {
    let mut group = criterion.benchmark_group("traced copy's time beside untraced one's");
    group.sampling_mode(SamplingMode::Flat);
    for (pages, direction) in KINDS {
        group.bench_function(format!("{}, {}", pages.name, direction.name()), |bencher| {
            bencher.iter_custom(|pairs| {
                assert!(pairs <= MOST_COPIES, "room in the trace");
                let folder = tempfile::tempdir().expect("a temporary folder");
                let mut off = Engine::new(GpuConfig::new(VRAM), pages, direction);
                let mut on = Engine::new(traced(folder.path(), pages), pages, direction);
                ratio::of(pairs, || on.copy(), || off.copy())
            });
        });
    }
    group.finish();
}

fn traced(folder: &std::path::Path, pages: Pages) -> GpuConfig {
    // Beside its records a copy makes those of its command, fence and interrupt.
    let capacity = (MOST_COPIES + 1) * (BATCH / pages.size + 64);
    let options = TraceOptions { identity: Identity::default(), capacity };
    let mut config = GpuConfig::new(VRAM);
    config.tracer =
        Tracer::create(&folder.join("log"), &options, Arc::new(HostClock::new())).expect("a log in a temporary folder");
    config
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(Ratio).sample_size(60).measurement_time(Duration::from_secs(12));
    targets = beside_memcpy, tracing
}
criterion_main!(benches);

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a translation costs an engine, its lock included: out of the TLB and by a walk, for each size of pages, with
//! little VRAM and with much; and how long an invalidation takes from the request to its acknowledgement.

#![allow(missing_docs, reason = "criterion_group! makes public functions")]

use std::hint::black_box;
use std::sync::Arc;
use std::thread;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ersatz_abi::counter::Counter;
use ersatz_abi::fault::AccessKind;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{AddressSpaceControl, Invalidation, Page, PageSize, TABLE_BYTES};
use ersatz_device_model::clock::HostClock;
use ersatz_device_model::counters::Counters;
use ersatz_device_model::dma::{DmaSpace, MappedSpace};
use ersatz_device_model::mmu::Mmu;
use ersatz_device_model::mmu::memory::{DeviceTables, TableMemory};
use ersatz_device_model::trace::Tracer;
use ersatz_device_model::vram::Vram;
use vm_memory::Bytes;

use ersatz_device_testing::page_tables::PageTables;

/// Translations an iteration.
const TRANSLATIONS: u64 = 4096;
/// Pages of any size that a TLB can hold.
const FEW: u64 = 128;
/// Pages that have all left the TLB when it is their turn again, whatever their size.
const MANY: u64 = TRANSLATIONS;
/// Enough tables for those.
const TABLES: u64 = 256;
/// Where the pages are mapped.
const BASE: u64 = 0x7f00_0000_0000;

/// Maps `count` pages of a size, spread over all of VRAM, by tables that are spread over it, too.
fn map(vram: &Vram, mmu: &Mmu, size: PageSize, count: u64) {
    // The first half has pages, the second one tables.
    let half = vram.size() / 2;
    let mut table = 0;
    let mut tables = PageTables::new(false, || {
        let place = half + table * (half / TABLES);
        table += 1;
        assert!(table <= TABLES && place % TABLE_BYTES == 0, "no room for another table");
        Location::vram(place)
    });
    let mut store = |at: Location, value: u64| {
        vram.slice(at.address, 8).expect("VRAM").write_obj(value, 0).expect("an entry");
    };
    let places = half / size.bytes();
    for number in 0..count {
        // An odd stride reaches every place before one comes again.
        let place = number * ((places / count) | 1) % places * size.bytes();
        let page = Page { location: Location::vram(place), size, write: true, atomic: true };
        tables.map(BASE + number * size.bytes(), page, &mut store);
    }
    assert!(mmu.spaces.set_root(1, |_| tables.root().0));
    assert!(mmu.set_control(1, AddressSpaceControl(0).with_enable(true).0));
}

fn translate(mmu: &Mmu, memory: &impl TableMemory, size: PageSize, count: u64) {
    for number in 0..TRANSLATIONS {
        let address = BASE + number % count * size.bytes();
        let mut unit = mmu.lock(0);
        black_box(unit.translate(memory, 1, black_box(address), AccessKind::Read)).expect("a page");
    }
}

fn translations(criterion: &mut Criterion) {
    let system = MappedSpace::new();
    let session = system.open();
    for (vram_name, vram_size) in [("256 MiB", 256 << 20), ("1 TiB", 1 << 40)] {
        let vram = Vram::new(vram_size).expect("VRAM");
        let memory = DeviceTables { vram: &vram, system: &*session, has_peer: |_| false };
        let mut group = criterion.benchmark_group(format!("translations, VRAM {vram_name}"));
        group.throughput(Throughput::Elements(TRANSLATIONS));
        for &size in PageSize::ALL {
            for (kind, count) in [("hit", FEW), ("miss", MANY)] {
                let counters = Arc::new(Counters::new());
                let mmu = Mmu::new(1, counters.clone(), Tracer::disabled());
                map(&vram, &mmu, size, count);
                translate(&mmu, &memory, size, count);
                let before = counters.get(Counter::TlbMisses);
                translate(&mmu, &memory, size, count);
                let misses = counters.get(Counter::TlbMisses) - before;
                assert_eq!(misses, if kind == "miss" { TRANSLATIONS } else { 0 }, "{kind}, {}", size.name());
                group.bench_function(format!("{kind}, {}", size.name()), |bencher| {
                    bencher.iter(|| translate(&mmu, &memory, size, count));
                });
            }
        }
        group.finish();
    }
}

/// The thread of the device, with two engines that sleep.
fn invalidations(criterion: &mut Criterion) {
    let mmu = Mmu::new(2, Arc::default(), Tracer::disabled());
    let mut group = criterion.benchmark_group("invalidation");
    group.throughput(Throughput::Elements(1));
    thread::scope(|scope| {
        scope.spawn(|| mmu.run(&HostClock::new(), || ()));
        group.bench_function("a page, acknowledged", |bencher| {
            bencher.iter(|| {
                let number = mmu.request(Invalidation::Range { asid: 1, address: BASE, length: 4096 }, None);
                while mmu.acknowledged() < number {
                    thread::yield_now();
                }
            });
        });
        mmu.leave();
    });
    group.finish();
}

criterion_group!(benches, translations, invalidations);
criterion_main!(benches);

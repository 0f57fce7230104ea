// SPDX-License-Identifier: GPL-2.0
//! Where the time of migrations goes: sums since the device was bound, shown in `/sys/kernel/debug/ersatzN/stats`.
//!
//! The names are those of the xe driver's statistics where it has the same, so that figures compare: `svm_SIZE_WHAT`, for pieces of up to
//! 4 KiB, 64 KiB and 2 MiB. `device_copy` is copying to the device, `cpu_copy` back from it. The steps are those of a migration, for pieces of
//! all sizes; copying is waited for, so what overlaps with other steps is not in `svm_copy_us`. `device_pagefault` are faults of the device: moving
//! memory to where the process wants it, finding and mapping it for the device, and the replays.

use crate::zone_device::folio::Side;
use kernel::{
    fmt,
    page::PAGE_SIZE,
    sync::atomic::{ordering, Atomic},
    time::{Delta, Instant, Monotonic},
};

/// The largest number of pages of a piece of each size, and its name.
const SIZES: [(usize, &str); 3] = [(1, "4K"), (16, "64K"), (usize::MAX, "2M")];

/// The sums.
pub(crate) struct Statistics {
    sizes: [SizeStatistics; SIZES.len()],
    collect_ns: Atomic<u64>,
    allocate_ns: Atomic<u64>,
    map_ns: Atomic<u64>,
    copy_ns: Atomic<u64>,
    commit_ns: Atomic<u64>,
    finalize_ns: Atomic<u64>,
    device_faults: DeviceFaultStatistics,
}

/// The sums of faults of the device.
struct DeviceFaultStatistics {
    count: Atomic<u64>,
    migrate_ns: Atomic<u64>,
    bind_ns: Atomic<u64>,
    replay_ns: Atomic<u64>,
}

/// The sums of pieces of one size.
struct SizeStatistics {
    migrate_count: Atomic<u64>,
    migrate_ns: Atomic<u64>,
    device_copy_ns: Atomic<u64>,
    device_copy_bytes: Atomic<u64>,
    cpu_copy_ns: Atomic<u64>,
    cpu_copy_bytes: Atomic<u64>,
    pagefault_count: Atomic<u64>,
    pagefault_ns: Atomic<u64>,
}

/// How long the steps of one piece's migration took.
pub(crate) struct PieceTimes {
    /// Isolating the pages.
    pub(crate) collect: Delta,
    /// Allocating destinations, which the kernel may clear.
    pub(crate) allocate: Delta,
    /// Mapping for DMA, and submitting the work.
    pub(crate) map: Delta,
    /// Waiting for the device.
    pub(crate) copy: Delta,
    /// Putting the destinations in the place of the sources.
    pub(crate) commit: Delta,
    /// Making them visible.
    pub(crate) finalize: Delta,
}

/// A stopwatch for consecutive steps.
pub(crate) struct Stopwatch(Instant<Monotonic>);

impl Stopwatch {
    /// Starts.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start, or since the last lap.
    pub(crate) fn lap(&mut self) -> Delta {
        let now = Instant::now();
        let lap = now - self.0;
        self.0 = now;
        lap
    }
}

fn add(sum: &Atomic<u64>, time: Delta) {
    sum.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(0), ordering::Relaxed);
}

impl Statistics {
    /// All zero.
    pub(crate) fn new() -> Self {
        Self {
            sizes: [const { SizeStatistics::new() }; SIZES.len()],
            collect_ns: Atomic::new(0),
            allocate_ns: Atomic::new(0),
            map_ns: Atomic::new(0),
            copy_ns: Atomic::new(0),
            commit_ns: Atomic::new(0),
            finalize_ns: Atomic::new(0),
            device_faults: DeviceFaultStatistics {
                count: Atomic::new(0),
                migrate_ns: Atomic::new(0),
                bind_ns: Atomic::new(0),
                replay_ns: Atomic::new(0),
            },
        }
    }

    fn of_size(&self, pages: usize) -> &SizeStatistics {
        let fitting = SIZES.iter().zip(&self.sizes).find(|((most, _), _)| pages <= *most);
        fitting.map_or(&self.sizes[SIZES.len() - 1], |(_, statistics)| statistics)
    }

    /// Adds a piece of `pages` pages that came from side `from`, of which `moved` moved.
    pub(crate) fn add_piece(&self, pages: usize, moved: usize, from: Side, times: &PieceTimes) {
        let size = self.of_size(pages);
        let bytes = (moved * PAGE_SIZE) as u64;
        let (copy, copied) = match from {
            Side::System => (&size.device_copy_ns, &size.device_copy_bytes),
            Side::Device | Side::StandIn => (&size.cpu_copy_ns, &size.cpu_copy_bytes),
        };
        add(copy, times.copy);
        copied.fetch_add(bytes, ordering::Relaxed);
        size.migrate_count.fetch_add(1, ordering::Relaxed);
        for (sum, time) in [
            (&self.collect_ns, times.collect),
            (&self.allocate_ns, times.allocate),
            (&self.map_ns, times.map),
            (&self.copy_ns, times.copy),
            (&self.commit_ns, times.commit),
            (&self.finalize_ns, times.finalize),
        ] {
            add(sum, time);
            add(&size.migrate_ns, time);
        }
    }

    /// Adds a CPU fault that brought back up to `pages` pages.
    pub(crate) fn add_fault(&self, pages: usize, time: Delta) {
        let size = self.of_size(pages);
        size.pagefault_count.fetch_add(1, ordering::Relaxed);
        add(&size.pagefault_ns, time);
    }

    /// Adds a fault of the device: how long it took to move memory for it, and to find and map what it needs.
    pub(crate) fn add_device_fault(&self, migrate: Delta, bind: Delta) {
        self.device_faults.count.fetch_add(1, ordering::Relaxed);
        add(&self.device_faults.migrate_ns, migrate);
        add(&self.device_faults.bind_ns, bind);
    }

    /// Adds a replay.
    pub(crate) fn add_replay(&self, time: Delta) {
        add(&self.device_faults.replay_ns, time);
    }

    /// Writes a line for each sum: its name, a colon, its value.
    pub(crate) fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NS_PER_US: u64 = 1000;
        let load = |sum: &Atomic<u64>| sum.load(ordering::Relaxed);
        for ((_, name), size) in SIZES.iter().zip(&self.sizes) {
            writeln!(out, "svm_{name}_pagefault_count: {}", load(&size.pagefault_count))?;
            writeln!(out, "svm_{name}_pagefault_us: {}", load(&size.pagefault_ns) / NS_PER_US)?;
            writeln!(out, "svm_{name}_migrate_count: {}", load(&size.migrate_count))?;
            writeln!(out, "svm_{name}_migrate_us: {}", load(&size.migrate_ns) / NS_PER_US)?;
            writeln!(out, "svm_{name}_device_copy_us: {}", load(&size.device_copy_ns) / NS_PER_US)?;
            writeln!(out, "svm_{name}_device_copy_kb: {}", load(&size.device_copy_bytes) >> 10)?;
            writeln!(out, "svm_{name}_cpu_copy_us: {}", load(&size.cpu_copy_ns) / NS_PER_US)?;
            writeln!(out, "svm_{name}_cpu_copy_kb: {}", load(&size.cpu_copy_bytes) >> 10)?;
        }
        writeln!(out, "svm_collect_us: {}", load(&self.collect_ns) / NS_PER_US)?;
        writeln!(out, "svm_allocate_us: {}", load(&self.allocate_ns) / NS_PER_US)?;
        writeln!(out, "svm_map_us: {}", load(&self.map_ns) / NS_PER_US)?;
        writeln!(out, "svm_copy_us: {}", load(&self.copy_ns) / NS_PER_US)?;
        writeln!(out, "svm_commit_us: {}", load(&self.commit_ns) / NS_PER_US)?;
        writeln!(out, "svm_finalize_us: {}", load(&self.finalize_ns) / NS_PER_US)?;
        let faults = &self.device_faults;
        writeln!(out, "svm_device_pagefault_count: {}", load(&faults.count))?;
        writeln!(out, "svm_device_pagefault_migrate_us: {}", load(&faults.migrate_ns) / NS_PER_US)?;
        writeln!(out, "svm_device_pagefault_bind_us: {}", load(&faults.bind_ns) / NS_PER_US)?;
        writeln!(out, "svm_device_pagefault_replay_us: {}", load(&faults.replay_ns) / NS_PER_US)
    }
}

impl SizeStatistics {
    const fn new() -> Self {
        Self {
            migrate_count: Atomic::new(0),
            migrate_ns: Atomic::new(0),
            device_copy_ns: Atomic::new(0),
            device_copy_bytes: Atomic::new(0),
            cpu_copy_ns: Atomic::new(0),
            cpu_copy_bytes: Atomic::new(0),
            pagefault_count: Atomic::new(0),
            pagefault_ns: Atomic::new(0),
        }
    }
}

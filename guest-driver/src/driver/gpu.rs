// SPDX-License-Identifier: GPL-2.0
//! A bound device.

use super::{copy_engine::CopyEngine, registers::Registers, statistics::Statistics, svm::Svm};
use crate::{
    kernel_ext::mm::LockedVma,
    zone_device::pagemap::{BoundMap, PageMap},
};
use core::ops::Range;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{ordering, Atomic},
        Arc, Mutex,
    },
};

/// The device's memory, with its pages, and the device that works on it.
pub(crate) type Vram = PageMap<Gpu>;

/// All that it takes to move pages, CPU faults included: it lives as long as the pages do.
#[pin_data]
pub(crate) struct Gpu {
    pub(crate) registers: Arc<Registers>,
    #[pin]
    pub(crate) engine: CopyEngine,
    pub(crate) faults: FaultCounts,
    pub(crate) statistics: Arc<Statistics>,
    pub(crate) identity: Identity,
    /// What works by virtual addresses, if the device can.
    pub(crate) svm: Option<Arc<Svm>>,
    /// Held while the host's demands for memory are looked at.
    #[pin]
    pub(crate) demands: Mutex<()>,
    /// Whether a test wants a destination of a migration not to be found.
    pub(crate) failing_allocation: FailingAllocation,
}

/// Lets a test have the next allocation fail.
pub(crate) struct FailingAllocation(Atomic<u32>);

impl FailingAllocation {
    /// Says whether the next allocation fails.
    pub(crate) fn set(&self, fails: bool) {
        self.0.store(fails.into(), ordering::Relaxed);
    }

    /// What `allocate` returns, or nothing if this is to fail.
    pub(crate) fn or<T>(&self, allocate: impl FnOnce() -> Option<T>) -> Option<T> {
        if self.0.load(ordering::Relaxed) != 0 && self.0.xchg(0, ordering::Relaxed) != 0 {
            return None;
        }
        allocate()
    }
}

/// What tells one device from another.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    /// The version of the ABI it implements.
    pub(crate) abi_version: u32,
    /// PCI segment (31:16), bus (15:8), device (7:3), function (2:0).
    pub(crate) pci_address: u32,
}

/// Counts of CPU faults on device pages.
pub(crate) struct FaultCounts {
    answered: Atomic<u64>,
    failed: Atomic<u64>,
}

impl FaultCounts {
    /// Counts a fault.
    pub(crate) fn add(&self, result: &Result) {
        let count = if result.is_ok() { &self.answered } else { &self.failed };
        count.fetch_add(1, ordering::Relaxed);
    }

    /// Faults answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(ordering::Relaxed)
    }

    /// Faults that ended in `SIGBUS`.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(ordering::Relaxed)
    }
}

impl Gpu {
    /// Has the device keep its access to what the calling thread has moved, where that is wanted.
    pub(crate) fn follow(&self, map: BoundMap<'_, Self>, vma: LockedVma<'_>, range: Range<usize>) {
        if let Some(svm) = &self.svm {
            svm.lasting.follow(map, vma, range);
        }
    }

    /// A device that has done nothing yet.
    pub(crate) fn new<'a>(
        registers: Arc<Registers>,
        engine: impl PinInit<CopyEngine, Error> + 'a,
        statistics: Arc<Statistics>,
        identity: Identity,
        svm: Option<Arc<Svm>>,
    ) -> impl PinInit<Self, Error> + 'a {
        try_pin_init!(Self {
            registers,
            engine <- engine,
            faults: FaultCounts { answered: Atomic::new(0), failed: Atomic::new(0) },
            statistics,
            identity,
            svm,
            demands <- new_mutex!(()),
            failing_allocation: FailingAllocation(Atomic::new(0)),
        })
    }
}

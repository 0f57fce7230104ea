// SPDX-License-Identifier: GPL-2.0
//! Migrations whose content is being copied, several at a time.

use super::{
    copy_engine::Batch,
    gpu::Gpu,
    statistics::{PieceTimes, Stopwatch},
};
use crate::{
    abi::command::Cause,
    kernel_ext::tracepoints,
    zone_device::{
        migrate::{Filling, Isolated},
        pagemap::BoundMap,
    },
};
use kernel::{prelude::*, time::Delta};

/// Batches of one thread that are under way at once: enough to isolate pages while others are copied on each engine.
const DEPTH: usize = 4;

/// How long it took to make a migration ready.
#[derive(Clone, Copy)]
pub(crate) struct Preparation {
    /// Isolating the pages.
    pub(crate) collect: Delta,
    /// Allocating destinations.
    pub(crate) allocate: Delta,
}

/// A migration under way, and how long its first steps took.
struct InFlight<'a> {
    filling: Filling<'a, Gpu, Batch<'a>>,
    preparation: Preparation,
    map: Delta,
}

impl<'a> InFlight<'a> {
    fn begin(isolated: Isolated<'a, Gpu>, batch: Batch<'a>, preparation: Preparation) -> Result<Self> {
        let mut watch = Stopwatch::start();
        let filling = Filling::begin(isolated, batch)?;
        Ok(Self { filling, preparation, map: watch.lap() })
    }
}

/// Ends a migration. Returns the number of pages that moved, and whether page `watched` did. The work is done again, up to `repeats` times, if
/// it fails.
fn finish(map: BoundMap<'_, Gpu>, in_flight: InFlight<'_>, repeats: u32, watched: usize) -> Result<(usize, bool)> {
    let InFlight { filling, preparation: Preparation { collect, allocate }, map: mapping } = in_flight;
    let (pages, from, id) = (filling.len(), filling.from(), filling.copier().id());
    let mut watch = Stopwatch::start();
    let filled = filling.finish(repeats)?;
    let copy = watch.lap();
    let committed = filled.commit();
    let commit = watch.lap();
    let (moved, watched_moved) = (committed.count(), committed.has_moved(watched));
    drop(committed);
    let times = PieceTimes { collect, allocate, map: mapping, copy, commit, finalize: watch.lap() };
    map.memory().statistics.add_piece(pages, moved, from, &times);
    tracepoints::migrate(map.dev(), id, pages, moved);
    Ok((moved, watched_moved))
}

/// Fills and commits what a CPU fault isolated. Returns whether page `touched` moved.
///
/// # Errors
///
/// `EIO` if the device failed twice; `ENOMEM`.
pub(crate) fn complete_fault<'a>(
    map: BoundMap<'a, Gpu>,
    isolated: Isolated<'a, Gpu>,
    preparation: Preparation,
    touched: usize,
) -> Result<bool> {
    let batch = map.map().memory().engine.batch(Cause::CpuFault);
    let in_flight = InFlight::begin(isolated, batch, preparation)?;
    // The process loses its memory if this fails, and it may have been another's command that went wrong.
    finish(map, in_flight, 1, touched).map(|(_, moved)| moved)
}

/// A thread's migrations under way, in order.
pub(crate) struct Pipeline<'a> {
    map: BoundMap<'a, Gpu>,
    cause: Cause,
    queue: KVec<InFlight<'a>>,
    moved: usize,
    failure: Option<Error>,
}

impl<'a> Pipeline<'a> {
    /// Has nothing under way.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(map: BoundMap<'a, Gpu>, cause: Cause) -> Result<Self> {
        Ok(Self { map, cause, queue: KVec::with_capacity(DEPTH, GFP_KERNEL)?, moved: 0, failure: None })
    }

    /// Begins a migration, and ends the oldest if there are too many. One that fails does not stop the others.
    ///
    /// # Errors
    ///
    /// `EIO` if this one cannot begin; `ENOMEM`.
    pub(crate) fn push(&mut self, isolated: Isolated<'a, Gpu>, preparation: Preparation) -> Result {
        if self.queue.len() == DEPTH {
            self.finish_oldest();
        }
        let engine = &self.map.map().memory().engine;
        let batch = loop {
            // Threads that held batches while they wait for one more could wait for each other.
            if self.queue.is_empty() {
                break engine.batch(self.cause);
            }
            match engine.try_batch(self.cause) {
                Some(batch) => break batch,
                None => self.finish_oldest(),
            }
        };
        let in_flight = InFlight::begin(isolated, batch, preparation)?;
        self.queue.push_within_capacity(in_flight).map_err(|_| EINVAL)
    }

    /// Ends all migrations. Returns the number of pages that moved, and the first failure, `EIO`, if any of them failed.
    pub(crate) fn finish(mut self) -> (usize, Result) {
        while !self.queue.is_empty() {
            self.finish_oldest();
        }
        (self.moved, self.failure.map_or(Ok(()), Err))
    }

    fn finish_oldest(&mut self) {
        let Ok(oldest) = self.queue.remove(0) else { return };
        match finish(self.map, oldest, 0, 0) {
            Ok((moved, _)) => self.moved += moved,
            Err(error) => _ = self.failure.get_or_insert(error),
        }
    }
}

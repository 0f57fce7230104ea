// SPDX-License-Identifier: GPL-2.0
//! Migrations whose content is being copied, several at a time.

use super::{
    copy_engine::{Batch, CopyEngine},
    gpu::Gpu,
};
use crate::{
    abi::command::Cause,
    zone_device::migrate::{Committed, Isolated, Mapped},
};
use kernel::prelude::*;

/// Batches of one thread that are under way at once: enough to isolate pages while others are copied on each engine.
const DEPTH: usize = 4;

/// A migration that the device is filling.
pub(crate) struct InFlight<'a> {
    // Dropped first, which waits: the device must be done with the pages before they are let go.
    batch: Batch<'a>,
    mapped: Mapped<'a, Gpu>,
}

impl<'a> InFlight<'a> {
    /// Makes the device begin to fill the destinations.
    ///
    /// # Errors
    ///
    /// `EIO` if the device failed; `ENOMEM`. Every folio goes back to where it was.
    pub(crate) fn begin(isolated: Isolated<'a, Gpu>, mut batch: Batch<'a>) -> Result<Self> {
        let mapped = isolated.map(|transfer| batch.add(transfer))?;
        let mut in_flight = Self { batch, mapped };
        in_flight.batch.submit()?;
        Ok(in_flight)
    }

    /// Waits until the destinations are filled, and puts them in the place of their sources.
    ///
    /// # Errors
    ///
    /// `EIO` if the device failed. Every folio goes back to where it was.
    pub(crate) fn finish(mut self) -> Result<Committed<'a>> {
        self.batch.wait()?;
        Ok(self.into_committed())
    }

    /// As [`InFlight::finish`], and does the work a second time if it fails: it may have been another's command that went wrong.
    ///
    /// # Errors
    ///
    /// As for [`InFlight::finish`].
    pub(crate) fn finish_or_repeat(mut self) -> Result<Committed<'a>> {
        if self.batch.wait().is_err() {
            self.batch.run()?;
        }
        Ok(self.into_committed())
    }

    fn into_committed(self) -> Committed<'a> {
        let Self { batch, mapped } = self;
        drop(batch);
        mapped.filled().commit()
    }
}

/// A thread's migrations under way, in order.
pub(crate) struct Pipeline<'a> {
    engine: &'a CopyEngine,
    cause: Cause,
    queue: KVec<InFlight<'a>>,
    moved: usize,
}

impl<'a> Pipeline<'a> {
    /// Has nothing under way.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(engine: &'a CopyEngine, cause: Cause) -> Result<Self> {
        Ok(Self { engine, cause, queue: KVec::with_capacity(DEPTH, GFP_KERNEL)?, moved: 0 })
    }

    /// Begins a migration, and ends the oldest if there are too many.
    ///
    /// # Errors
    ///
    /// `EIO` if the device failed; `ENOMEM`.
    pub(crate) fn push(&mut self, isolated: Isolated<'a, Gpu>) -> Result {
        if self.queue.len() == DEPTH {
            self.finish_oldest()?;
        }
        let batch = loop {
            // Threads that held batches while they wait for one more could wait for each other.
            if self.queue.is_empty() {
                break self.engine.batch(self.cause);
            }
            match self.engine.try_batch(self.cause) {
                Some(batch) => break batch,
                None => self.finish_oldest()?,
            }
        };
        let in_flight = InFlight::begin(isolated, batch)?;
        self.queue.push_within_capacity(in_flight).map_err(|_| EINVAL)
    }

    /// Ends all migrations. Returns the number of pages that moved.
    ///
    /// # Errors
    ///
    /// `EIO` if the device failed.
    pub(crate) fn finish(mut self) -> Result<usize> {
        while !self.queue.is_empty() {
            self.finish_oldest()?;
        }
        Ok(self.moved)
    }

    fn finish_oldest(&mut self) -> Result {
        let oldest = self.queue.remove(0).map_err(|_| EINVAL)?;
        self.moved += oldest.finish()?.count();
        Ok(())
    }
}

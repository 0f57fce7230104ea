// SPDX-License-Identifier: GPL-2.0
//! Migrations whose content is being copied, several at a time.

use super::{
    copy_engine::{Batch, CopyEngine},
    gpu::Gpu,
};
use crate::{
    abi::command::Cause,
    zone_device::migrate::{Filling, Isolated},
};
use kernel::prelude::*;

/// Batches of one thread that are under way at once: enough to isolate pages while others are copied on each engine.
const DEPTH: usize = 4;

/// A thread's migrations under way, in order.
pub(crate) struct Pipeline<'a> {
    engine: &'a CopyEngine,
    cause: Cause,
    queue: KVec<Filling<'a, Gpu, Batch<'a>>>,
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
        self.queue.push_within_capacity(isolated.fill(batch)?).map_err(|_| EINVAL)
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
        self.moved += oldest.finish(0)?.commit().count();
        Ok(())
    }
}

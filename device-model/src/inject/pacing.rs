// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The injector's timing: set by those who want work to take longer, and asked for by engines.

use std::sync::atomic::Ordering;

use super::injector::Injector;
use super::timing::{Pace, Piece, Timing};

impl Injector {
    /// Makes work take as long as this says, from now on; [`Timing::default`] makes it as fast as the host again.
    pub fn set_timing(&self, timing: Timing) {
        let mut state = self.lock();
        state.pace = Pace::new(timing);
        self.is_paced.store(timing != Timing::default(), Ordering::Relaxed);
        self.announce(&mut state);
    }

    /// How long work takes.
    pub fn timing(&self) -> Timing {
        self.lock().pace.timing
    }

    /// Whether work takes longer than the host takes for it: one load.
    #[inline]
    pub(crate) fn is_paced(&self) -> bool {
        self.is_paced.load(Ordering::Relaxed)
    }

    /// An engine has done a piece of work, which it began at `began`. Returns when it is done by the timing, in nanoseconds, if that
    /// is later than now.
    pub(crate) fn done_at(&self, engine: u8, piece: Piece, began: u64) -> Option<u64> {
        let done = self.lock().pace.done_at(engine, piece, began);
        Some(done).filter(|done| *done > self.now())
    }
}

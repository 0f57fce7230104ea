// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's clock, and how threads wait for a time of it.

mod condvar;
mod manual;

use std::sync::Weak;
use std::time::{Duration, Instant};

pub(crate) use condvar::Condvar;
pub use manual::ManualClock;

/// A monotonic clock.
///
/// A thread that waits for a time of it sleeps for as long as [`Self::time_until`] returns. If that is `None`, it sleeps until
/// it is woken: a clock that is set notifies its observers ([`Self::observe`]), which wake their threads.
pub trait Clock: Send + Sync {
    /// Nanoseconds since some fixed moment.
    fn now(&self) -> u64;

    /// How long it takes until the clock reads `deadline`: zero if it does by now, `None` if the clock does not run by itself.
    fn time_until(&self, deadline: u64) -> Option<Duration> {
        Some(Duration::from_nanos(deadline.saturating_sub(self.now())))
    }

    /// Registers an observer, which is called each time that the clock was set. A clock that runs by itself is never set.
    fn observe(&self, observer: Weak<dyn ClockObserver>) {
        drop(observer);
    }
}

/// An observer of a clock that does not run by itself.
pub trait ClockObserver: Send + Sync {
    /// Called after the clock was set. Wakes all threads that wait for a time, to look at it again.
    fn clock_was_set(&self);
}

/// The host's monotonic clock, counted from when this was made.
#[derive(Clone, Copy, Debug)]
pub struct HostClock(Instant);

impl HostClock {
    /// Starts at zero.
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for HostClock {
    fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

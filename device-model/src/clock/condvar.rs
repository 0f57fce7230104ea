// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Waiting to be notified, or for a time of the device's clock.

use std::sync::{MutexGuard, PoisonError};

use super::Clock;

/// A condition variable for a [`Mutex`](crate::sync::Mutex), whose waits can end at a time of a clock.
#[derive(Debug, Default)]
pub(crate) struct Condvar(std::sync::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(std::sync::Condvar::new())
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits until it is notified, or until `clock` reads `deadline`; may return earlier. After a clock that does not run by
    /// itself was set, a waiting thread wakes only if it is notified: [`ClockObserver::clock_was_set`](super::ClockObserver)
    /// takes the lock and notifies.
    pub(crate) fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        clock: &dyn Clock,
        deadline: Option<u64>,
    ) -> MutexGuard<'a, T> {
        match deadline.and_then(|deadline| clock.time_until(deadline)) {
            Some(duration) => self.0.wait_timeout(guard, duration).unwrap_or_else(PoisonError::into_inner).0,
            None => self.0.wait(guard).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

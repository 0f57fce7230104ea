// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A clock that stands still until it is set, for tests and measurements.

use std::fmt;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Clock, ClockObserver};
use crate::sync::Mutex;

/// A clock that is set by hand. Setting it wakes all threads that wait for a time of it.
///
/// ```
/// use std::time::Duration;
///
/// use ersatz_device_model::clock::{Clock, ManualClock};
///
/// let clock = ManualClock::new();
/// clock.advance(Duration::from_micros(3));
/// clock.advance_to(2_000);
/// assert_eq!(clock.now(), 3_000, "it never goes back");
/// ```
#[derive(Default)]
pub struct ManualClock {
    now: AtomicU64,
    observers: Mutex<Vec<Weak<dyn ClockObserver>>>,
}

impl ManualClock {
    /// Stands at zero.
    pub const fn new() -> Self {
        Self { now: AtomicU64::new(0), observers: Mutex::new(Vec::new()) }
    }

    /// Sets the clock to a later time.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.set(|now| now.saturating_add(by));
    }

    /// Sets the clock to a time in nanoseconds; a time that is past changes nothing.
    pub fn advance_to(&self, time: u64) {
        self.set(|now| now.max(time));
    }

    fn set(&self, change: impl Fn(u64) -> u64) {
        // A thread that is woken below, or that looks afterwards, sees the time and what was done before the clock was set.
        let (Ok(_) | Err(_)) = self.now.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| Some(change(now)));
        // Called without the lock: an observer takes locks of its own.
        let observers: Vec<_> = {
            let mut observers = self.observers.lock();
            observers.retain(|observer| observer.strong_count() > 0);
            observers.iter().filter_map(Weak::upgrade).collect()
        };
        observers.iter().for_each(|observer| observer.clock_was_set());
    }
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        self.now.load(Ordering::Acquire)
    }

    fn time_until(&self, deadline: u64) -> Option<Duration> {
        (self.now() >= deadline).then_some(Duration::ZERO)
    }

    fn observe(&self, observer: Weak<dyn ClockObserver>) {
        self.observers.lock().push(observer);
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ManualClock").field("now", &self.now()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU64);

    impl ClockObserver for Count {
        fn clock_was_set(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn stands_still_until_it_is_set() {
        let clock = ManualClock::new();
        assert_eq!((clock.now(), clock.time_until(0), clock.time_until(1)), (0, Some(Duration::ZERO), None));
        clock.advance(Duration::from_nanos(5));
        assert_eq!((clock.now(), clock.time_until(5), clock.time_until(6)), (5, Some(Duration::ZERO), None));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), u64::MAX);
    }

    #[test]
    fn wakes_observers_that_are_still_there() {
        let clock = ManualClock::new();
        let observers: [Arc<Count>; 2] = Default::default();
        for observer in &observers {
            let observer: Arc<dyn ClockObserver> = observer.clone();
            clock.observe(Arc::downgrade(&observer));
        }
        clock.advance_to(7);
        let [first, second] = observers;
        drop(second);
        clock.advance_to(8);
        assert_eq!(first.0.load(Ordering::Relaxed), 2);
        assert_eq!(clock.observers.lock().len(), 1);
    }
}

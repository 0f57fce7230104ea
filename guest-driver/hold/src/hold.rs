// SPDX-License-Identifier: GPL-2.0
//! One hold: from being armed to its end.
//!
//! ```text
//! Inactive -> Armed -> Held -> Resumed | Expired
//!                   -> Cancelled
//! ```

use crate::{
    arrival::Arrival,
    filter::Filter,
    probe::{Entry, Handler},
    task,
    uapi::hold as uapi,
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{ordering, Atomic},
        Arc,
    },
    time::{msecs_to_jiffies, NSEC_PER_MSEC},
};

const ARMED: u32 = uapi::State::Armed as u32;
const HELD: u32 = uapi::State::Held as u32;
const RESUMED: u32 = uapi::State::Resumed as u32;
const EXPIRED: u32 = uapi::State::Expired as u32;
const CANCELLED: u32 = uapi::State::Cancelled as u32;
/// Before it is armed. User space never sees it.
const INACTIVE: u32 = u32::MAX;

/// A hold.
#[pin_data]
pub(crate) struct Hold {
    filter: Filter,
    nth: u64,
    deadline_ms: u32,
    /// One of the states above. The task goes on when it changes from held.
    state: Atomic<u32>,
    hits: Atomic<u64>,
    unholdable: Atomic<u64>,
    held_at_ns: Atomic<u64>,
    released_at_ns: Atomic<u64>,
    task: Atomic<u32>,
    #[pin]
    arrival: Arrival,
}

impl Hold {
    /// Creates the hold of a request, which holds nothing before [`Hold::arm`].
    ///
    /// # Errors
    ///
    /// As [`Filter::of`]; `EINVAL` for a deadline or a number of entry out of range; `ENOMEM`.
    pub(crate) fn new(request: &uapi::Arm) -> Result<Arc<Self>> {
        if request.nth == 0 || !(1..=uapi::MAX_DEADLINE_MS).contains(&request.deadline_ms) {
            return Err(EINVAL);
        }
        let filter = Filter::of(request)?;
        let hold = pin_init!(Self {
            filter,
            nth: u64::from(request.nth),
            deadline_ms: request.deadline_ms,
            state: Atomic::new(INACTIVE),
            hits: Atomic::new(0),
            unholdable: Atomic::new(0),
            held_at_ns: Atomic::new(0),
            released_at_ns: Atomic::new(0),
            task: Atomic::new(0),
            arrival <- Arrival::new(),
        });
        Arc::pin_init(hold, GFP_KERNEL)
    }

    /// Lets it hold a task from now on.
    pub(crate) fn arm(&self) {
        self.pass(INACTIVE, ARMED);
    }

    /// Waits until it is no longer armed, and returns the state.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT`; `EINTR` if a signal came first.
    pub(crate) fn wait(&self, timeout_ms: u32) -> Result<u32> {
        self.arrival.wait(msecs_to_jiffies(timeout_ms), || {
            let state = self.state.load(ordering::Acquire);
            (state != ARMED).then_some(state)
        })
    }

    /// Resumes the task that is held.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if no task is held.
    pub(crate) fn resume(&self) -> Result {
        if self.pass(HELD, RESUMED) {
            Ok(())
        } else {
            Err(EAGAIN)
        }
    }

    /// Ends the hold, whatever state it is in.
    pub(crate) fn cancel(&self) {
        if self.pass(INACTIVE, CANCELLED) || self.pass(ARMED, CANCELLED) {
            self.arrival.announce();
        } else {
            self.pass(HELD, RESUMED);
        }
    }

    /// Whether it neither holds a task nor will hold one.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state.load(ordering::Acquire), RESUMED | EXPIRED | CANCELLED)
    }

    /// Describes what has become of it.
    pub(crate) fn describe(&self, query: &mut uapi::Query) {
        // First: what is read afterwards is at least as new.
        query.state = self.state.load(ordering::Acquire);
        // Entries on several CPUs at once can be counted past the one that is held.
        query.hits = self.hits.load(ordering::Relaxed).min(self.nth);
        query.unholdable = self.unholdable.load(ordering::Relaxed);
        let was_held = matches!(query.state, HELD | RESUMED | EXPIRED);
        let if_held = |value| if was_held { value } else { 0 };
        query.held_at_ns = if_held(self.held_at_ns.load(ordering::Relaxed));
        query.released_at_ns = if_held(self.released_at_ns.load(ordering::Relaxed));
        query.task = if was_held { self.task.load(ordering::Relaxed) } else { 0 };
    }

    /// How long it and another hold at the same function can keep one task, in milliseconds beyond what the other one can alone.
    pub(crate) fn adds_ms(&self, other: &Self) -> u32 {
        if self.has_ended() || !self.filter.may_share_task(&other.filter) {
            0
        } else {
            self.deadline_ms
        }
    }

    /// Changes the state from one to another; returns whether it was the first.
    fn pass(&self, from: u32, to: u32) -> bool {
        self.state.cmpxchg(from, to, ordering::Full).is_ok()
    }

    /// Spins until the state is another one than `HELD`, at the latest at the deadline.
    fn spin(&self, begin_ns: u64) {
        let end_ns = begin_ns.saturating_add(u64::from(self.deadline_ms) * NSEC_PER_MSEC as u64);
        while self.state.load(ordering::Acquire) == HELD {
            if now_ns() >= end_ns {
                self.pass(HELD, EXPIRED);
            }
            core::hint::spin_loop();
        }
        self.released_at_ns.store(now_ns(), ordering::Relaxed);
    }
}

impl Handler for Arc<Hold> {
    fn entered(&self, entry: &Entry<'_>) {
        if self.state.load(ordering::Acquire) != ARMED || !self.filter.matches(entry) {
            return;
        }
        if !entry.is_holdable() {
            self.unholdable.fetch_add(1, ordering::Relaxed);
            return;
        }
        if self.hits.fetch_add(1, ordering::Relaxed).wrapping_add(1) != self.nth {
            return;
        }
        // Only one entry is the nth, so nothing else writes these.
        let begin_ns = now_ns();
        self.held_at_ns.store(begin_ns, ordering::Relaxed);
        self.task.store(task::current_thread(), ordering::Relaxed);
        if self.pass(ARMED, HELD) {
            self.arrival.announce();
            self.spin(begin_ns);
        }
    }
}

/// The time of `CLOCK_MONOTONIC`, in nanoseconds. Callable from any context.
fn now_ns() -> u64 {
    // SAFETY: There are no requirements.
    unsafe { crate::bindings::ktime_get_mono_fast_ns() }
}

// SPDX-License-Identifier: GPL-2.0
//! A count of threads that use something, which can be closed: then nobody enters any more, and the last to leave is waited for.

use crate::kernel_ext::wait::WaitQueue;
use kernel::{
    prelude::*,
    sync::atomic::{ordering, Atomic},
};

/// Set in `state` while closed; the other bits count users.
const CLOSED: i64 = 1 << 62;
/// How long to sleep before looking again, in case of a missed wake-up.
const LOOK_MS: u32 = 1000;

/// The count, closed in the beginning.
#[pin_data]
pub(super) struct Users {
    state: Atomic<i64>,
    #[pin]
    left: WaitQueue,
}

/// A user.
///
/// # Invariants
///
/// It is counted, so [`Users::close`] has not returned since it entered.
pub(super) struct UsersGuard<'a> {
    users: &'a Users,
}

impl Users {
    /// A count that nobody can enter yet.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self { state: Atomic::new(CLOSED), left <- WaitQueue::new() })
    }

    /// Lets users in.
    pub(super) fn open(&self) {
        self.state.fetch_sub(CLOSED, ordering::Release);
    }

    /// Counts the caller as a user; `None` if the count is closed.
    pub(super) fn enter(&self) -> Option<UsersGuard<'_>> {
        let mut state = self.state.load(ordering::Relaxed);
        while state & CLOSED == 0 {
            match self.state.cmpxchg(state, state + 1, ordering::Acquire) {
                Ok(_) => return Some(UsersGuard { users: self }),
                Err(now) => state = now,
            }
        }
        None
    }

    /// Keeps further users out and waits until all have left. Sleeps. To be called once after [`Users::open`].
    pub(super) fn close(&self) {
        self.state.fetch_add(CLOSED, ordering::Relaxed);
        let is_empty = || (self.state.load(ordering::Acquire) == CLOSED).then_some(());
        while self.left.wait_timeout(kernel::time::msecs_to_jiffies(LOOK_MS), is_empty).is_none() {}
    }
}

impl Drop for UsersGuard<'_> {
    fn drop(&mut self) {
        if self.users.state.fetch_sub(1, ordering::Release) == CLOSED + 1 {
            self.users.left.wake_all();
        }
    }
}

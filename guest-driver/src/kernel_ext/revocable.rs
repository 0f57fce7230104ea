// SPDX-License-Identifier: GPL-2.0
//! Revocable access to the data of a bound device, for users that sleep.
//!
//! A file may stay open for long after its device is gone. Each of its calls takes a guard, which keeps unbinding waiting,
//! or finds that access was revoked. (The `kernel` crate's `Revocable` guards by RCU, under which nobody may sleep.)

use core::{cell::UnsafeCell, ops::Deref, ptr::NonNull};
use kernel::{
    device::{Bound, Device},
    devres, new_condvar, new_mutex,
    prelude::*,
    sync::{Arc, CondVar, Mutex},
};

/// Data of type `T` that can be accessed until its device is unbound.
///
/// # Invariants
///
/// `data` is `Some` while `state.guards` is not zero or `state.phase` is [`Phase::Available`]. It is borrowed only by guards
/// that are counted and by the thread that has set [`Phase::Revoking`].
#[pin_data]
pub(crate) struct SleepableRevocable<T> {
    #[pin]
    state: Mutex<State>,
    /// Notified when the last guard goes and when revocation ends.
    #[pin]
    changed: CondVar,
    data: UnsafeCell<Option<T>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Available,
    Revoking,
    Revoked,
}

struct State {
    phase: Phase,
    guards: usize,
}

// SAFETY: `data` may be dropped by any thread, as `T` is `Send`; all else is `Send`.
unsafe impl<T: Send> Send for SleepableRevocable<T> {}
// SAFETY: Guards give out shared references to `T`, which is `Sync`, and any thread may revoke, as `T` is `Send`; what they
// agree on is behind a lock.
unsafe impl<T: Send + Sync> Sync for SleepableRevocable<T> {}

/// Revokes access when the device is unbound, unless that was done before.
struct RevokeOnUnbind<T: Send + Sync + 'static>(Arc<SleepableRevocable<T>>);

impl<T: Send + Sync + 'static> Drop for RevokeOnUnbind<T> {
    fn drop(&mut self) {
        self.0.revoke_with(|_| ());
    }
}

impl<T: Send + Sync + 'static> SleepableRevocable<T> {
    /// Makes `data` accessible until `dev` is unbound or [`SleepableRevocable::revoke_with`] is called. `data` is dropped then:
    /// before all device-managed resources that were registered before this call are released.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(dev: &Device<Bound>, data: T) -> Result<Arc<Self>> {
        let revocable = Arc::pin_init(
            pin_init!(Self {
                state <- new_mutex!(State { phase: Phase::Available, guards: 0 }, "ersatz_revocable"),
                changed <- new_condvar!("ersatz_revocable_changed"),
                data: UnsafeCell::new(Some(data)),
            }),
            GFP_KERNEL,
        )?;
        devres::register(dev, RevokeOnUnbind(revocable.clone()), GFP_KERNEL)?;
        Ok(revocable)
    }

    /// Returns access to the data, or `None` if it was revoked. Waits for nothing but a lock; the guard may be held while
    /// sleeping.
    pub(crate) fn try_access(&self) -> Option<RevocableGuard<'_, T>> {
        let mut state = self.state.lock();
        if state.phase != Phase::Available {
            return None;
        }
        // SAFETY: By the type invariants nobody borrows the data exclusively.
        let data = NonNull::from(unsafe { &*self.data.get() }.as_ref()?);
        // INVARIANT: The guard is counted before the lock is released, so before anybody can revoke.
        state.guards += 1;
        Some(RevocableGuard { revocable: self, data })
    }

    /// Revokes access: no more guards are given out, and when the last one has gone, `last` is called with the data, which is
    /// dropped thereafter. Returns `None`, and calls nothing, if access was revoked before; the data has been dropped then, too.
    ///
    /// Sleeps until all guards have gone. `last` must not revoke, and the caller must not hold a guard.
    pub(crate) fn revoke_with<R>(&self, last: impl FnOnce(&T) -> R) -> Option<R> {
        let mut state = self.state.lock();
        if state.phase != Phase::Available {
            while state.phase != Phase::Revoked {
                self.changed.wait(&mut state);
            }
            return None;
        }
        state.phase = Phase::Revoking;
        while state.guards > 0 {
            self.changed.wait(&mut state);
        }
        drop(state);
        // SAFETY: By the type invariants there are no other borrows: this thread revokes, and there are no guards any more.
        let data = unsafe { &mut *self.data.get() }.take();
        let result = data.as_ref().map(last);
        drop(data);
        self.state.lock().phase = Phase::Revoked;
        self.changed.notify_all();
        result
    }
}

/// Access to the data of a [`SleepableRevocable`].
///
/// # Invariants
///
/// The guard is counted. So `data` points to the data, which stays: revoking waits for the guard.
pub(crate) struct RevocableGuard<'a, T: Send + Sync + 'static> {
    revocable: &'a SleepableRevocable<T>,
    data: NonNull<T>,
}

impl<T: Send + Sync + 'static> Deref for RevocableGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants.
        unsafe { self.data.as_ref() }
    }
}

impl<T: Send + Sync + 'static> Drop for RevocableGuard<'_, T> {
    fn drop(&mut self) {
        let mut state = self.revocable.state.lock();
        state.guards -= 1;
        if state.guards == 0 {
            self.revocable.changed.notify_all();
        }
    }
}

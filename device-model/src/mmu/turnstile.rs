// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A lock for one busy holder and rare others.
//!
//! An engine takes the lock of its TLB for each piece of work and releases it only to take it again: with a plain mutex, another
//! thread could wait for it for as long as the engine has work. Here the others hold a turnstile while they wait, which the
//! engine has to pass before it takes the lock again.

use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sync::{Lock, Mutex};

/// The lock and what it guards.
#[derive(Debug, Default)]
pub(super) struct Turnstile<T> {
    /// How many hold the turnstile, or want to.
    waiting: AtomicU32,
    turnstile: Mutex<()>,
    value: Mutex<T>,
}

impl<T> Turnstile<T> {
    pub(super) const fn new(value: T) -> Self {
        Self { waiting: AtomicU32::new(0), turnstile: Mutex::new(()), value: Mutex::new(value) }
    }

    /// The lock for its busy holder: lets the others in first.
    pub(super) fn enter(&self) -> MutexGuard<'_, T> {
        // A hint: who misses it comes by again soon.
        if self.waiting.load(Ordering::Relaxed) > 0 {
            drop(self.turnstile.lock());
        }
        self.value.lock()
    }
}

impl<T> Lock<T> for Turnstile<T> {
    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let turn = self.turnstile.lock();
        let result = work(&mut self.value.lock());
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        drop(turn);
        result
    }
}

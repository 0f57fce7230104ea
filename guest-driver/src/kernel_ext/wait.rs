// SPDX-License-Identifier: GPL-2.0
//! A wait queue: sleep until a condition holds.

use crate::bindings;
use kernel::{prelude::*, time::Jiffies, types::Opaque};

/// Threads that wait for something that an interrupt handler or another thread makes happen.
#[pin_data]
pub(crate) struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A wait queue may be used from any thread.
unsafe impl Send for WaitQueue {}
// SAFETY: A wait queue has a lock of its own.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// Creates an empty queue.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            head <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes and is pinned.
                unsafe { bindings::ersatz_init_waitqueue_head(slot) }
            }),
        })
    }

    /// Makes all waiting threads check their conditions again. Callable from any context.
    pub(crate) fn wake_all(&self) {
        // SAFETY: The queue is initialised.
        unsafe { bindings::__wake_up(self.head.get(), bindings::TASK_NORMAL, 0, core::ptr::null_mut()) };
    }

    /// Sleeps uninterruptibly until `condition` returns `Some`; it is checked a last time after `timeout`.
    ///
    /// The condition runs with the thread marked as going to sleep, so it must not sleep itself.
    pub(crate) fn wait_timeout<R>(&self, timeout: Jiffies, mut condition: impl FnMut() -> Option<R>) -> Option<R> {
        const STATE: c_int = bindings::TASK_UNINTERRUPTIBLE as c_int;
        let mut remaining = isize::try_from(timeout).unwrap_or(isize::MAX);
        let entry = Opaque::<bindings::wait_queue_entry>::uninit();
        // SAFETY: `entry` is valid for writes; it stays in place until this function returns.
        unsafe { bindings::init_wait(entry.get()) };
        let result = loop {
            // SAFETY: Queue and entry are initialised, and the entry is taken out below before it goes.
            unsafe { bindings::prepare_to_wait(self.head.get(), entry.get(), STATE) };
            let result = condition();
            if result.is_some() || remaining == 0 {
                break result;
            }
            // SAFETY: Sleeping is permitted here; any timeout is.
            remaining = unsafe { bindings::schedule_timeout(remaining) };
        };
        // SAFETY: As for `prepare_to_wait`.
        unsafe { bindings::finish_wait(self.head.get(), entry.get()) };
        result
    }
}

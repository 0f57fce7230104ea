// SPDX-License-Identifier: GPL-2.0
//! Waking threads from a place where no lock can be taken.
//!
//! C header: [`include/linux/irq_work.h`](srctree/include/linux/irq_work.h)

use crate::bindings;
use kernel::{prelude::*, time::Jiffies, types::Opaque};

/// Threads that wait for a probe's handler. The handler raises an interrupt on its own CPU, which wakes them: the kernel may hold locks
/// of its scheduler where the handler runs.
#[pin_data(PinnedDrop)]
pub(crate) struct Arrival {
    #[pin]
    work: Opaque<bindings::irq_work>,
    #[pin]
    waiters: Opaque<bindings::wait_queue_head>,
}

// SAFETY: Both fields may be used from any thread.
unsafe impl Send for Arrival {}
// SAFETY: Both fields have their own locks, or need none.
unsafe impl Sync for Arrival {}

impl Arrival {
    /// Creates it with no threads.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            waiters <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes and is pinned.
                unsafe { bindings::ersatz_hold_init_waitqueue_head(slot) }
            }),
            work <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes.
                unsafe { bindings::ersatz_hold_init_irq_work(slot, Some(wake_waiters)) }
            }),
        })
    }

    /// Makes all waiting threads check their conditions again, a moment later. Callable from any context.
    pub(crate) fn announce(&self) {
        // SAFETY: The work is initialised; drop waits for it.
        unsafe { bindings::irq_work_queue(self.work.get()) };
    }

    /// Sleeps until `condition` returns `Some`; it is checked a last time after `timeout`. The condition must not sleep.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT`; `EINTR` if a signal came first.
    pub(crate) fn wait<R>(&self, timeout: Jiffies, mut condition: impl FnMut() -> Option<R>) -> Result<R> {
        const STATE: c_int = bindings::TASK_INTERRUPTIBLE as c_int;
        let mut remaining = isize::try_from(timeout).unwrap_or(isize::MAX);
        let entry = Opaque::<bindings::wait_queue_entry>::uninit();
        // SAFETY: `entry` is valid for writes; it stays in place until this function returns.
        unsafe { bindings::init_wait(entry.get()) };
        let result = loop {
            // SAFETY: Queue and entry are initialised, and the entry is taken out below before it goes.
            unsafe { bindings::prepare_to_wait(self.waiters.get(), entry.get(), STATE) };
            if let Some(value) = condition() {
                break Ok(value);
            }
            if remaining == 0 {
                break Err(ETIMEDOUT);
            }
            // SAFETY: There are no requirements.
            if unsafe { bindings::ersatz_hold_signal_pending() } {
                break Err(EINTR);
            }
            // SAFETY: Sleeping is permitted here; any timeout is.
            remaining = unsafe { bindings::schedule_timeout(remaining) };
        };
        // SAFETY: As for `prepare_to_wait`.
        unsafe { bindings::finish_wait(self.waiters.get(), entry.get()) };
        result
    }
}

#[pinned_drop]
impl PinnedDrop for Arrival {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The work is initialised. Nothing queues it any more.
        unsafe { bindings::irq_work_sync(self.work.get()) };
    }
}

/// # Safety
///
/// To be called by the kernel alone, for the `work` of an [`Arrival`].
unsafe extern "C" fn wake_waiters(work: *mut bindings::irq_work) {
    let work = Opaque::cast_from(work.cast_const());
    // SAFETY: By the function's contract the work is part of an `Arrival`, which waits for it before it goes.
    let waiters = unsafe { (*kernel::container_of!(work, Arrival, work)).waiters.get() };
    // SAFETY: The queue is initialised.
    unsafe { bindings::__wake_up(waiters, bindings::TASK_NORMAL, 0, core::ptr::null_mut()) };
}

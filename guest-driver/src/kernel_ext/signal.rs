// SPDX-License-Identifier: GPL-2.0
//! Signals for the current thread.
//!
//! `Task::signal_pending` of the `kernel` crate is true for task work, too, with which io_uring interrupts its threads all the
//! time: that is a reason to return early from a wait that can be restarted, but not to fail.

use crate::bindings;

/// Whether a signal is pending.
pub(crate) fn is_pending() -> bool {
    // SAFETY: There are no requirements.
    unsafe { bindings::ersatz_current_signal_pending() }
}

/// Whether a signal is pending that ends the process: for loops that others depend on to end well.
pub(crate) fn is_fatal_pending() -> bool {
    // SAFETY: There are no requirements.
    unsafe { bindings::ersatz_current_fatal_signal_pending() }
}

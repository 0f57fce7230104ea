// SPDX-License-Identifier: GPL-2.0
//! Ids of threads and processes.

use crate::bindings;
use core::ptr::NonNull;
use kernel::prelude::*;

/// A reference to the id of a thread or process: no other one gets its number meanwhile.
///
/// # Invariants
///
/// `pid` is valid, with a reference that belongs to this.
pub(crate) struct PidRef {
    pid: NonNull<bindings::pid>,
}

// SAFETY: The reference may be dropped by any thread.
unsafe impl Send for PidRef {}
// SAFETY: A shared reference gives the number only, which does not change.
unsafe impl Sync for PidRef {}

impl PidRef {
    /// Returns the id of the thread that has this number in the current pid namespace.
    ///
    /// # Errors
    ///
    /// `ESRCH` if there is no such task.
    pub(crate) fn of_thread(number: u32) -> Result<Self> {
        Self::find(number, false)
    }

    /// Returns the id of the process that has this number in the current pid namespace.
    ///
    /// # Errors
    ///
    /// `ESRCH` if there is no such task.
    pub(crate) fn of_process(number: u32) -> Result<Self> {
        Self::find(number, true)
    }

    fn find(number: u32, process: bool) -> Result<Self> {
        // SAFETY: There are no requirements.
        let pid = unsafe { bindings::ersatz_hold_find_pid(number, process) };
        // INVARIANT: The function took the reference.
        Ok(Self { pid: NonNull::new(pid).ok_or(ESRCH)? })
    }

    /// Returns the number in the initial pid namespace.
    pub(crate) fn number(&self) -> u32 {
        // SAFETY: By the type invariants the pid is valid.
        unsafe { bindings::ersatz_hold_pid_number(self.pid.as_ptr()) }
    }
}

impl Drop for PidRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is this one's.
        unsafe { bindings::ersatz_hold_put_pid(self.pid.as_ptr()) };
    }
}

/// Returns the thread id of the current task, in the initial pid namespace. Callable from any context.
pub(crate) fn current_thread() -> u32 {
    // SAFETY: There are no requirements.
    unsafe { bindings::ersatz_hold_current_thread() }
}

/// Returns the process id of the current task, in the initial pid namespace. Callable from any context.
pub(crate) fn current_process() -> u32 {
    // SAFETY: There are no requirements.
    unsafe { bindings::ersatz_hold_current_process() }
}

/// Whether the current task may stop others: it has `CAP_SYS_ADMIN`.
pub(crate) fn is_permitted() -> bool {
    // SAFETY: There are no requirements.
    unsafe { bindings::ersatz_hold_is_permitted() }
}

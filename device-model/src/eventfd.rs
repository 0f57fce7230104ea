// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Event descriptors as counters of signals, which neither block nor fail.

use vmm_sys_util::eventfd::EventFd;

/// Adds a signal.
pub(crate) fn signal(event: &EventFd) {
    // It can only refuse when the count is about to overflow, and then its reader is being woken already.
    let _ = event.write(1);
}

/// Takes back the signals of an event. Returns how many there were.
pub(crate) fn drain(event: &EventFd) -> u64 {
    // Without a signal the read would block, which is an error here.
    event.read().unwrap_or(0)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Waiting for the device: by looking, for a process gets no interrupts from it.

use std::time::{Duration, Instant};

/// How long the device may take for anything that is asked of it here.
const LIMIT: Duration = Duration::from_secs(30);
/// Time between two looks.
const PAUSE: Duration = Duration::from_micros(50);

/// Waits until something holds.
///
/// # Panics
///
/// If it does not come to hold.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()))
}

/// Waits until there is something.
///
/// # Panics
///
/// If it does not come.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "still no {what} after {} s", LIMIT.as_secs());
        std::thread::sleep(PAUSE);
    }
}

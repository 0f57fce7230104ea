// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The frequency of the time-stamp counter that an emulated processor shows: it is the host's.
//!
//! A kernel measures it against emulated timers, which are late on a busy host: it has been seen wrong by a factor of
//! three, and with it everything that counts seconds, down to the clock that a nested KVM hands to its guests. So it is
//! measured here, and passed to the kernel.

use std::arch::x86_64::_rdtsc;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Time between the two readings. Their errors are microseconds, so the result is good to about one in ten thousand.
const SPAN: Duration = Duration::from_millis(30);

/// Readings to take the best of: one between whose clock readings the host did something else is worth nothing.
const READINGS: u32 = 16;

/// Returns the word for a kernel's command line that gives the frequency of the time-stamp counter.
pub fn kernel_argument() -> String {
    static FREQUENCY: OnceLock<u128> = OnceLock::new();
    format!("tsc_early_khz={}", FREQUENCY.get_or_init(measure))
}

/// The counter's frequency in kHz.
fn measure() -> u128 {
    let (start, first) = read();
    thread::sleep(SPAN);
    let (end, second) = read();
    let nanoseconds = end.duration_since(start).as_nanos().max(1);
    u128::from(second.wrapping_sub(first)) * 1_000_000 / nanoseconds
}

/// The time, and the counter's value at it.
fn read() -> (Instant, u64) {
    let readings = (0..READINGS).map(|_| {
        let before = Instant::now();
        // SAFETY: the instruction has no preconditions in user mode on Linux, which does not forbid it.
        let counter = unsafe { _rdtsc() };
        let took = before.elapsed();
        (took, before + took / 2, counter)
    });
    let best = readings.min_by_key(|(took, ..)| *took);
    best.map_or_else(|| (Instant::now(), 0), |(_, time, counter)| (time, counter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (first, second) = (measure(), measure());
        assert!(first > 100_000, "{first} kHz");
        assert!(first.abs_diff(second) < first / 20, "{first} and {second} kHz");
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Signals that come while the driver works for a process.

use ersatz_uapi::Direction;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::fixture::assert_works;
use crate::device::Device;
use crate::pattern::Pattern;
use crate::region::Region;
use crate::suite::test_list;

test_list! { "signals":
    what_moved_before_one_is_counted.patience(2);
}

/// How often a signal comes: several times in a migration of many pages.
const PERIOD_MICROSECONDS: i64 = 2000;

extern "C" fn note(_: libc::c_int) {}

/// A timer of this process that sends signals until this is dropped.
struct Signals;

impl Signals {
    fn begin() -> Self {
        // Without SA_RESTART, so that the process is told of each call that was interrupted.
        let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGALRM, &action) }.expect("sigaction");
        Self::set(PERIOD_MICROSECONDS);
        Self
    }

    fn set(microseconds: i64) {
        let time = libc::timeval { tv_sec: 0, tv_usec: microseconds };
        let timer = libc::itimerval { it_interval: time, it_value: time };
        // SAFETY: the structure lives through the call; the kernel writes to no other.
        let result = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
        Errno::result(result).expect("setitimer");
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        Self::set(0);
    }
}

/// Each page that moves is counted by the one call that moves it: a call that fails with `EINTR` has moved none.
fn what_moved_before_one_is_counted() {
    const PAGES: usize = 2048;
    const ROUNDS: usize = 4;
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(PAGES, pattern);
    let mut ended_early = 0;
    for _ in 0..ROUNDS {
        for direction in [Direction::ToDevice, Direction::ToSystem] {
            let signals = Signals::begin();
            let mut moved = 0;
            loop {
                match device.try_migrate(region.span(), direction) {
                    Ok(done) => {
                        moved += done.moved;
                        if done.left == 0 {
                            break;
                        }
                        ended_early += 1;
                    }
                    Err(error) => assert_eq!(error, Errno::EINTR),
                }
            }
            drop(signals);
            assert_eq!(moved, PAGES as u64, "pages that calls said they moved ({direction:?})");
        }
    }
    println!("{ended_early} calls ended early");
    region.check(pattern);
    assert_works();
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory of another process by ptrace(2), which stops that process's first thread for as long.

use std::thread::sleep;
use std::time::{Duration, Instant};

use ersatz_scenario::range::Range;
use ersatz_scenario::report::StepOutcome;
use nix::errno::Errno;
use nix::libc::{c_long, c_void};
use nix::sys::ptrace::{Options, detach, interrupt, read, seize, write};
use nix::unistd::Pid;

use super::cross_process::target;
use crate::scenario::content::Reader;
use crate::scenario::context::{Context, Done, Failure, done};
use crate::scenario::ranges::Place;

/// How often a tracer looks whether the traced thread has stopped.
const TICK: Duration = Duration::from_micros(100);

pub fn peek(context: &Context<'_>, process: &str, range: &Range) -> Done {
    let place = context.ranges.place(range)?;
    let traced = Traced::stop(context, target(context, process)?, place)?;
    let mut reader = Reader::default();
    for index in 0..place.pages() {
        reader.page(&read(traced.0, address(place, index))?.to_ne_bytes());
    }
    Ok(StepOutcome::Content(reader.finish()))
}

pub fn poke(context: &Context<'_>, process: &str, range: &Range, byte: u8) -> Done {
    let place = context.ranges.place(range)?;
    let traced = Traced::stop(context, target(context, process)?, place)?;
    for index in 0..place.pages() {
        write(traced.0, address(place, index), c_long::from_ne_bytes([byte; 8]))?;
    }
    done()
}

fn address(place: Place, page: usize) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(place.page(page).address as usize)
}

/// A thread that is stopped. Dropped, it goes on.
struct Traced(Pid);

impl Traced {
    /// Stops the first thread of a process. The stop is not waited for by waitpid(2): the thread of this process that reaps its children
    /// may be told of it instead of this one.
    fn stop(context: &Context<'_>, pid: Pid, place: Place) -> Result<Self, Failure> {
        seize(pid, Options::empty())?;
        let traced = Self(pid);
        interrupt(pid)?;
        let deadline = Instant::now() + context.patience();
        // Only a thread that is stopped is answered for.
        while read(pid, address(place, 0)) == Err(Errno::ESRCH) {
            if Instant::now() > deadline {
                return Err(format!("process {pid} did not stop in time").into());
            }
            sleep(TICK);
        }
        Ok(traced)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // A thread that is gone needs nothing.
        let _ = detach(self.0, None);
    }
}

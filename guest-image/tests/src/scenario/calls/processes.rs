// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ends of processes. Forks are the business of [`crew`](crate::scenario::crew).

use std::ffi::CStr;
use std::sync::atomic::Ordering;

use nix::libc;
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::{Pid, execv};

use super::order::wait_until;
use crate::scenario::context::{Context, Done, Failure, done, done_with};

/// The argument that has this program end at once: what a process becomes that executes another program.
const EXECUTED: &CStr = c"--executed";

pub fn exit() -> Done {
    // SAFETY: the process ends without running anything more, as it is to.
    unsafe { libc::_exit(0) }
}

/// Returns only if it fails.
pub fn exec() -> Done {
    execv(c"/proc/self/exe", &[c"ersatz-guest-tests", EXECUTED])?;
    done()
}

/// The process id of a forked process.
pub(super) fn pid(context: &Context<'_>, child: &str) -> Result<Pid, Failure> {
    let pid = context.board.children[context.child(child)?].pid.load(Ordering::Acquire);
    if pid == 0 { Err(format!("{child} has not been forked yet").into()) } else { Ok(Pid::from_raw(pid)) }
}

pub fn kill(context: &Context<'_>, child: &str) -> Done {
    send(pid(context, child)?, Signal::SIGKILL)?;
    done()
}

pub fn join(context: &Context<'_>, child: &str) -> Done {
    pid(context, child)?;
    let board = &context.board.children[context.child(child)?];
    if !wait_until(context.patience(), || board.end().is_some()) {
        return Err(format!("{child} did not end in time").into());
    }
    done_with(board.end().unwrap_or_default())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The processes of an attempt: the first one, and those that it forks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::thread::{ScopedJoinHandle, scope, sleep};
use std::time::{Duration, Instant};

use ersatz_scenario::call::Call;
use ersatz_scenario::{Process, Step};
use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getpid};

use super::context::{Context, Done, done};
use super::cpus::Cpus;
use super::{executor, guarded};

/// Exit status of a process in which the runner itself failed.
pub const STATUS_FAILED: i32 = 125;

/// How often a process looks at its threads and children.
const TICK: Duration = Duration::from_micros(200);
/// How long threads may take until all of them are ready to begin.
const READY: Duration = Duration::from_secs(2);

/// The first process: setup, its threads, finally. Never returns.
pub fn first(context: &Context<'_>) -> ! {
    leave_after(|| {
        guarded::install().expect("a handler of signals");
        context.board.populate();
        Cpus::of(context.scenario).enter_others();
        executor::run(context, 0, fork_child);
        run_threads(context, &Process::First);
        executor::run(context, context.scenario.threads.len() + 1, fork_child);
    })
}

/// Runs the whole of a process, and ends it without the cleaning up that is its parent's.
fn leave_after(body: impl FnOnce()) -> ! {
    let result = catch_unwind(AssertUnwindSafe(body));
    let status = if result.is_ok() { 0 } else { STATUS_FAILED };
    // SAFETY: nothing of the process is needed any more: what it has to tell is in shared memory.
    unsafe { libc::_exit(status) }
}

/// Forks a process, whose threads begin at once, or with all others.
fn fork_child(context: &Context<'_>, name: &str) -> Done {
    let number = context.child(name)?;
    // SAFETY: the child uses what other threads may have locked at this moment only as far as the C library makes that sound:
    // it allocates memory and starts threads.
    match unsafe { fork() }? {
        ForkResult::Child => leave_after(|| {
            context.board.populate();
            // Its parent may come to this only after it has ended.
            context.board.children[number].pid.store(getpid().as_raw(), Ordering::Release);
            run_threads(context, &Process::Child(name.to_owned()));
        }),
        ForkResult::Parent { child } => {
            context.board.children[number].pid.store(child.as_raw(), Ordering::Release);
            done()
        }
    }
}

/// How many threads there are when setup is done: those of later forks begin when they are forked.
fn first_threads(context: &Context<'_>) -> u32 {
    let forked = |step: &Step| match &step.call {
        Call::Fork(child) => Some(Process::Child(child.clone())),
        _ => None,
    };
    let processes = context.scenario.setup.iter().filter_map(forked).chain([Process::First]);
    processes.map(|process| context.threads_of(&process).len() as u32).sum()
}

/// Runs the threads of a process, until they and all forked processes are over.
fn run_threads(context: &Context<'_>, process: &Process) {
    let cpus = Cpus::of(context.scenario);
    // Threads inherit this: none of them may wait for a CPU where another one is held already.
    cpus.enter_others();
    scope(|scope| {
        let spawn = |index| {
            let cpus = &cpus;
            scope.spawn(move || {
                cpus.enter(index);
                context.board.ready.fetch_add(1, Ordering::AcqRel);
                while context.board.gate.load(Ordering::Acquire) == 0 {
                    sleep(TICK / 4);
                }
                executor::run(context, index, fork_child);
            })
        };
        let threads: Vec<_> = context.threads_of(process).into_iter().map(spawn).collect();
        let opens = Instant::now() + READY;
        loop {
            let ready = context.board.ready.load(Ordering::Acquire) >= first_threads(context);
            // A process that was forked may be gone before its threads are there.
            if *process == Process::First && (ready || Instant::now() > opens) {
                context.board.gate.store(1, Ordering::Release);
            }
            let over = threads.iter().all(ScopedJoinHandle::is_finished);
            let childless = reap(context);
            if over && childless {
                return;
            }
            sleep(TICK);
        }
    });
}

/// Notes the ends of forked processes; true if there is none left.
fn reap(context: &Context<'_>) -> bool {
    loop {
        let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::EINTR) => continue,
            // No child is left.
            Err(_) => return true,
            Ok(WaitStatus::StillAlive) => return false,
            Ok(status) => status,
        };
        let Some(pid) = status.pid() else { continue };
        let is_it = |child: &&super::board::ProcessBoard| child.pid.load(Ordering::Acquire) == pid.as_raw();
        if let Some(child) = context.board.children.iter().find(is_it) {
            child.set_end(status);
        }
    }
}

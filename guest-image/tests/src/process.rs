// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Forked processes, and events to order what they do.

use std::any::Any;
use std::fs;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// How long other threads of a process that forks may take to end.
const THREAD_PATIENCE: Duration = Duration::from_secs(20);
/// Exit status of a process whose body panicked.
const STATUS_PANICKED: i32 = 101;

/// A forked process. Dropped without having been waited for, it is killed.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    over: bool,
}

impl Child {
    /// Forks a process that runs `body` and ends: with status 0, or another one if the body panics.
    ///
    /// To be called while this process has one thread, or others that are about to end: those are waited for, as the child would never see them give back
    /// a lock of the C library. (`thread::scope` returns when its threads have done their work, and they end a moment later.)
    pub fn spawn(body: impl FnOnce()) -> Self {
        wait_for_other_threads();
        // SAFETY: there is no other thread that could hold a lock the child would wait for.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child } => Self { pid: child, over: false },
            ForkResult::Child => std::process::exit(exit_status(&catch_unwind(AssertUnwindSafe(body)))),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap_or_else(|error| panic!("cannot send {signal} to {}: {error}", self.pid));
    }

    /// Waits for its end.
    pub fn wait(mut self) -> WaitStatus {
        let status = self.wait_for_end();
        self.over = true;
        status
    }

    /// Waits for its end and asserts that it succeeded.
    pub fn succeed(self) {
        let status = self.wait();
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "a child process ended with {status:?}");
    }

    /// Waits for its end and asserts that this signal killed it.
    pub fn die_of(self, expected: Signal) {
        let status = self.wait();
        assert!(
            matches!(status, WaitStatus::Signaled(_, signal, _) if signal == expected),
            "a child process was to die of {expected}, and ended with {status:?}"
        );
    }

    fn wait_for_end(&self) -> WaitStatus {
        loop {
            match waitpid(self.pid, None) {
                Err(Errno::EINTR) => {}
                result => return result.unwrap_or_else(|error| panic!("cannot wait for {}: {error}", self.pid)),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.over && kill(self.pid, Signal::SIGKILL).is_ok() {
            self.wait_for_end();
        }
    }
}

/// Waits until this is the process's only thread.
///
/// # Panics
///
/// If another one does not end.
fn wait_for_other_threads() {
    let threads = || fs::read_dir("/proc/self/task").expect("the threads of this process").count();
    let deadline = Instant::now() + THREAD_PATIENCE;
    while threads() > 1 {
        assert!(Instant::now() < deadline, "a process is forked beside {} other threads", threads() - 1);
        std::thread::yield_now();
    }
}

fn exit_status(result: &Result<(), Box<dyn Any + Send>>) -> i32 {
    if result.is_ok() { 0 } else { STATUS_PANICKED }
}

/// Runs `body` as the whole of a process that [`fork`] just made.
pub fn run_to_exit(body: impl FnOnce()) -> ! {
    std::process::exit(exit_status(&catch_unwind(AssertUnwindSafe(body))))
}

/// A countable event between processes: each [`Event::wait`] takes one [`Event::signal`].
#[derive(Debug)]
pub struct Event(EventFd);

impl Event {
    /// An event that has not happened.
    pub fn new() -> Self {
        Self(EventFd::from_flags(EfdFlags::EFD_SEMAPHORE).expect("eventfd"))
    }

    /// Makes it happen once.
    pub fn signal(&self) {
        self.0.write(1).expect("write to an eventfd");
    }

    /// Waits until it happened.
    pub fn wait(&self) {
        while let Err(error) = self.0.read() {
            assert_eq!(error, Errno::EINTR, "read from an eventfd");
        }
    }
}

/// A pipe: what is written to the second comes out of the first.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe().expect("pipe")
}

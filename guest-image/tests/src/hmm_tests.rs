// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs the kernel's own tests of device memory, `tools/testing/selftests/mm/hmm-tests.c`, unchanged, and reports them as the tests
//! of this program are.
//!
//! Each test is a process of the program, which is told to run this one. So each has a time limit and an entry of its own in the report,
//! and the complaints of the kernel go to the test that caused them.

mod harness;
mod peer;

use std::ffi::CString;
use std::io;
use std::path::Path;
use std::time::Duration;

use ersatz_guest_image::hmm_test;
use ersatz_guest_image::run::HMM_TESTS_PATH;
use ersatz_init::kernel_log::KernelLog;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, execv};

pub use self::peer::Peer;
use crate::ktap::{Failure, Verdict};
use crate::rounds::{Plan, Rounds};
use crate::runner::with_complaints;
use crate::{stuck, watched};

/// Runs the tests `names` on the devices of a driver. Returns the exit status that says how they ended; `None` if they cannot be run,
/// with the reason in the report.
///
/// # Errors
///
/// Fails if the kernel log cannot be read, or the report cannot be written.
pub fn run(names: &[String], peer: Peer, plan: Plan, limit: Duration) -> io::Result<Option<u8>> {
    let mut log = KernelLog::open()?;
    let earlier = log.complaints()?;
    let mut rounds = Rounds::begin(io::stdout(), plan, names.len(), &earlier)?;
    if let Err(reason) = prepare(names, peer) {
        rounds.bail_out(&reason)?;
        return Ok(None);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    while rounds.next_round().is_some() {
        rounds.run(
            &names,
            |name| name,
            |name| {
                let (verdict, output) = run_one(name, limit);
                (with_complaints(verdict, &mut log), output)
            },
        )?;
    }
    rounds.end().map(Some)
}

/// Makes the devices ready that the tests use, and the processes that the program leaves behind children of this one.
fn prepare(names: &[String], peer: Peer) -> Result<(), String> {
    if !Path::new(HMM_TESTS_PATH).exists() {
        return Err(format!("this run brings no {HMM_TESTS_PATH}"));
    }
    nix::sys::prctl::set_child_subreaper(true).map_err(|error| format!("cannot become a subreaper: {error}"))?;
    peer.prepare(names)
}

/// Runs one test. What it printed is returned beside the verdict, unless that has it.
fn run_one(name: &str, limit: Duration) -> (Verdict, String) {
    let words = [HMM_TESTS_PATH, "-r", hmm_test::in_harness(name)].map(CString::new);
    let words: Vec<CString> = match words.into_iter().collect() {
        Ok(words) => words,
        Err(error) => return (Verdict::Fail(Failure::of_check(error.to_string())), String::new()),
    };
    let ended = watched::run(limit, || {
        let Err(error) = execv(&words[0], &words);
        panic!("cannot run {HMM_TESTS_PATH}: {error}");
    });
    kill_orphans();
    match ended {
        Ok((verdict, output)) => harness::read(hmm_test::in_harness(name), verdict, output),
        Err(error) => {
            let reason = format!("cannot start a process for the test: {error}");
            (Verdict::Fail(Failure::of_check(reason)), String::new())
        }
    }
}

/// Ends the processes of a test that have outlived the program, whose process group is another one.
fn kill_orphans() {
    let own = Pid::this();
    for child in stuck::children(own) {
        let _ = kill(child, Signal::SIGKILL);
    }
    // One that is stuck in the kernel does not die, and nothing waits for it.
    while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD)) {}
}

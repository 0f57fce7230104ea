// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A process that is watched: its output is collected, and it ends at a time limit.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ersatz_guest_image::test_mark::{End, Mark};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdout, fork, setpgid};

use crate::ktap::{Failure, Verdict};
use crate::{process, stuck};

/// How often the process is looked at.
const TICK_MILLISECONDS: u8 = 20;
/// How often the report says that the process has not ended.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);
/// The most that is kept of what it prints first, and of what it prints last: bytes.
const OUTPUT_LIMIT: usize = 32 << 10;
/// How long a process that was killed may take to end.
const SETTLING: Duration = Duration::from_secs(10);

/// Runs `body` in a process and a process group of its own. Returns a verdict on how that process ended, and what it printed. No
/// process of the group is left.
///
/// To be called while this process has one thread.
///
/// # Errors
///
/// Fails if the system refuses a process or a pipe.
pub fn run(limit: Duration, body: impl FnOnce()) -> Result<(Verdict, String), Errno> {
    let (from_child, to_parent) = nix::unistd::pipe()?;
    // SAFETY: this process has one thread, so there is no lock the child could find held for ever.
    let child = match unsafe { fork() }? {
        ForkResult::Child => {
            drop(from_child);
            enter(to_parent, body)
        }
        ForkResult::Parent { child } => child,
    };
    drop(to_parent);
    // The child does the same; whoever comes first. The other one's failure means nothing.
    let _ = setpgid(child, child);
    let watched = watch(child, &from_child, limit);
    // Nobody of the group may outlive it; that nobody does is the usual case, and no error.
    let _ = killpg(child, Signal::SIGKILL);
    watched
}

/// The child's side: its own process group, its output into the pipe.
fn enter(output: OwnedFd, body: impl FnOnce()) -> ! {
    process::run_to_exit(|| {
        setpgid(Pid::from_raw(0), Pid::from_raw(0)).expect("setpgid");
        dup2_stdout(&output).expect("dup2 of standard output");
        dup2_stderr(&output).expect("dup2 of standard error");
        drop(output);
        body();
    })
}

/// What a process has printed: the beginning and the end, if that is more than there is room for.
#[derive(Debug, Default)]
struct Output {
    first: Vec<u8>,
    last: VecDeque<u8>,
    dropped: usize,
}

impl Output {
    fn push(&mut self, bytes: &[u8]) {
        let (first, rest) = bytes.split_at(bytes.len().min(OUTPUT_LIMIT - self.first.len()));
        self.first.extend_from_slice(first);
        self.last.extend(rest);
        let excess = self.last.len().saturating_sub(OUTPUT_LIMIT);
        self.last.drain(..excess);
        self.dropped += excess;
    }

    fn to_text(&self) -> String {
        let last: Vec<u8> = self.last.iter().copied().collect();
        match self.dropped {
            0 => text_of(&[&self.first[..], &last].concat()),
            dropped => format!("{}\n({dropped} bytes are left out)\n{}", text_of(&self.first), text_of(&last)),
        }
    }
}

/// Waits for the end of the child or the time limit, collecting what it prints.
fn watch(child: Pid, output: &OwnedFd, limit: Duration) -> Result<(Verdict, String), Errno> {
    let deadline = Instant::now() + limit;
    let mut text = Output::default();
    let mut next_sign = Instant::now() + SIGN_OF_LIFE;
    loop {
        if Instant::now() >= next_sign {
            println!("# {}", Mark::UnderWay);
            next_sign = Instant::now() + SIGN_OF_LIFE;
        }
        let more = collect(output, &mut text)?;
        match waitpid(child, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive if Instant::now() < deadline => {
                if !more {
                    // All ends of the pipe are closed: only the end of the process is left to wait for.
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            WaitStatus::StillAlive => {
                let stuck = stuck::describe(child);
                killpg(child, Signal::SIGKILL)?;
                reap(child);
                collect(output, &mut text)?;
                let reason = format!("not done after {} s\n{stuck}", limit.as_secs());
                return Ok((Verdict::Fail(Failure { end: End::TimedOut, reason }), text.to_text()));
            }
            status => {
                collect(output, &mut text)?;
                return Ok((verdict(status), text.to_text()));
            }
        }
    }
}

/// Waits for a killed process, but not for ever: one that is stuck in the kernel does not die.
fn reap(child: Pid) {
    let deadline = Instant::now() + SETTLING;
    while matches!(waitpid(child, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive)) && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reads what is there to read within a tick; false once nobody can write any more.
fn collect(output: &OwnedFd, text: &mut Output) -> Result<bool, Errno> {
    let mut chunk = [0; 4096];
    loop {
        let mut ready = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(TICK_MILLISECONDS)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(true),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        let length = nix::unistd::read(output, &mut chunk)?;
        if length == 0 {
            return Ok(false);
        }
        text.push(&chunk[..length]);
    }
}

fn verdict(status: WaitStatus) -> Verdict {
    match status {
        WaitStatus::Exited(_, 0) => Verdict::Pass,
        WaitStatus::Exited(_, code) => Verdict::Fail(Failure::of_check(format!("ended with status {code}"))),
        WaitStatus::Signaled(_, signal, _) => {
            Verdict::Fail(Failure { end: End::Killed, reason: format!("killed by {signal}") })
        }
        other => Verdict::Fail(Failure::of_check(format!("ended as {other:?}"))),
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_of_a_long_output_are_kept() {
        let mut output = Output::default();
        output.push(b"first\n");
        assert_eq!(output.to_text(), "first\n");
        let line = [b'x'; 1000];
        (0..100).for_each(|_| output.push(&line));
        output.push(b"\nlast");
        let text = output.to_text();
        assert!(text.starts_with("first\nx") && text.ends_with("x\nlast"), "{text}");
        assert!(text.contains(&format!("\n({} bytes are left out)\n", 100_011 - 2 * OUTPUT_LIMIT)), "{text}");
    }
}

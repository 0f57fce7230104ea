// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who has the terminal: so that Ctrl-C reaches the command, and a shell has job control.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{getpid, setsid, tcsetpgrp};

nix::ioctl_write_int_bad!(
    /// Makes a terminal the controlling one of the calling session.
    set_controlling, nix::libc::TIOCSCTTY
);

/// Makes this process the leader of a session whose controlling terminal this is.
///
/// For a serial console that must be PID 1 itself: when a session's leader ends, the kernel hangs the terminal up, and a
/// serial port then drops whatever it has not sent yet, which would be the last lines of the command.
///
/// # Errors
///
/// Fails if the terminal is another session's.
pub fn lead(terminal: &File) -> io::Result<()> {
    match setsid() {
        // A process that leads its group leads its session already, or never can.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    take(terminal)?;
    // This process is not in the foreground, and still has to drain the terminal at the end.
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&background_stop()), None)?;
    Ok(())
}

/// Lets the command be the one that the terminal's keys signal, in the session that this process leads.
pub fn in_foreground(command: &mut Command, terminal: File) {
    let enter = move || {
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&background_stop()), None)?;
        tcsetpgrp(&terminal, getpid())?;
        sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&background_stop()), None)?;
        heed_keys()
    };
    command.process_group(0);
    // SAFETY: between fork and exec the closure makes system calls only: it neither allocates nor takes a lock.
    unsafe { command.pre_exec(enter) };
}

/// Has the terminal's keys, and its end, do what they do by default. A process that was started in the background ignores
/// them, its children inherit that, and a shell cannot even trap what was ignored when it started.
fn heed_keys() -> io::Result<()> {
    for key in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGHUP] {
        // SAFETY: the default disposition runs no code of this process.
        unsafe { signal(key, SigHandler::SigDfl) }?;
    }
    Ok(())
}

/// The signal that stops a process which changes its terminal from the background.
fn background_stop() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTTOU);
    signals
}

fn take(terminal: &File) -> io::Result<()> {
    // SAFETY: the descriptor is the terminal's, which is borrowed; the argument 0 means "do not steal".
    unsafe { set_controlling(terminal.as_raw_fd(), 0) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn keys_work_though_whoever_started_us_ignores_them() {
        let mut command = Command::new("sh");
        command.args(["-c", "kill -INT $$; exit 1"]);
        let enter = || {
            // SAFETY: to ignore a signal runs no code of this process.
            unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) }?;
            heed_keys()
        };
        // SAFETY: between fork and exec the closure makes system calls only.
        unsafe { command.pre_exec(enter) };
        let status = command.spawn().unwrap().wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGINT as i32));
    }

    #[test]
    fn something_that_is_no_terminal_cannot_be_taken() {
        assert!(take(&File::open("/dev/null").unwrap()).is_err());
    }
}

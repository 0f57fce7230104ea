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
/// If the terminal is another session's.
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

/// Gives the command a session of its own on a terminal: for a pseudo-terminal, which loses nothing when its session ends.
pub fn own_session(command: &mut Command, terminal: File) {
    let enter = move || {
        setsid()?;
        take(&terminal)?;
        heed_keys()
    };
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
    use std::io::{Read, Write};
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    use nix::pty::openpty;

    use super::*;

    /// A command on a new pseudo-terminal, and the other end of that.
    fn on_terminal(script: &str) -> (Command, File, File) {
        let pair = openpty(None, None).unwrap();
        let terminal = File::from(pair.slave);
        let mut command = Command::new("sh");
        let stream = || Stdio::from(terminal.try_clone().unwrap());
        command.args(["-c", script]).stdin(stream()).stdout(stream()).stderr(stream());
        (command, terminal, File::from(pair.master))
    }

    #[test]
    fn ctrl_c_reaches_a_command_in_its_own_session() {
        let (mut command, terminal, mut keyboard) =
            on_terminal("trap 'exit 7' INT; echo ready; while :; do sleep 0.01; done");
        own_session(&mut command, terminal);
        let mut child = command.spawn().unwrap();
        let mut byte = [0];
        while byte != *b"y" {
            keyboard.read_exact(&mut byte).unwrap();
        }
        keyboard.write_all(b"\x03").unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(7));
    }

    #[test]
    fn ctrl_c_works_though_whoever_started_us_ignores_it() {
        let (mut command, terminal, _keyboard) = on_terminal("kill -INT $$; exit 1");
        let ignore = || {
            // SAFETY: to ignore a signal runs no code of this process.
            unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) }?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes a system call only.
        unsafe { command.pre_exec(ignore) };
        own_session(&mut command, terminal);
        let status = command.spawn().unwrap().wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGINT as i32));
    }

    #[test]
    fn something_that_is_no_terminal_cannot_be_taken() {
        assert!(take(&File::open("/dev/null").unwrap()).is_err());
    }
}

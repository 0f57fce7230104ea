// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command that a guest runs, in the foreground of the console. Its standard streams are the console, or ports to the host
//! ([`streams`]).

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ersatz_guest_image::run::{COMMAND_PATH, LIBRARIES_FOLDER, PROGRAMS_FOLDER, STREAMS_PATH};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use thiserror::Error;

use crate::{console, session, streams, virtio_port};

/// What runs without that file.
const SHELL: [&str; 2] = ["/bin/busybox", "sh"];

/// Exit status, as shells have it, of a command that is not there.
const STATUS_NOT_FOUND: u8 = 127;
/// Exit status, as shells have it, of a command that is not a program.
const STATUS_NOT_EXECUTABLE: u8 = 126;

/// Exit statuses from here on stand for signals, counted from here.
const SIGNALLED: u8 = 128;

/// How long processes that were left behind may take to die.
const FAREWELL: Duration = Duration::from_secs(3);

/// Why no command was run.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The file with the command exists but cannot be read.
    #[error("cannot read {COMMAND_PATH}")]
    Read(#[source] io::Error),
    /// The file does not hold what it should.
    #[error("{COMMAND_PATH} is not a list of NUL-terminated words, the first one not empty")]
    Malformed,
    /// The console could not be opened for it.
    #[error("cannot open the console as a terminal")]
    Console(#[source] io::Error),
    /// Its standard streams are not there.
    #[error(transparent)]
    Streams(#[from] virtio_port::PortError),
    /// Waiting for it failed.
    #[error("cannot wait for the command")]
    Wait(#[source] Errno),
}

/// The words of the command: what the host asked for, or a shell.
///
/// # Errors
///
/// Fails if the host's file is there and cannot be used.
pub fn requested() -> Result<Vec<OsString>, CommandError> {
    match std::fs::read(COMMAND_PATH) {
        Ok(bytes) => parse(&bytes).ok_or(CommandError::Malformed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(SHELL.map(OsString::from).to_vec()),
        Err(error) => Err(CommandError::Read(error)),
    }
}

fn parse(bytes: &[u8]) -> Option<Vec<OsString>> {
    let body = bytes.strip_suffix(b"\0")?;
    let words: Vec<OsString> = body.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    words.first().is_some_and(|program| !program.is_empty()).then_some(words)
}

/// Runs a command to its end and returns its exit status as a shell would: 128 plus the signal if one killed it.
/// Orphans are reaped meanwhile, and whatever still runs afterwards is killed.
///
/// # Errors
///
/// Fails if there is no console, or waiting fails. A command that cannot be started is not an error here: that is printed on its
/// standard error, and the status is the one that shells give.
pub fn run(words: &[OsString]) -> Result<u8, CommandError> {
    let [program, arguments @ ..] = words else { return Err(CommandError::Malformed) };
    let terminal = console::open().map_err(CommandError::Console)?;
    let [input, output, errors] = if Path::new(STREAMS_PATH).exists() {
        streams::open_all()?
    } else {
        let clone = || terminal.try_clone().map_err(CommandError::Console);
        [clone()?, clone()?, clone()?]
    };
    let mut messages = errors.try_clone().map_err(CommandError::Console)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir("/")
        .env("PATH", format!("{PROGRAMS_FOLDER}:/bin:/sbin:/usr/bin:/usr/sbin"))
        .env("HOME", "/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(errors));
    if Path::new(LIBRARIES_FOLDER).is_dir() {
        command.env("LD_LIBRARY_PATH", LIBRARIES_FOLDER);
    }
    session::lead(&terminal).map_err(CommandError::Console)?;
    session::in_foreground(&mut command, terminal);
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // Where it cannot be written the status still says it.
            let _ = writeln!(messages, "ersatz-init: cannot run {}: {error}", Path::new(program).display());
            let not_found = error.kind() == io::ErrorKind::NotFound;
            return Ok(if not_found { STATUS_NOT_FOUND } else { STATUS_NOT_EXECUTABLE });
        }
    };
    // The command's stream ends with the command.
    drop(messages);
    drop(command);
    let status = reap_until(child.id())?;
    end_leftovers();
    if let Some(signal) = status.checked_sub(SIGNALLED).and_then(|number| Signal::try_from(i32::from(number)).ok()) {
        // Also for a host that reads it: QEMU's own exit status has room for seven bits of the guest's.
        eprintln!("ersatz-init: the command ended with exit status {status} ({signal})");
    }
    Ok(status)
}

/// Reaps every process that ends until it is this one.
fn reap_until(child: u32) -> Result<u8, CommandError> {
    loop {
        match waitpid(None, None) {
            Ok(status) if status.pid().is_some_and(|pid| u32::try_from(pid.as_raw()) == Ok(child)) => {
                if let Some(status) = exit_status(status) {
                    return Ok(status);
                }
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(CommandError::Wait(error)),
        }
    }
}

/// Returns the exit status for a wait status; `None` if the process has not ended.
fn exit_status(status: WaitStatus) -> Option<u8> {
    match status {
        // The kernel keeps the low byte of an exit status alone.
        WaitStatus::Exited(_, code) => u8::try_from(code).ok(),
        WaitStatus::Signaled(_, signal, _) => Some(SIGNALLED | signal as u8),
        _ => None,
    }
}

/// Kills what the command left behind, so that its pages are off the device before the kernel log is read.
fn end_leftovers() {
    // ESRCH, no process left, is the usual case.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    let deadline = Instant::now() + FAREWELL;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() > deadline => {
                eprintln!("ersatz-init: a process survives SIGKILL, stuck in the kernel");
                return;
            }
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(5)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_nul_terminated() {
        assert_eq!(parse(b"/bin/x\0-v\0two words\0").unwrap(), ["/bin/x", "-v", "two words"]);
    }

    #[test]
    fn an_empty_argument_survives() {
        assert_eq!(parse(b"/bin/x\0\0y\0").unwrap(), ["/bin/x", "", "y"]);
    }

    #[test]
    fn a_list_without_a_program_or_its_last_nul_is_refused() {
        for bytes in [&b""[..], b"\0", b"\0x\0", b"/bin/x"] {
            assert_eq!(parse(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_signal_counts_from_128() {
        let pid = Pid::from_raw(7);
        assert_eq!(exit_status(WaitStatus::Exited(pid, 4)), Some(4));
        assert_eq!(exit_status(WaitStatus::Signaled(pid, Signal::SIGBUS, true)), Some(135));
        assert_eq!(exit_status(WaitStatus::StillAlive), None);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz socket-reaper`: removes the sockets of an `ersatz device` that was killed. A hidden command.
//!
//! A second process of this program, which does nothing else and notices however the first one ends. Only the first process has
//! the other end of its standard input: it writes a byte after it has bound each socket, and the end of the stream is its end.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use clap::Args;

use super::CommandError;
use crate::vfio_user::socket::{Socket, SocketFile};

/// The name of the command.
pub const COMMAND: &str = "socket-reaper";

/// Remove sockets once standard input ends
#[derive(Debug, Args)]
pub struct SocketReaperOptions {
    /// The sockets, in the order in which they are bound
    paths: Vec<PathBuf>,
}

/// Runs the command.
///
/// # Errors
///
/// Fails if a socket cannot be removed.
pub fn run(options: &SocketReaperOptions) -> Result<u8, CommandError> {
    let mut input = io::stdin();
    let mut files = Vec::new();
    for path in &options.paths {
        // A broken pipe is an end, too.
        if input.read_exact(&mut [0]).is_err() {
            break;
        }
        files.push(SocketFile::open(path)?);
    }
    let _ = input.read(&mut [0]);
    files.iter().try_for_each(SocketFile::remove)?;
    Ok(0)
}

/// The reaper process. It ends when this is dropped.
#[derive(Debug)]
pub struct SocketReaper {
    child: Child,
    input: Option<ChildStdin>,
}

impl SocketReaper {
    /// Starts a reaper for sockets that are still to be bound.
    ///
    /// # Errors
    ///
    /// Fails if this program cannot be started again.
    pub fn start(paths: &[PathBuf]) -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg(COMMAND)
            .args(paths)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // The signals of a terminal's keys are for the first process alone.
            .process_group(0)
            .spawn()?;
        let input = child.stdin.take();
        Ok(Self { child, input })
    }

    /// Registers the next of the sockets, which is bound now.
    ///
    /// # Errors
    ///
    /// Fails if the reaper has ended.
    pub fn register(&mut self, _bound: &Socket) -> io::Result<()> {
        self.input.as_mut().map_or(Ok(()), |input| input.write_all(&[0]))
    }
}

impl Drop for SocketReaper {
    fn drop(&mut self) {
        drop(self.input.take());
        // Nothing can be done if the reaper itself was killed.
        let _ = self.child.wait();
    }
}

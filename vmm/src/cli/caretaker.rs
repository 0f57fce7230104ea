// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Removes the sockets of an `ersatz device` that was killed: a second process, which does nothing else and notices however
//! the first one ends.
//!
//! It is this program again, with a command that no help shows. Its standard input, whose other end only the first process
//! has, brings a byte whenever the next socket is there, and then its end.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use clap::Args;

use super::CommandError;
use crate::vfio_user::socket::{Socket, Trace};

/// The name of the command.
pub const COMMAND: &str = "remove-sockets-of-the-dead";

/// Remove sockets once standard input ends
#[derive(Debug, Args)]
pub struct CaretakerOptions {
    /// The sockets, in the order in which they are bound
    paths: Vec<PathBuf>,
}

/// Runs the command.
///
/// # Errors
///
/// If a socket cannot be removed.
pub fn run(options: &CaretakerOptions) -> Result<u8, CommandError> {
    let mut input = io::stdin();
    let mut traces = Vec::new();
    for path in &options.paths {
        // A broken pipe is an end, too.
        if input.read_exact(&mut [0]).is_err() {
            break;
        }
        traces.push(Trace::of(path)?);
    }
    let _ = input.read(&mut [0]);
    traces.iter().try_for_each(Trace::remove)?;
    Ok(0)
}

/// The second process; it ends when this is dropped.
#[derive(Debug)]
pub struct Caretaker {
    child: Child,
    input: Option<ChildStdin>,
}

impl Caretaker {
    /// Starts one for sockets that are to be bound.
    ///
    /// # Errors
    ///
    /// If this program cannot be started again.
    pub fn appoint(paths: &[PathBuf]) -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg(COMMAND)
            .args(paths)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What a terminal's keys end is the first process.
            .process_group(0)
            .spawn()?;
        let input = child.stdin.take();
        Ok(Self { child, input })
    }

    /// Entrusts it with the next of the sockets.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn take_over(&mut self, _bound: &Socket) -> io::Result<()> {
        self.input.as_mut().map_or(Ok(()), |input| input.write_all(&[0]))
    }
}

impl Drop for Caretaker {
    fn drop(&mut self) {
        drop(self.input.take());
        // There is nothing to be done about one that was killed itself.
        let _ = self.child.wait();
    }
}

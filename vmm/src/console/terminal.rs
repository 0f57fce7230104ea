// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The user's terminal while a guest has it, and what the user types.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::keys::Keys;
use crate::threads::{Role, spawn};

/// What ends a shell that reads from something else than a terminal: Ctrl-D.
const END_OF_INPUT: u8 = 0x04;

/// Standard input in raw mode; dropping this restores it, also in a panic. Signals must not end the process
/// meanwhile but lead to a return from `main`.
#[derive(Debug)]
pub struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Takes the terminal, if standard input is one.
    ///
    /// # Errors
    ///
    /// Fails if it is one and cannot be set up.
    pub fn take() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Flush, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone cannot be restored.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// Passes what is typed on to the guest, on a thread of its own; the returned file is the guest's end of it. When Ctrl-A x is
/// typed on a terminal and `with_keys` is set, calls `quit`. At the end of input from a file or pipe, sends what ends a shell.
///
/// # Errors
///
/// Fails if there is no descriptor or thread left.
pub fn follow_input(with_keys: bool, quit: impl FnOnce() + Send + 'static) -> io::Result<File> {
    let (guest, mut ours) = UnixStream::pair()?;
    let from_terminal = io::stdin().is_terminal();
    let pump = move || {
        let mut keys = Keys::default();
        let mut typed = [0; 1024];
        loop {
            let count = match io::stdin().read(&mut typed) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.unwrap_or(0),
            };
            let mut bytes = Vec::new();
            if count == 0 {
                if !from_terminal {
                    bytes.push(END_OF_INPUT);
                }
            } else if !(from_terminal && with_keys) {
                // Input from a program or file is for the guest, even bytes that are keys.
                bytes.extend_from_slice(&typed[..count]);
            } else if keys.take(&typed[..count], &mut bytes) {
                quit();
                return;
            }
            if ours.write_all(&bytes).is_err() || count == 0 {
                return;
            }
        }
    };
    // Ends with the process: a read of standard input cannot be interrupted.
    spawn(Role::Input, pump)?;
    Ok(File::from(OwnedFd::from(guest)))
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The standard streams of a guest's command, apart from its console: every byte as it is, each stream by a socket of its own.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use ersatz_guest_image::run::STREAM_PORTS;

use crate::guest_port::GuestPort;
use crate::threads::{Role, spawn};

/// Bytes that are passed on at a time.
const PIECE: usize = 64 << 10;

/// The streams of a running command, passed on to those of this process by a thread each.
#[derive(Debug)]
pub struct Streams {
    outputs: Vec<JoinHandle<()>>,
}

impl Streams {
    /// Connects the standard streams of this process with those of a command: returns the guest's ends.
    ///
    /// # Errors
    ///
    /// Fails if there is no descriptor or thread left.
    pub fn of_process() -> io::Result<(Self, Vec<GuestPort>)> {
        let (input, typed) = UnixStream::pair()?;
        // Ends with the process: a read of standard input cannot be interrupted.
        spawn(Role::Input, move || pass_input(io::stdin(), &typed))?;
        let (output, from_output) = UnixStream::pair()?;
        let (errors, from_errors) = UnixStream::pair()?;
        let outputs = vec![
            spawn(Role::Output, move || pass_output(from_output, io::stdout()))?,
            spawn(Role::Output, move || pass_output(from_errors, io::stderr()))?,
        ];
        let ports = STREAM_PORTS.into_iter().zip([input, output, errors]).map(|(name, end)| GuestPort { name, end });
        Ok((Self { outputs }, ports.collect()))
    }

    /// Waits until all that the command wrote has been passed on. The guest's ends must be closed, or be about to be.
    pub fn finish(self) {
        for thread in self.outputs {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Passes bytes on to a guest, and their end: that is a closed direction, not a closed socket, which would take what was not read
/// yet with it.
fn pass_input(mut from: impl Read, mut to: &UnixStream) {
    // A guest that has ended reads no more.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    // Until the guest's end is closed, too.
    let _ = to.read(&mut [0]);
}

/// Passes bytes on from a guest until its end is closed. Where they cannot be written to they are dropped, so the command is not
/// held up: `ersatz run | head` ends with the command's status.
fn pass_output(mut from: UnixStream, mut to: impl Write) {
    let mut piece = vec![0; PIECE];
    let mut is_open = true;
    loop {
        match from.read(&mut piece) {
            Ok(0) => return,
            Ok(count) if is_open => is_open = to.write_all(&piece[..count]).and_then(|()| to.flush()).is_ok(),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::recorder::Recorder;

    #[test]
    fn every_byte_is_passed_on_as_it_is() {
        let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let (mut guest, ours) = UnixStream::pair().unwrap();
        let recorder = Recorder::default();
        let sink = recorder.clone();
        let thread = spawn(Role::Output, move || pass_output(ours, sink)).unwrap();
        guest.write_all(&bytes).unwrap();
        drop(guest);
        Streams { outputs: vec![thread] }.finish();
        assert_eq!(recorder.take(), bytes);
    }

    #[test]
    fn input_ends_where_it_ends() {
        let (mut guest, ours) = UnixStream::pair().unwrap();
        let thread = spawn(Role::Input, move || pass_input(&b"\x04\r\n\0"[..], &ours)).unwrap();
        let mut read = Vec::new();
        guest.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"\x04\r\n\0");
        drop(guest);
        thread.join().unwrap();
    }

    #[test]
    fn a_closed_output_does_not_hold_the_command_up() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut guest, ours) = UnixStream::pair().unwrap();
        let thread = spawn(Role::Output, move || pass_output(ours, Closed)).unwrap();
        guest.write_all(&[1; 1 << 20]).unwrap();
        drop(guest);
        thread.join().unwrap();
    }
}

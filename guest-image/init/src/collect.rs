// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sends files to the host when the command has ended, and ends the command when the host wants the files now.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use ersatz_guest_image::collect::{COLLECT_PATH, COLLECT_PORT, END_COMMAND, Packer, RECEIVED};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;

use crate::virtio_port::{self, Direction, PortError};

/// Bytes that are written to the port at a time; its driver takes half of that.
const PIECE: usize = 64 << 10;

/// How long processes have from SIGTERM to SIGKILL.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why files cannot be sent.
#[derive(Debug, Error)]
pub enum CollectError {
    /// The list of paths cannot be read.
    #[error("cannot read {COLLECT_PATH}")]
    Read(#[source] io::Error),
    /// The port is not there.
    #[error(transparent)]
    Port(#[from] PortError),
    /// There is no thread that listens to the host.
    #[error("cannot listen to the host")]
    Listen(#[source] io::Error),
    /// The host takes no more.
    #[error("cannot send files to the host")]
    Send(#[source] io::Error),
}

/// Files that the host wants, and the way to it.
pub struct Collection {
    paths: Vec<PathBuf>,
    port: Arc<File>,
    received: Receiver<()>,
}

impl Collection {
    /// Finds out which files the host wants, and listens to it from now on; `None` if it wants none.
    ///
    /// # Errors
    ///
    /// Fails if the host wants some and cannot be reached.
    pub fn prepare() -> Result<Option<Self>, CollectError> {
        let list = match std::fs::read(COLLECT_PATH) {
            Ok(list) => list,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CollectError::Read(error)),
        };
        let port = Arc::new(virtio_port::open(COLLECT_PORT, Direction::Both)?);
        let (sender, received) = channel();
        let reader = Arc::clone(&port);
        thread::Builder::new().spawn(move || listen(&reader, &sender)).map_err(CollectError::Listen)?;
        Ok(Some(Self { paths: parse(&list), port, received }))
    }

    /// Sends the files, and waits until the host has them.
    ///
    /// # Errors
    ///
    /// Fails if the host takes them no more. A file that cannot be read is not an error here: the host is told.
    pub fn send(self) -> Result<(), CollectError> {
        let mut packer = Packer::new(BufWriter::with_capacity(PIECE, &*self.port));
        let all = || {
            for (index, path) in self.paths.iter().enumerate() {
                packer.add(index, path)?;
            }
            packer.finish().map(drop)
        };
        all().map_err(CollectError::Send)?;
        // A host that is gone needs no more time, either.
        let _ = self.received.recv();
        Ok(())
    }
}

/// Does what the host says, until it has received all files or is gone.
fn listen(mut port: &File, received: &Sender<()>) {
    let mut byte = [0];
    while matches!(port.read(&mut byte), Ok(1)) {
        match byte {
            [END_COMMAND] => end_processes(),
            [RECEIVED] => {
                // The receiver may be gone with the command.
                let _ = received.send(());
                return;
            }
            _ => {}
        }
    }
}

/// Ends all processes but this one.
fn end_processes() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // It fails if no process is left, which is what is wanted.
        let _ = kill(Pid::from_raw(-1), signal);
        thread::sleep(FAREWELL);
    }
}

fn parse(list: &[u8]) -> Vec<PathBuf> {
    let words = list.split(|&byte| byte == 0).filter(|word| !word.is_empty());
    words.map(|word| OsString::from_vec(word.to_vec()).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_nul_terminated() {
        assert_eq!(parse(b"/a b\0/c\0"), [PathBuf::from("/a b"), "/c".into()]);
        assert!(parse(b"").is_empty());
    }
}

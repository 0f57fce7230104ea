// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The signals that end a run, as an event.

use std::io;
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::supervisor::Event;
use crate::threads::{Role, spawn};

/// Turns the signals that end a run into an event while it lives.
pub struct Signals {
    ids: Vec<signal_hook::SigId>,
}

impl Signals {
    /// Makes the signals set an event.
    ///
    /// # Errors
    ///
    /// Fails if there is no descriptor or thread left.
    pub fn follow(stop: &Event) -> io::Result<Self> {
        let stop = stop.clone();
        let (mut reader, writer) = UnixStream::pair()?;
        let mut ids = Vec::new();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            ids.push(signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?);
        }
        drop(writer);
        // Ends when the last signal is unregistered, which closes the other end.
        spawn(Role::Signals, move || {
            while matches!(io::Read::read(&mut reader, &mut [0; 16]), Ok(1..)) {
                stop.set();
            }
        })?;
        Ok(Self { ids })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

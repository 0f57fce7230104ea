// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ways between this process and programs of a guest, apart from its console: virtio-serial ports.

use std::io;
use std::os::unix::net::UnixStream;

/// The guest's end of a virtio-serial port.
#[derive(Debug)]
pub struct GuestPort {
    /// The name by which PID 1 finds the port.
    pub name: &'static str,
    /// What is connected with it.
    pub end: UnixStream,
}

impl GuestPort {
    /// Returns a descriptor of the same end.
    ///
    /// # Errors
    ///
    /// Fails if there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { name: self.name, end: self.end.try_clone()? })
    }
}

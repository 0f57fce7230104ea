// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What connects a guest with this process and this machine, besides console, GPUs and control.

use std::io;

use crate::guest_port::GuestPort;
use crate::share::SharedFolder;

/// What a guest has for one run, and no snapshot has.
#[derive(Debug, Default)]
pub struct Attachments {
    /// Its virtio-serial ports.
    pub ports: Vec<GuestPort>,
    /// The folders that it shares.
    pub shares: Vec<SharedFolder>,
}

impl Attachments {
    /// Returns the same, with descriptors of its own.
    ///
    /// # Errors
    ///
    /// Fails if there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let ports = self.ports.iter().map(GuestPort::try_clone).collect::<io::Result<_>>()?;
        Ok(Self { ports, shares: self.shares.clone() })
    }
}

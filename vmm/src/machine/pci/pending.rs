// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Waiting for effects that no access caused: the events of all functions on the bus, in one set.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// Events asked for at once.
const BATCH: usize = 8;

/// The events of the functions on the bus. Readable, as a descriptor, while one of them is signalled.
pub struct PendingEffects(Epoll);

impl PendingEffects {
    /// No events yet.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        Epoll::new().map(Self)
    }

    /// Watches the event of the function in a slot.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn watch(&self, slot: u8, event: &EventFd) -> io::Result<()> {
        self.0.ctl(ControlOperation::Add, event.as_raw_fd(), EpollEvent::new(EventSet::IN, slot.into()))
    }

    /// Does not watch an event any more.
    pub fn forget(&self, event: &EventFd) {
        if let Err(error) = self.0.ctl(ControlOperation::Delete, event.as_raw_fd(), EpollEvent::default()) {
            log::error!("cannot take an event of a PCI function out of the set: {error}");
        }
    }

    /// The slots whose events are signalled now, some of them if there are many.
    pub fn signalled(&self) -> Vec<u8> {
        let mut events = [EpollEvent::default(); BATCH];
        match self.0.wait(0, &mut events) {
            Ok(count) => events.iter().take(count).filter_map(|event| u8::try_from(event.data()).ok()).collect(),
            Err(error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    log::error!("cannot look for effects of PCI functions: {error}");
                }
                Vec::new()
            }
        }
    }
}

impl AsRawFd for PendingEffects {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests to QEMU while the guest runs, from the supervisor and from the thread that runs the guest.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use ersatz_guest_image::error_chain::chain;
use serde_json::json;

use super::arguments;
use crate::machine::platform::PORT_SERIAL;
use crate::machine::serial::{INTERRUPT_ENABLE, listens};
use crate::qemu::Monitor;
use crate::supervisor::{Controls, Event};

/// What the supervisor can do with QEMU.
#[derive(Debug)]
pub(super) struct QemuControls {
    monitor: Mutex<Monitor>,
    /// Set when the guest is to end.
    pub(super) stop: Event,
}

impl QemuControls {
    /// By the monitor at the other end of a socket.
    pub(super) fn new(monitor: UnixStream) -> io::Result<Self> {
        Ok(Self { monitor: Mutex::new(Monitor::new(monitor)?), stop: Event::new()? })
    }

    /// Whether the guest's driver takes interrupts for what the serial port receives.
    pub(super) fn guest_listens(&self) -> bool {
        let register = PORT_SERIAL + u16::from(INTERRUPT_ENABLE);
        match self.ask(|monitor| monitor.port_byte(register)) {
            Ok(enabled) => listens(enabled),
            Err(error) => {
                let error = chain(&error);
                log::warn!("cannot see whether the guest listens ({error}): the first bytes of its input may be lost");
                true
            }
        }
    }

    /// Asks the monitor; waits while another thread does.
    pub(super) fn ask<T, E>(&self, question: impl FnOnce(&mut Monitor) -> Result<T, E>) -> Result<T, E> {
        question(&mut self.monitor.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Controls for QemuControls {
    fn vcpus(&self) -> Vec<String> {
        match self.ask(|monitor| monitor.human("info registers -a")) {
            Ok(registers) => arguments::summarize_registers(&registers),
            Err(error) => vec![format!("cannot read the registers of QEMU's vCPUs: {}", chain(&error))],
        }
    }

    fn inject_nmi(&self) {
        if let Err(error) = self.ask(|monitor| monitor.execute("inject-nmi", &json!({}))) {
            log::warn!("cannot send the guest an NMI: {}", chain(&error));
        }
    }

    fn stop(&self) {
        self.stop.set();
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine's event loop: console input and what PCI functions report, until the machine ends. It runs on the thread that
//! called [`Machine::run`](super::Machine::run).

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::config::End;
use super::error::MachineError;
use super::pci::PciBus;
use super::serial::SerialPort;

/// How the machine ended: set once, by whoever is first.
pub struct Ending {
    result: Mutex<Option<Result<End, MachineError>>>,
    event: EventFd,
}

impl Ending {
    /// Not ended.
    ///
    /// # Errors
    ///
    /// Fails if no eventfd can be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self { result: Mutex::default(), event: EventFd::new(EFD_NONBLOCK)? })
    }

    /// Ends the machine, unless it has ended.
    pub fn set(&self, result: Result<End, MachineError>) {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(result);
        if let Err(error) = self.event.write(1) {
            log::error!("cannot wake the event loop: {error}");
        }
    }

    /// Takes how the machine ended; `None` while it has not.
    pub fn take(&self) -> Option<Result<End, MachineError>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Which of the event sources is meant.
const ENDED: u32 = 0;
const INPUT: u32 = 1;
const ROOM: u32 = 2;
const PCI: u32 = 3;

/// What the loop waits for.
struct Sources {
    ending: Arc<Ending>,
    serial: Arc<SerialPort>,
    pci: Arc<PciBus>,
    input: Option<File>,
    /// Input is waited for; not so while the guest has no room for it.
    watching: bool,
}

impl Sources {
    fn input_events(input: &File) -> Events {
        Events::with_data(input, INPUT, EventSet::IN)
    }

    /// Moves what there is of input, as far as the guest has room.
    fn read_input(&mut self, ops: &mut EventOps<'_>) {
        let Some(input) = &mut self.input else {
            return;
        };
        let mut buffer = [0; 64];
        let room = self.serial.input_room().min(buffer.len());
        if room == 0 {
            warn_of(ops.remove(Self::input_events(input)));
            self.watching = false;
            return;
        }
        match input.read(&mut buffer[..room]) {
            Ok(0) => self.close_input(ops),
            Ok(count) => self.serial.input(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                log::warn!("console input ends: {error}");
                self.close_input(ops);
            }
        }
    }

    fn close_input(&mut self, ops: &mut EventOps<'_>) {
        if let Some(input) = self.input.take() {
            warn_of(ops.remove(Self::input_events(&input)));
        }
    }
}

impl MutEventSubscriber for Sources {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        warn_of(ops.add(Events::with_data(&self.ending.event, ENDED, EventSet::IN)));
        warn_of(ops.add(Events::with_data(self.serial.room_event(), ROOM, EventSet::IN)));
        if let Err(error) = ops.add(Events::with_data(self.pci.pending(), PCI, EventSet::IN)) {
            log::error!("what PCI functions report will not be carried out: {error}");
        }
        if let Some(input) = &self.input {
            self.watching = true;
            if let Err(error) = ops.add(Self::input_events(input)) {
                log::warn!("this console input cannot be waited for, so there is none: {error}");
                self.input = None;
            }
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            INPUT => self.read_input(ops),
            PCI => self.pci.carry_out_pending(),
            ROOM => {
                // Only says that there is room; how often it was said does not matter.
                let _ = self.serial.room_event().read();
                if let (Some(input), false) = (&self.input, self.watching) {
                    warn_of(ops.add(Self::input_events(input)));
                    self.watching = true;
                }
            }
            _ => {
                let _ = self.ending.event.read();
            }
        }
    }
}

fn warn_of(result: event_manager::Result<()>) {
    if let Err(error) = result {
        log::warn!("console input may stall: {error}");
    }
}

/// Serves events until the machine ends; returns how it ended.
///
/// # Errors
///
/// How the machine ended, or what failed in the loop itself.
pub fn serve(
    ending: &Arc<Ending>,
    serial: Arc<SerialPort>,
    pci: Arc<PciBus>,
    input: Option<File>,
) -> Result<End, MachineError> {
    let mut manager = EventManager::new().map_err(MachineError::Events)?;
    manager.add_subscriber(Sources { ending: Arc::clone(ending), serial, pci, input, watching: false });
    loop {
        match manager.run() {
            Ok(_) => {}
            Err(event_manager::Error::Epoll(error)) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(MachineError::Events(error)),
        }
        if let Some(result) = ending.take() {
            return result;
        }
    }
}

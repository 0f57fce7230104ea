// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest under QEMU while it runs: its console, its exit status, its end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::TcgError;
use super::controls::QemuControls;
use super::machine::Machine;
use crate::accel::served_gpus::Devices;
use crate::console::output::ConsoleOutput;
use crate::machine::End;
use crate::qemu::QmpError;
use crate::qemu::migration::MigrationError;

/// How long QEMU may take to end once it has closed the console, or lost its device.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often, while there is input, to check whether the guest listens yet.
const LISTEN_TICK: Duration = Duration::from_millis(50);
/// Lines of QEMU's own messages to show when it failed.
const LAST_LINES: usize = 8;

/// Connects the user to a guest's console.
pub(super) struct ConsoleRelay {
    output: ConsoleOutput,
    input: Option<File>,
    unsent: Vec<u8>,
    /// The guest's driver has started the serial port, which clears what the port has received before.
    listens: bool,
    /// Whether to return when the guest is ready for a run.
    until_ready: bool,
}

impl ConsoleRelay {
    /// The guest's console goes to `output`; `input` is read whenever it is readable, to its end.
    pub(super) fn new(output: ConsoleOutput, input: Option<File>) -> Self {
        Self { output, input, unsent: Vec::new(), listens: false, until_ready: false }
    }

    /// The same, with no input, until the guest is ready for a run.
    pub(super) fn until_ready(output: ConsoleOutput) -> Self {
        Self { until_ready: true, ..Self::new(output, None) }
    }

    /// Where the console goes.
    pub(super) fn output(&mut self) -> &mut ConsoleOutput {
        &mut self.output
    }
}

/// Why a relay returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RelayEnd {
    /// The guest is ready for a run.
    Ready,
    /// The guest ended.
    Ended(End),
}

/// A running guest. Dropping it kills QEMU first, then ends the devices.
#[derive(Debug)]
pub(super) struct Guest {
    machine: Machine,
    devices: Devices,
}

impl Guest {
    /// The guest in a machine, with these GPUs.
    pub(super) fn new(machine: Machine, devices: Devices) -> Self {
        Self { machine, devices }
    }

    /// The requests that other threads can make meanwhile.
    pub(super) fn controls(&self) -> Arc<QemuControls> {
        Arc::clone(&self.machine.controls)
    }

    /// Guest memory.
    pub(super) fn memory(&self) -> &File {
        &self.machine.memory
    }

    /// The memory of the mailbox.
    pub(super) fn mailbox(&self) -> &File {
        &self.machine.mailbox
    }

    /// Ends the guest; what remains is its memory.
    pub(super) fn into_memory(self) -> File {
        self.machine.memory
    }

    /// Returns the cause of an error: that QEMU has ended, if it has.
    pub(super) fn explain(&mut self, error: TcgError) -> TcgError {
        let silent = matches!(
            error,
            TcgError::Monitor(QmpError::Connection(_))
                | TcgError::Migration(MigrationError::Monitor(QmpError::Connection(_)))
        );
        let deadline = Instant::now() + FAREWELL;
        while silent && Instant::now() < deadline {
            match self.machine.process.try_wait() {
                Ok(Some(status)) => return TcgError::Ended { status: status.to_string(), words: self.last_words() },
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        error
    }

    /// Passes bytes back and forth until the guest has ended, or says that it is ready.
    pub(super) fn relay(&mut self, relay: &mut ConsoleRelay) -> Result<RelayEnd, TcgError> {
        let mut asked = Instant::now();
        loop {
            let ready = self.wait(relay)?;
            if relay.input.is_some() && !relay.listens && asked.elapsed() >= LISTEN_TICK {
                relay.listens = self.machine.controls.guest_listens();
                asked = Instant::now();
            }
            if ready.input {
                let mut typed = [0; 1024];
                match relay.input.as_mut().map(|file| file.read(&mut typed)) {
                    Some(Ok(count @ 1..)) => relay.unsent.extend_from_slice(&typed[..count]),
                    _ => relay.input = None,
                }
            }
            self.send_input(relay);
            // What the guest printed before it reported its status is in the socket already, and comes first.
            let open = !ready.console || self.receive(relay)?;
            if ready.status {
                let mut byte = [0];
                if self.machine.status.read(&mut byte)? == 1 {
                    self.receive(relay)?;
                    return Ok(RelayEnd::Ended(End::Exited(byte[0])));
                }
            }
            if ready.stop {
                return Ok(RelayEnd::Ended(End::Stopped));
            }
            if !open {
                return self.ended().map(RelayEnd::Ended);
            }
            // A program of the run may write to the port; that has no meaning.
            if ready.ready && self.machine.ready.read(&mut [0])? == 1 && relay.until_ready {
                return Ok(RelayEnd::Ready);
            }
            if let Some(index) = ready.lost {
                return self.lost(relay, index).map(RelayEnd::Ended);
            }
        }
    }

    fn wait(&self, relay: &ConsoleRelay) -> Result<Ready, TcgError> {
        let ConsoleRelay { input, unsent, listens, .. } = relay;
        let sending = if unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut events = vec![
            PollFd::new(&self.machine.console, PollFlags::IN | sending),
            PollFd::new(&self.machine.status, PollFlags::IN),
            PollFd::new(&self.machine.controls.stop, PollFlags::IN),
            PollFd::new(&self.machine.ready, PollFlags::IN),
        ];
        events.extend(self.devices.ends().map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN)));
        // Input is not read until the guest listens, and while it does not accept what was read before.
        if let Some(file) = input.as_ref().filter(|_| *listens && unsent.is_empty()) {
            events.push(PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN));
        }
        let tick = (input.is_some() && !listens).then(|| Timespec::try_from(LISTEN_TICK).ok()).flatten();
        loop {
            match poll(&mut events, tick.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
                Ok(_) => break,
            }
        }
        let flags: Vec<bool> = events.iter().map(|event| !(event.revents() & !PollFlags::OUT).is_empty()).collect();
        let devices = self.devices.ends().count();
        Ok(Ready {
            console: flags[0],
            status: flags[1],
            stop: flags[2],
            ready: flags[3],
            lost: flags[4..4 + devices].iter().position(|&lost| lost),
            input: flags.get(4 + devices).copied().unwrap_or(false),
        })
    }

    /// Sends what the guest accepts. A closed console is noticed by reading.
    fn send_input(&mut self, ConsoleRelay { unsent, .. }: &mut ConsoleRelay) {
        while !unsent.is_empty() {
            match self.machine.console.write(unsent) {
                Ok(count) => drop(unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => unsent.clear(),
            }
        }
    }

    /// Takes all that the console has; false once QEMU has closed it.
    fn receive(&mut self, ConsoleRelay { output, .. }: &mut ConsoleRelay) -> Result<bool, TcgError> {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.machine.console.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => output.write_all(&buffer[..count]).and_then(|()| output.flush())?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// QEMU has closed the console: the guest powered off or reset, or QEMU failed.
    fn ended(&mut self) -> Result<End, TcgError> {
        let status = self.machine.process.wait()?;
        // A status may have come with the very end.
        let mut byte = [0];
        self.machine.status.set_nonblocking(true)?;
        if matches!(self.machine.status.read(&mut byte), Ok(1)) {
            return Ok(End::Exited(byte[0]));
        }
        if status.success() {
            Ok(End::PoweredOff)
        } else {
            Err(TcgError::Ended { status: status.to_string(), words: self.last_words() })
        }
    }

    /// A device has no client any more: QEMU is ending, or the connection broke.
    fn lost(&mut self, relay: &mut ConsoleRelay, index: usize) -> Result<End, TcgError> {
        let patience = Instant::now() + FAREWELL;
        while Instant::now() < patience {
            if self.machine.process.try_wait()?.is_some() {
                self.receive(relay)?;
                return self.ended();
            }
            if self.machine.controls.stop.wait(Duration::from_millis(20)) {
                return Ok(End::Stopped);
            }
        }
        let words = self.last_words();
        Err(TcgError::Lost { index, reason: self.devices.reason(index), words })
    }

    fn last_words(&self) -> String {
        let lines = self.machine.process.errors.last_lines(LAST_LINES);
        if lines.is_empty() { "(none)".to_owned() } else { lines.join("; ") }
    }
}

/// What has something to be read.
struct Ready {
    console: bool,
    status: bool,
    stop: bool,
    ready: bool,
    lost: Option<usize>,
    input: bool,
}

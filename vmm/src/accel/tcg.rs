// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `--accel tcg`: the guest under QEMU's emulation, the GPU in this process, vfio-user between them.
//!
//! The [`devices`] are served first. QEMU is connected to us by descriptors that it inherits and nothing else: the way to the
//! devices' sockets, console, exit status, monitor, and the initramfs as a memfd; so there is no file to be left over.
//! The kernel kills it when this process ends, however that comes about.

mod arguments;
mod devices;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;
use thiserror::Error;

use self::arguments::Connections;
use self::devices::{DeviceError, Devices};
use crate::console::output::ConsoleOutput;
use crate::machine::End;
use crate::machine::platform::PORT_SERIAL;
use crate::machine::serial::{INTERRUPT_ENABLE, listens};
use crate::outcome::Outcome;
use crate::qemu::{Monitor, Qemu, QemuError, QemuProcess, QmpError};
use crate::spec::GuestSpec;
use crate::supervisor::{Controls, Event, Watch, supervise};

/// How long QEMU may take to end once it has closed the console, or lost its device.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often QEMU is asked, while there is input, whether the guest listens yet.
const LISTEN_TICK: Duration = Duration::from_millis(50);
/// Lines of QEMU's own messages to show when it failed.
const LAST_LINES: usize = 8;

/// Why there is no outcome.
#[derive(Debug, Error)]
pub enum TcgError {
    /// A GPU could not be made or served.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The initramfs could not be put together.
    #[error("cannot read the initramfs {path}")]
    Initramfs {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// QEMU could not be started or waited for.
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// QEMU ended by itself.
    #[error("QEMU ended ({status}) while the guest ran; its last words: {words}")]
    Ended {
        /// How, as the system puts it.
        status: String,
        /// The end of what it said.
        words: String,
    },
    /// The link between QEMU and a GPU broke.
    #[error("GPU {index} and QEMU lost each other while the guest ran: {reason}; QEMU's last words: {words}")]
    Lost {
        /// Number of the GPU.
        index: usize,
        /// What the server said.
        reason: String,
        /// The end of what QEMU said.
        words: String,
    },
    /// A descriptor could not be made or used.
    #[error("cannot talk to QEMU")]
    Io(#[from] io::Error),
}

/// Runs a guest.
///
/// Its console goes to `output`; `input` is read whenever it is readable, to its end.
///
/// # Errors
///
/// If it could not be run, or QEMU or a device failed. How the guest ended is an [`Outcome`].
pub fn run(
    spec: &GuestSpec,
    qemu: &Qemu,
    output: ConsoleOutput,
    input: Option<File>,
    watch: &Watch,
) -> Result<Outcome, TcgError> {
    let devices = Devices::start(&spec.devices)?;
    let initramfs = initramfs(spec)?;
    let (console, qemu_console) = UnixStream::pair()?;
    let (status, qemu_status) = UnixStream::pair()?;
    let (monitor, qemu_monitor) = UnixStream::pair()?;
    let sockets = devices.sockets()?;
    let connections = Connections {
        initramfs: initramfs.as_raw_fd(),
        console: qemu_console.as_raw_fd(),
        status: qemu_status.as_raw_fd(),
        monitor: qemu_monitor.as_raw_fd(),
        devices: sockets.iter().map(AsRawFd::as_raw_fd).collect(),
    };
    let mut command = qemu.command();
    command.args(arguments::arguments(spec, &connections));
    let mut inherited = vec![initramfs, qemu_console.into(), qemu_status.into(), qemu_monitor.into()];
    inherited.extend(sockets);
    let process = QemuProcess::start(qemu, command, inherited)?;
    console.set_nonblocking(true)?;
    let controls = QemuControls { monitor: Mutex::new(Monitor::new(monitor)?), stop: Event::new()? };
    let guest =
        Guest { process, devices, console, status, output, unsent: Vec::new(), listens: false, controls: &controls };
    supervise(watch, &controls, || guest.talk(input))
}

/// The initramfs with its tail, as a memfd.
fn initramfs(spec: &GuestSpec) -> Result<OwnedFd, TcgError> {
    let failed = |source| TcgError::Initramfs { path: spec.initramfs.clone(), source };
    let mut memory = File::from(memfd_create("ersatz-initramfs", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
    let length = io::copy(&mut File::open(&spec.initramfs).map_err(failed)?, &mut memory).map_err(failed)?;
    // The kernel looks for the next archive at a multiple of 4.
    let padding = usize::try_from(length.wrapping_neg() % 4).unwrap_or(0);
    memory.write_all(&[0; 3][..padding]).and_then(|()| memory.write_all(&spec.initramfs_tail)).map_err(failed)?;
    memory.rewind().map_err(failed)?;
    Ok(memory.into())
}

/// What the supervisor can do with QEMU.
struct QemuControls {
    monitor: Mutex<Monitor>,
    stop: Event,
}

impl QemuControls {
    /// Whether the guest's driver takes interrupts for what the serial port receives.
    fn guest_listens(&self) -> bool {
        let register = PORT_SERIAL + u16::from(INTERRUPT_ENABLE);
        match self.ask(|monitor| monitor.port_byte(register)) {
            Ok(enabled) => listens(enabled),
            Err(error) => {
                log::warn!("cannot see whether the guest listens ({error}): the first bytes of its input may be lost");
                true
            }
        }
    }

    fn ask<T>(&self, question: impl FnOnce(&mut Monitor) -> Result<T, QmpError>) -> Result<T, QmpError> {
        question(&mut self.monitor.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Controls for QemuControls {
    fn vcpus(&self) -> Vec<String> {
        match self.ask(|monitor| monitor.human("info registers -a")) {
            Ok(registers) => arguments::summarize_registers(&registers),
            Err(error) => vec![format!("QEMU does not say where its vCPUs are: {error}")],
        }
    }

    fn inject_nmi(&self) {
        if let Err(error) = self.ask(|monitor| monitor.execute("inject-nmi", &json!({}))) {
            log::warn!("cannot send the guest an NMI: {error}");
        }
    }

    fn stop(&self) {
        self.stop.set();
    }
}

/// A running guest. Dropping it kills QEMU first, then ends the devices.
struct Guest<'a> {
    process: QemuProcess,
    devices: Devices,
    console: UnixStream,
    status: UnixStream,
    output: ConsoleOutput,
    unsent: Vec<u8>,
    /// The guest's driver has started the serial port, which clears what the port has received before.
    listens: bool,
    controls: &'a QemuControls,
}

impl Guest<'_> {
    /// Passes bytes back and forth until the guest has ended.
    fn talk(mut self, mut input: Option<File>) -> Result<End, TcgError> {
        let mut asked = Instant::now();
        loop {
            let ready = self.wait(input.as_ref())?;
            if input.is_some() && !self.listens && asked.elapsed() >= LISTEN_TICK {
                self.listens = self.controls.guest_listens();
                asked = Instant::now();
            }
            if ready.input {
                let mut typed = [0; 1024];
                match input.as_mut().map(|file| file.read(&mut typed)) {
                    Some(Ok(count @ 1..)) => self.unsent.extend_from_slice(&typed[..count]),
                    _ => input = None,
                }
            }
            self.send_input();
            // What the guest said before it reported its status is in the socket already, and comes first.
            let open = !ready.console || self.receive()?;
            if ready.status {
                let mut byte = [0];
                if self.status.read(&mut byte)? == 1 {
                    self.receive()?;
                    return Ok(End::Exited(byte[0]));
                }
            }
            if ready.stop {
                return Ok(End::Stopped);
            }
            if !open {
                return self.ended();
            }
            if let Some(index) = ready.lost {
                return self.lost(index);
            }
        }
    }

    fn wait(&self, input: Option<&File>) -> Result<Ready, TcgError> {
        let sending = if self.unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut events = vec![
            PollFd::new(&self.console, PollFlags::IN | sending),
            PollFd::new(&self.status, PollFlags::IN),
            PollFd::new(&self.controls.stop, PollFlags::IN),
        ];
        events.extend(self.devices.ends().map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN)));
        // Input stays where it is until the guest listens, and while it does not take what it has got.
        if let Some(file) = input.filter(|_| self.listens && self.unsent.is_empty()) {
            events.push(PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN));
        }
        let tick = (input.is_some() && !self.listens).then(|| Timespec::try_from(LISTEN_TICK).ok()).flatten();
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
            lost: flags[3..3 + devices].iter().position(|&lost| lost),
            input: flags.get(3 + devices).copied().unwrap_or(false),
        })
    }

    /// Sends what the guest will take. One that is gone is noticed by reading.
    fn send_input(&mut self) {
        while !self.unsent.is_empty() {
            match self.console.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.unsent.clear(),
            }
        }
    }

    /// Takes all that the console has; false once QEMU has closed it.
    fn receive(&mut self) -> Result<bool, TcgError> {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.console.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => self.output.write_all(&buffer[..count]).and_then(|()| self.output.flush())?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// QEMU has closed the console: the guest powered off or reset, or QEMU failed.
    fn ended(mut self) -> Result<End, TcgError> {
        let status = self.process.wait()?;
        // A status may have come with the very end.
        let mut byte = [0];
        self.status.set_nonblocking(true)?;
        if matches!(self.status.read(&mut byte), Ok(1)) {
            return Ok(End::Exited(byte[0]));
        }
        if status.success() {
            Ok(End::PoweredOff)
        } else {
            Err(TcgError::Ended { status: status.to_string(), words: self.last_words() })
        }
    }

    /// A device has no client any more: because QEMU is ending, or because they lost each other.
    fn lost(mut self, index: usize) -> Result<End, TcgError> {
        let patience = Instant::now() + FAREWELL;
        while Instant::now() < patience {
            if self.process.try_wait()?.is_some() {
                self.receive()?;
                return self.ended();
            }
            if self.controls.stop.wait(Duration::from_millis(20)) {
                return Ok(End::Stopped);
            }
        }
        let words = self.last_words();
        Err(TcgError::Lost { index, reason: self.devices.reason(index), words })
    }

    fn last_words(&self) -> String {
        let lines = self.process.errors.last_lines(LAST_LINES);
        if lines.is_empty() { "(none)".to_owned() } else { lines.join("; ") }
    }
}

/// What has something to be read.
struct Ready {
    console: bool,
    status: bool,
    stop: bool,
    lost: Option<usize>,
    input: bool,
}

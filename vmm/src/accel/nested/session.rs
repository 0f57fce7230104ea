// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host's side of the session with PID 1 of the outer machine, from its first heartbeat to the command's exit status.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ersatz_guest_image::outer::channel::{Decoder, Message};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::machine::OuterMachine;
use super::received::Received;
use super::{NestedError, Sink};
use crate::supervisor::Event;

/// How long the outer machine may take from QEMU's start to PID 1's first message: 20 times what it takes on an idle core.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// How long PID 1, which sends a heartbeat every second, may be silent. A second can take many seconds on a starved host.
const SILENCE_LIMIT: Duration = Duration::from_secs(45);

/// How long the command may take to end and its files to come out, once it was told to.
const FAREWELL: Duration = Duration::from_secs(20);

/// How often to look at the limits when nothing happens.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// Where the command's input comes from, and its output goes.
pub struct Console {
    /// Read whenever it is readable; its blocking mode is not changed. `None` is an empty file.
    pub input: Option<File>,
    /// Gets the command's standard output.
    pub output: Sink,
    /// Gets its standard error.
    pub errors: Sink,
}

/// How far the outer machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Booting,
    Preparing,
    Running,
}

impl Phase {
    fn words(self) -> &'static str {
        match self {
            Self::Booting => "the outer kernel booted",
            Self::Preparing => "PID 1 of the outer machine made KVM ready",
            Self::Running => "the VMM ran in it",
        }
    }
}

/// One session.
pub(super) struct Session {
    machine: OuterMachine,
    decoder: Decoder,
    received: Received,
    phase: Phase,
    /// Time spent waiting for the machine since its last message; time that this thread was busy does not count.
    silence: Duration,
    /// How long the command may run.
    limit: Option<Duration>,
    /// When it must have ended by itself.
    deadline: Option<Instant>,
    /// Set when it was told to end.
    ending: Option<Ending>,
    /// Bytes not yet taken by QEMU.
    unsent: Vec<u8>,
    /// The last stages that PID 1 reported, for messages.
    stages: Vec<String>,
    failure: Option<String>,
    status: Option<u8>,
}

/// Why the command was told to end, and when it must have.
#[derive(Clone, Copy, Debug)]
struct Ending {
    stopped_by_user: bool,
    deadline: Instant,
}

impl Session {
    /// Returns a session with a machine that was just started. The files of its job go to `targets`.
    pub(super) fn new(
        machine: OuterMachine,
        targets: Vec<Option<PathBuf>>,
        limit: Option<Duration>,
    ) -> Result<Self, NestedError> {
        machine.port.set_nonblocking(true).map_err(NestedError::Socket)?;
        Ok(Self {
            machine,
            decoder: Decoder::default(),
            received: Received::new(targets)?,
            phase: Phase::Booting,
            silence: Duration::ZERO,
            limit,
            deadline: None,
            ending: None,
            unsent: Vec::new(),
            stages: Vec::new(),
            failure: None,
            status: None,
        })
    }

    /// Returns a session with a machine that was restored while its command ran.
    pub(super) fn restored(
        machine: OuterMachine,
        targets: Vec<Option<PathBuf>>,
        limit: Option<Duration>,
    ) -> Result<Self, NestedError> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        Ok(Self { phase: Phase::Running, deadline, ..Self::new(machine, targets, limit)? })
    }

    /// Exchanges messages until the command has ended. Returns its exit status, or `None` if the user stopped it before.
    pub(super) fn run(
        mut self,
        console: &mut Console,
        stop: &Event,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Option<u8>, NestedError> {
        let mut input = console.input.take();
        if input.is_none() {
            self.send(&Message::Input(Vec::new()));
        }
        let result = self.exchange(&mut input, console, stop, progress, false);
        console.input = input;
        Ok(match result? {
            SessionEnd::Ended(status) => Some(status),
            SessionEnd::Stopped | SessionEnd::Ready => None,
        })
    }

    /// Exchanges messages, without input for the command, until the guest is ready for its run or the command has ended.
    pub(super) fn until_ready(
        &mut self,
        console: &mut Console,
        stop: &Event,
        progress: &mut dyn FnMut(&str),
    ) -> Result<SessionEnd, NestedError> {
        self.exchange(&mut None, console, stop, progress, true)
    }

    /// The machine.
    pub(super) fn machine(&mut self) -> &mut OuterMachine {
        &mut self.machine
    }

    /// Ends the machine; what remains is its memory.
    pub(super) fn into_memory(self) -> File {
        self.machine.memory
    }

    /// Takes all that a stopped machine has sent; whether those were whole messages.
    pub(super) fn drain(&mut self, console: &mut Console) -> Result<bool, NestedError> {
        while self.take_port(console, &mut |_| ())? {}
        Ok(self.decoder.is_between_messages())
    }

    fn exchange(
        &mut self,
        input: &mut Option<File>,
        console: &mut Console,
        stop: &Event,
        progress: &mut dyn FnMut(&str),
        until_ready: bool,
    ) -> Result<SessionEnd, NestedError> {
        loop {
            let ready = self.wait(input.as_ref(), stop)?;
            if ready.stop && self.ending.is_none() {
                // A guest that has no run yet leaves nothing to be collected.
                if self.phase != Phase::Running || until_ready {
                    return Ok(SessionEnd::Stopped);
                }
                self.end_command(libc::SIGTERM, true);
            }
            self.flush()?;
            if ready.input && !self.take_input(input) {
                *input = None;
            }
            if ready.port {
                let _ = self.take_port(console, progress)?;
            }
            if let Some(status) = self.status {
                return self.finish(status).map(|status| status.map_or(SessionEnd::Stopped, SessionEnd::Ended));
            }
            if ready.guest && until_ready {
                return Ok(SessionEnd::Ready);
            }
            if self.check_limits()? {
                return Ok(SessionEnd::Stopped);
            }
        }
    }

    /// Waits for something to do. Input is left where it is while the machine does not take what it has got.
    fn wait(&mut self, input: Option<&File>, stop: &Event) -> Result<Ready, NestedError> {
        let sending = if self.unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        // The event stays once it has happened: it is not waited for again.
        let stopping = if self.ending.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let mut descriptors = vec![
            PollFd::new(&self.machine.port, PollFlags::IN | sending),
            PollFd::new(stop, stopping),
            PollFd::new(&self.machine.ready, PollFlags::IN),
        ];
        if let Some(file) = input.filter(|_| self.unsent.is_empty()) {
            descriptors.push(PollFd::new(file, PollFlags::IN));
        }
        let before = Instant::now();
        match poll(&mut descriptors, Some(&TICK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(NestedError::Poll(error.into())),
        }
        // Errors and hang-ups are found by reading.
        let arrived = |index: usize| {
            descriptors.get(index).is_some_and(|entry| !entry.revents().difference(PollFlags::OUT).is_empty())
        };
        let mut ready = Ready { port: arrived(0), stop: arrived(1), guest: arrived(2), input: arrived(3) };
        // Its end closes with QEMU, which the port reports, too.
        ready.guest = ready.guest && matches!(self.machine.ready.read(&mut [0]), Ok(1));
        self.silence = if ready.port { Duration::ZERO } else { self.silence + before.elapsed() };
        Ok(ready)
    }

    fn send(&mut self, message: &Message) {
        self.unsent.extend_from_slice(&message.encode());
    }

    fn flush(&mut self) -> Result<(), NestedError> {
        while !self.unsent.is_empty() {
            match self.machine.port.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // QEMU is gone: reading the port reports that, after all that it had sent.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => self.unsent.clear(),
                Err(error) => return Err(NestedError::Socket(error)),
            }
        }
        Ok(())
    }

    /// Passes on input; false at its end.
    fn take_input(&mut self, input: &mut Option<File>) -> bool {
        let Some(file) = input else { return false };
        let mut buffer = [0; 4096];
        // A terminal that is gone is as good as at its end.
        let length = match file.read(&mut buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => return true,
            result => result.unwrap_or(0),
        };
        self.send(&Message::Input(buffer[..length].to_vec()));
        length > 0
    }

    /// Takes what the machine sent; false if there was nothing.
    fn take_port(&mut self, console: &mut Console, progress: &mut dyn FnMut(&str)) -> Result<bool, NestedError> {
        let mut buffer = vec![0; CHUNK];
        let length = match self.machine.port.read(&mut buffer) {
            Ok(0) => return Err(self.ended()?),
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(self.ended()?),
            Err(error) => return Err(NestedError::Socket(error)),
        };
        let mut messages = Vec::new();
        self.decoder.push(&buffer[..length], |message| messages.push(message))?;
        messages.into_iter().try_for_each(|message| self.take(message, console, progress))?;
        Ok(true)
    }

    fn take(
        &mut self,
        message: Message,
        console: &mut Console,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), NestedError> {
        if self.phase == Phase::Booting {
            self.phase = Phase::Preparing;
        }
        match message {
            Message::Output(data) => show(&mut console.output, &data),
            Message::ErrorOutput(data) => show(&mut console.errors, &data),
            Message::Stage(text) => {
                log::info!("outer machine: {text}");
                self.stages.push(text);
            }
            Message::Started => {
                self.phase = Phase::Running;
                self.deadline = self.limit.and_then(|limit| Instant::now().checked_add(limit));
                progress("KVM works in the outer machine; starting the VMM there");
            }
            Message::FileBegin { index, length } => self.received.begin(index, length)?,
            Message::FileData { offset, data } => self.received.data(offset, &data)?,
            Message::Failed(reason) => self.failure = Some(reason),
            Message::Ended(status) => self.status = Some(status),
            // The host alone sends these.
            Message::Heartbeat | Message::Input(_) | Message::Signal(_) => {}
        }
        Ok(())
    }

    /// Tells the command to end.
    fn end_command(&mut self, signal: i32, stopped_by_user: bool) {
        self.send(&Message::Signal(u8::try_from(signal).unwrap_or(u8::MAX)));
        self.ending = Some(Ending { stopped_by_user, deadline: Instant::now() + FAREWELL });
        self.stages.clear(); // from here on they say where it hangs
    }

    /// Looks at all time limits; true if the user's wish to stop is to be waited for no longer.
    fn check_limits(&mut self) -> Result<bool, NestedError> {
        let (allowed, vmm_ran) = match self.phase {
            Phase::Booting => (BOOT_LIMIT, false),
            Phase::Preparing => (SILENCE_LIMIT, false),
            Phase::Running => (SILENCE_LIMIT, true),
        };
        if self.silence > allowed {
            let (silence, when, words) = (self.silence, self.phase.words(), self.machine.last_words());
            return Err(NestedError::Hung { silence, when, words, vmm_ran });
        }
        match self.ending {
            Some(ending) if Instant::now() > ending.deadline => {
                if ending.stopped_by_user {
                    Ok(true)
                } else {
                    Err(self.vmm_hung())
                }
            }
            None if self.deadline.is_some_and(|deadline| Instant::now() > deadline) => {
                self.end_command(libc::SIGKILL, false);
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// The command has ended, or could not be started.
    fn finish(&mut self, status: u8) -> Result<Option<u8>, NestedError> {
        if let Some(reason) = self.failure.take() {
            return Err(NestedError::Prepare { reason, words: self.machine.last_words() });
        }
        match self.ending {
            Some(ending) if !ending.stopped_by_user => Err(self.vmm_hung()),
            _ => Ok(Some(status)),
        }
    }

    fn vmm_hung(&self) -> NestedError {
        NestedError::VmmHung { limit: self.limit.unwrap_or_default(), threads: self.stages.join("\n") }
    }

    /// The error for a QEMU that closed the port: it is ending.
    fn ended(&mut self) -> Result<NestedError, NestedError> {
        let status = self.machine.process.wait()?.to_string();
        let vmm_ran = self.phase == Phase::Running;
        Ok(NestedError::Ended { status, when: self.phase.words(), words: self.machine.last_words(), vmm_ran })
    }
}

/// What ended an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionEnd {
    /// The command, with this exit status.
    Ended(u8),
    /// The user.
    Stopped,
    /// The guest is ready for its run.
    Ready,
}

/// Which descriptors have something.
struct Ready {
    port: bool,
    stop: bool,
    guest: bool,
    input: bool,
}

/// Shows bytes to people; those that a closed terminal does not take are lost.
fn show(sink: &mut Sink, data: &[u8]) {
    let _ = sink.write_all(data).and_then(|()| sink.flush());
}

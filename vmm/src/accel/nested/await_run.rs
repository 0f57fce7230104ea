// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! In the outer machine: boots a guest with no GPU, waits while the outer machine is saved, and gives the guest its run when that
//! arrives.
//!
//! ```text
//! guest:   boots -> ready, looks at its mailbox ------- paused -----------> finds the run, rescans the bus, goes on
//! here:             -> tells the host, looks at the outer mailbox -> run -> GPUs into slots, guest's mailbox filled
//! host:                -> saves the outer machine .. restores it, fills the outer mailbox
//! ```
//!
//! The guest is paused from before the machine is saved until some time after the outer mailbox was mapped. QEMU does not load what
//! it saved while its processor was in guest mode, and is not to change its memory map then ([`emulated_host`](crate::emulated_host)).
//!
//! What comes by the outer mailbox is an [`AwaitedRun`] and the archive for the guest, which goes on to the guest's own mailbox.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ersatz_guest_image::mailbox::{self, Archives, Header, Mailbox, ReadError};
use ersatz_guest_image::ports::READY_PORT;
use ersatz_guest_image::run::WAIT_FOR_RUN;
use rustix::time::{ClockId, Timespec, clock_settime};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::accel::kvm::{KvmRunError, gpu_factories};
use crate::console::log::ConsoleLog;
use crate::console::output::{ConsoleOutput, Style};
use crate::console::terminal::follow_input;
use crate::emulated_host::SETTLE;
use crate::gpu::registry::GpuRegistry;
use crate::machine::{Console, Machine, MachineConfig, MachineError, MachineHandle, PlugError, SharedMemory};
use crate::outcome::Outcome;
use crate::signals::Signals;
use crate::snapshot::header;
use crate::snapshot::ram::new_memory;
use crate::spec::{MachineSpec, RunSpec};
use crate::supervisor::{Event, Watch, first_of, supervise};
use crate::threads::{Role, spawn, spawn_scoped};

/// The hidden command: `ersatz await-run MACHINE OUTCOME`.
pub const COMMAND: &str = "await-run";
/// The slot of the guest's mailbox: behind those of the GPUs.
const MAILBOX_SLOT: u8 = ersatz_device_model::fabric::FABRIC_PORTS;
/// How often the outer mailbox is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// I/O ports as a file.
const PORTS: &str = "/dev/port";
/// Makes the outer kernel scan the bus for the mailbox.
const RESCAN: &str = "/sys/bus/pci/rescan";

/// A run, as it is described to the outer machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitedRun {
    /// The run, with paths of the outer machine. What it brings into the guest is not in here, but follows.
    pub run: RunSpec,
    /// Whether standard input goes to the guest.
    pub input: bool,
}

/// Bytes of the length of the description.
const LENGTH_BYTES: usize = 8;

impl AwaitedRun {
    /// What goes into the outer mailbox: the length of the description in 8 bytes (little-endian), the description as JSON, the
    /// archive for the guest.
    ///
    /// # Errors
    ///
    /// Fails if a path cannot be written as JSON.
    pub fn encode(&self, archive: &[u8]) -> serde_json::Result<Vec<u8>> {
        let description = serde_json::to_vec(self)?;
        Ok([&(description.len() as u64).to_le_bytes(), &description[..], archive].concat())
    }

    /// Reads what came out of the outer mailbox: the run, and the archive.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not such a description.
    pub fn decode(bytes: &[u8]) -> serde_json::Result<(Self, &[u8])> {
        let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().unwrap_or((&[0; LENGTH_BYTES], &[]));
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (description, archive) = rest.split_at_checked(length).unwrap_or((&[], &[]));
        Ok((serde_json::from_slice(description)?, archive))
    }
}

/// Why a guest has no outcome.
#[derive(Debug, Error)]
pub enum AwaitError {
    /// The machine could not be built, or not go on.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A GPU, or the guest's mailbox, could not be plugged in.
    #[error(transparent)]
    Plug(#[from] PlugError),
    /// The run cannot be run here.
    #[error(transparent)]
    Run(#[from] KvmRunError),
    /// The outer mailbox cannot be used.
    #[error(transparent)]
    Mailbox(#[from] ReadError),
    /// The description of the run cannot be parsed.
    #[error("the mailbox does not hold the description of a run (both ends must be of one build)")]
    Description(#[source] serde_json::Error),
    /// A descriptor, a file or a thread could not be made or used.
    #[error("cannot wait for the run")]
    Io(#[from] io::Error),
}

/// Boots, waits, runs. Returns how the guest ended. `progress` is called with the exit counts, if the run asks for them.
///
/// # Errors
///
/// Fails if it could not be run.
pub fn run(spec: &MachineSpec, progress: &mut dyn FnMut(&str)) -> Result<Outcome, AwaitError> {
    let (log, stop) = (ConsoleLog::new(), Event::new()?);
    let _signals = Signals::follow(&stop)?;
    let (guest_input, typed) = UnixStream::pair()?;
    // The host converts line ends.
    let output = ConsoleOutput::new(log.clone(), Some(Box::new(io::stdout())), Style::Raw);
    let console =
        Console { output: Box::new(output), input: Some(File::from(std::os::fd::OwnedFd::from(guest_input))) };
    let spec = MachineSpec { command_line: format!("{} {WAIT_FOR_RUN}", spec.command_line), ..spec.clone() };
    let machine = Machine::with_spare_slot(&MachineConfig::linux(&spec, Vec::new()), Vec::new(), console)?;
    let handle = machine.handle();
    let memory = Arc::new(new_memory("ersatz-mailbox", mailbox::SIZE)?);
    handle.pci().plug(MAILBOX_SLOT, SharedMemory::factory(Arc::clone(&memory), mailbox::SIZE))?;

    let ended = Event::new()?;
    thread::scope(|scope| {
        let at_end = ended.clone();
        let running = spawn_scoped(scope, Role::Machine, move || {
            let end = machine.run();
            at_end.set();
            end
        })?;
        let started = Host { ended: &ended, stop: &stop }
            .wait_for_run(&handle)
            .and_then(|arrived| arrived.map(|arrived| start(&handle, &memory, &arrived, typed)).transpose());
        let awaited = match started {
            Ok(awaited) => awaited,
            Err(error) => {
                handle.stop();
                return Err(error);
            }
        };
        // If there is a run, only its own lines count, not those of the boot.
        if awaited.is_some() {
            log.clear();
        }
        handle.resume();
        let before = handle.exits();
        let (limit, silence) =
            awaited.as_ref().map_or((None, None), |awaited| (awaited.run.timeout, awaited.run.silence));
        let watch =
            Watch { log: log.clone(), limit, silence, stop: stop.clone(), gpus: GpuRegistry::default(), collect: None };
        let outcome = supervise::<AwaitError>(&watch, &handle, || {
            running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(AwaitError::from)
        })?;
        if awaited.is_some_and(|awaited| awaited.run.exit_counts) {
            progress(&format!("exits to the VMM: {}", handle.exits().since(&before)));
        }
        Ok(outcome)
    })
}

/// Gives the guest its run.
fn start(
    handle: &MachineHandle,
    memory: &File,
    Arrived { header: outer, archives: bytes, mapped }: &Arrived,
    mut typed: UnixStream,
) -> Result<AwaitedRun, AwaitError> {
    let (awaited, archive) = AwaitedRun::decode(bytes).map_err(AwaitError::Description)?;
    for (slot, factory) in (0..).zip(gpu_factories(&awaited.run.devices, &GpuRegistry::default())?) {
        handle.pci().plug(slot, factory)?;
    }
    let header = Header { seed: outer.seed, ..header::new(archive, &awaited.run)? };
    mailbox::fill(memory, &header, archive)?;
    if awaited.input {
        let mut input = follow_input(false, || ())?;
        // Ends with either side.
        spawn(Role::ForwardInput, move || io::copy(&mut input, &mut typed))?;
    }
    thread::sleep(SETTLE.saturating_sub(mapped.elapsed()));
    Ok(awaited)
}

/// What came by the outer mailbox.
struct Arrived {
    header: Header,
    archives: Archives,
    /// When the mailbox was mapped.
    mapped: Instant,
}

/// The connection to the host, and the events that end the waiting.
struct Host<'a> {
    ended: &'a Event,
    stop: &'a Event,
}

impl Host<'_> {
    /// Waits until the guest is ready, pauses it, tells the host, and waits for a run; `None` if the guest ended or is to end.
    fn wait_for_run(&self, handle: &MachineHandle) -> Result<Option<Arrived>, AwaitError> {
        while handle.ready().read().is_err() {
            if first_of([self.ended, self.stop], LOOK).is_some() {
                return Ok(None);
            }
        }
        handle.pause();
        File::options().write(true).open(PORTS)?.write_all_at(&[1], READY_PORT.into())?;
        let Some((mailbox, header)) = self.look()? else { return Ok(None) };
        let mapped = Instant::now();
        let now = Timespec::try_from(header.wall_clock).unwrap_or_default();
        clock_settime(ClockId::Realtime, now).map_err(io::Error::from)?;
        let archives = mailbox.archives(&header)?;
        Ok(Some(Arrived { header, archives, mapped }))
    }

    /// Looks for the mailbox, which is plugged in when the machine was restored, and at it.
    fn look(&self) -> Result<Option<(Mailbox, Header)>, AwaitError> {
        let mut mailbox = None;
        loop {
            if mailbox.is_none() {
                mailbox = Mailbox::find().or_else(|_| {
                    // It can be seen before the kernel has given it addresses; when this returns it has them.
                    fs::write(RESCAN, "1")?;
                    Mailbox::find().map_err(AwaitError::from)
                })?;
            }
            if let Some(found) = mailbox.take() {
                match found.header()? {
                    Some(header) => return Ok(Some((found, header))),
                    None => mailbox = Some(found),
                }
            }
            if first_of([self.ended, self.stop], LOOK).is_some() {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_comes_out_as_it_went_in() {
        let run = RunSpec {
            archives: Vec::new(),
            request: Vec::new(),
            devices: vec![crate::spec::GpuSpec::new(1 << 30)],
            vfio: vec![crate::spec::PciAddress::on_bus(3)],
            timeout: Some(Duration::from_secs(7)),
            silence: Some(Duration::from_secs(5)),
            exit_counts: true,
            streams: false,
        };
        let awaited = AwaitedRun { run, input: true };
        let bytes = awaited.encode(b"archive").unwrap();
        assert_eq!(AwaitedRun::decode(&bytes).unwrap(), (awaited, &b"archive"[..]));
        for length in 0..bytes.len() - b"archive".len() {
            assert!(AwaitedRun::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(AwaitedRun::decode(&[0xff; 64]).is_err());
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `--accel tcg`: the guest under QEMU's emulation, the GPU in this process, vfio-user between them.
//!
//! The GPUs are served first. QEMU ([`machine`]) is connected to this process only by descriptors that it inherits: guest
//! memory, the devices' sockets, console, exit status, monitor; so no file can be left over. The kernel kills it when this
//! process ends for whatever reason.
//!
//! A guest either boots with its run in its initramfs, or is restored from a snapshot ([`restore`]), gets its run by the mailbox,
//! and its GPUs plugged in.

mod arguments;
mod controls;
mod guest;
mod machine;
mod restore;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};
use thiserror::Error;

use self::guest::{ConsoleRelay, Guest, RelayEnd};
use self::machine::{Machine, Role};
use crate::accel::served_gpus::{DeviceError, Devices};
use crate::attachments::Attachments;
use crate::console::output::ConsoleOutput;
use crate::console::streams::Streams;
use crate::gpu::registry::GpuRegistry;
use crate::outcome::Outcome;
use crate::qemu::migration::MigrationError;
use crate::qemu::{Qemu, QemuError, QmpError};
use crate::snapshot::key::KeyError;
use crate::spec::{ArchiveError, GuestSpec};
use crate::supervisor::{Watch, supervise};

/// The kind of machine, where snapshots are kept.
const KIND: &str = "tcg";

/// Why a guest has no outcome.
#[derive(Debug, Error)]
pub enum TcgError {
    /// A GPU could not be made or served.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// What the run brings could not be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The initramfs could not be put together.
    #[error("cannot read the initramfs {path}")]
    Initramfs {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A folder that is to be shared cannot be opened.
    #[error("cannot share {path} with the guest")]
    Share {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// QEMU could not be started or waited for.
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// QEMU refused a request.
    #[error(transparent)]
    Monitor(#[from] QmpError),
    /// The machine could not be saved or loaded.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// A file that the guest boots with is not there.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// QEMU ended by itself.
    #[error("QEMU ended ({status}) while the guest ran; its last words: {words}")]
    Ended {
        /// How, as the system puts it.
        status: String,
        /// The end of its messages.
        words: String,
    },
    /// The link between QEMU and a GPU broke.
    #[error(
        "the connection between GPU {index} and QEMU broke while the guest ran: {reason}; QEMU's last words: {words}"
    )]
    Lost {
        /// Number of the GPU.
        index: usize,
        /// The server's error.
        reason: String,
        /// The end of QEMU's messages.
        words: String,
    },
    /// A descriptor could not be made or used.
    #[error("the connection to QEMU failed")]
    Io(#[from] io::Error),
}

/// Runs a guest.
///
/// Its console goes to `relay.output`; `relay.input` is read whenever it is readable, to its end. With `cold` it boots; without,
/// it starts from a snapshot, which is made if there is none. It has `attachments`, and the ports of the command's streams. Its GPUs are entered in `watch.gpus`.
///
/// # Errors
///
/// Fails if it could not be run, or QEMU or a device failed. How the guest ended is an [`Outcome`].
#[expect(clippy::too_many_arguments, reason = "they have nothing in common but this call")]
pub fn run(
    spec: &GuestSpec,
    qemu: &Qemu,
    cold: bool,
    output: ConsoleOutput,
    input: Option<File>,
    mut attachments: Attachments,
    watch: &Watch,
    progress: &mut dyn FnMut(&str),
) -> Result<Outcome, TcgError> {
    let mut relay = ConsoleRelay::new(output, input);
    let mut streams = None;
    if spec.run.streams {
        let (ours, guests) = Streams::of_process()?;
        streams = Some(ours);
        attachments.ports.extend(guests);
    }
    let mut started = restore::Started::NoSnapshot;
    if !cold {
        started = restore::start(spec, qemu, &attachments, relay.output(), watch, progress)?;
    }
    let guest = match started {
        restore::Started::Guest(guest) => {
            // Only QEMU may have them now.
            drop(attachments);
            guest
        }
        restore::Started::Ended(outcome) => return Ok(outcome),
        restore::Started::NoSnapshot => boot(spec, qemu, &watch.gpus, attachments)?,
    };
    // QEMU is gone when this returns, and has closed its ends of the ports.
    let outcome = guest.run(&mut relay, watch)?;
    if let Some(streams) = streams {
        streams.finish();
    }
    Ok(outcome)
}

/// Starts a guest that boots with its run.
fn boot(spec: &GuestSpec, qemu: &Qemu, gpus: &GpuRegistry, attachments: Attachments) -> Result<Guest, TcgError> {
    let devices = Devices::start(&spec.run.devices, gpus)?;
    let initramfs = initramfs(spec)?;
    let machine = Machine::start(&spec.machine, qemu, &Role::Boot(initramfs), devices.sockets()?, None, attachments)?;
    Ok(Guest::new(machine, devices))
}

impl Guest {
    /// Runs until the guest ends, under supervision.
    fn run(mut self, relay: &mut ConsoleRelay, watch: &Watch) -> Result<Outcome, TcgError> {
        let controls = self.controls();
        supervise(watch, &*controls, || {
            loop {
                // A guest that has its run is ready already.
                if let RelayEnd::Ended(end) = self.relay(relay)? {
                    return Ok(end);
                }
            }
        })
    }
}

/// The initramfs with what the run brings behind it, as a memfd.
fn initramfs(spec: &GuestSpec) -> Result<File, TcgError> {
    let archive = spec.run.archive()?;
    let path = &spec.machine.initramfs;
    let failed = |source| TcgError::Initramfs { path: path.to_path_buf(), source };
    let mut memory = File::from(memfd_create("ersatz-initramfs", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
    let length = io::copy(&mut File::open(path).map_err(failed)?, &mut memory).map_err(failed)?;
    // The kernel looks for the next archive at a multiple of 4.
    let padding = usize::try_from(length.wrapping_neg() % 4).unwrap_or(0);
    memory.write_all(&[0; 3][..padding]).and_then(|()| memory.write_all(&archive)).map_err(failed)?;
    Ok(memory)
}

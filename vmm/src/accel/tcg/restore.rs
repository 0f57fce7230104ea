// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Starting a guest from a snapshot, and making the snapshot.
//!
//! ```text
//! make:     QEMU boots the guest with no GPU -> PID 1 reports that it is ready -> stopped, saved, discarded
//! restore:  QEMU starts, memory is copied -> state loaded -> GPUs plugged in, mailbox filled -> goes on
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use ersatz_guest_image::error_chain::chain;
use ersatz_guest_image::mailbox;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;

use super::arguments::{MAILBOX_PORT, attached_devices, gpu_port, snapshot_key};
use super::guest::{ConsoleRelay, Guest, RelayEnd};
use super::machine::{Machine, Role};
use super::{KIND, TcgError};
use crate::accel::served_gpus::{Devices, gpu};
use crate::attachments::Attachments;
use crate::console::log::ConsoleLog;
use crate::console::output::{ConsoleOutput, Style};
use crate::console::recorder::Recorder;
use crate::gpu::registry::GpuRegistry;
use crate::machine::End;
use crate::outcome::Outcome;
use crate::qemu::migration::{self, MigrationError};
use crate::qemu::{Qemu, mailbox as qemu_mailbox};
use crate::snapshot::obtain::{Made, Obtained, discard, obtain};
use crate::snapshot::{Snapshot, header};
use crate::spec::{GuestSpec, MachineSpec};
use crate::supervisor::{Watch, supervise};

/// The result of starting from a snapshot.
pub(super) enum Started {
    /// The guest runs.
    Guest(Guest),
    /// It ended while it booted for the snapshot; its console went to the output.
    Ended(Outcome),
    /// Snapshots cannot be kept: boot.
    NoSnapshot,
}

/// Starts a guest from the snapshot of its machine, which is made if there is none.
pub(super) fn start(
    spec: &GuestSpec,
    qemu: &Qemu,
    attachments: &Attachments,
    output: &mut dyn Write,
    watch: &Watch,
    progress: &mut dyn FnMut(&str),
) -> Result<Started, TcgError> {
    let key = snapshot_key(&spec.machine, qemu)?;
    let mut tried = false;
    loop {
        let make = |progress: &mut dyn FnMut(&str)| {
            progress("booting a guest once; runs after this one start from its snapshot");
            make(&spec.machine, qemu, output, watch)
        };
        let snapshot = match obtain(KIND, &key, &watch.stop, progress, make)? {
            Obtained::Snapshot(snapshot) => snapshot,
            Obtained::Ended(outcome) => return Ok(Started::Ended(outcome)),
            Obtained::Nothing => return Ok(Started::NoSnapshot),
        };
        match restore(spec, qemu, &snapshot, &watch.gpus, attachments) {
            Err(TcgError::Migration(error @ MigrationError::Failed { .. })) if !tried => {
                progress(&format!("the snapshot cannot be used and is made again: {}", chain(&error)));
                discard(&key);
                tried = true;
            }
            result => return result.map(Started::Guest),
        }
    }
}

/// Boots a guest with no GPU to where it waits for a run, and saves it. Its console output is shown only if it does not get
/// that far.
fn make(machine: &MachineSpec, qemu: &Qemu, output: &mut dyn Write, watch: &Watch) -> Result<Made, TcgError> {
    let scratch = File::from(memfd_create("ersatz-state", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
    let started = Machine::start(machine, qemu, &Role::Prepare, Vec::new(), Some(&scratch), Attachments::default())?;
    let mut guest = Guest::new(started, Devices::start(&[], &GpuRegistry::default())?);
    let console = Recorder::default();
    // No command runs yet.
    let watch = Watch { log: ConsoleLog::new(), collect: None, ..watch.clone() };
    let output_kept = ConsoleOutput::new(watch.log.clone(), Some(Box::new(console.clone())), Style::Raw);
    let mut relay = ConsoleRelay::until_ready(output_kept);
    let controls = guest.controls();
    let mut is_ready = false;
    let outcome = supervise(&watch, &*controls, || {
        Ok::<_, TcgError>(match guest.relay(&mut relay)? {
            RelayEnd::Ready => {
                is_ready = true;
                End::Stopped
            }
            RelayEnd::Ended(end) => end,
        })
    })?;
    if !is_ready || outcome != Outcome::Stopped {
        output.write_all(&console.take())?;
        return Ok(Made::Ended(outcome));
    }
    let saved = controls.ask(|monitor| {
        monitor.execute("stop", &json!({}))?;
        Ok(migration::save(monitor, &scratch)?)
    });
    let state = saved.map_err(|error| guest.explain(error))?;
    Ok(Made::Saved { memory: guest.into_memory(), state })
}

/// Restores a guest, and gives it its run.
fn restore(
    spec: &GuestSpec,
    qemu: &Qemu,
    snapshot: &Snapshot,
    gpus: &GpuRegistry,
    attachments: &Attachments,
) -> Result<Guest, TcgError> {
    let devices = Devices::start(&spec.run.devices, gpus)?;
    let sockets = devices.sockets()?;
    let numbers: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    let state = snapshot.state()?;
    let plugged = attached_devices(attachments, Some(MAILBOX_PORT));
    let machine = Machine::start(&spec.machine, qemu, &Role::Restore, sockets, Some(&state), attachments.try_clone()?)?;
    let mut guest = Guest::new(machine, devices);
    // QEMU takes as long to come up as this.
    snapshot.load_memory(guest.memory())?;
    let archive = spec.run.archive()?;
    let controls: Arc<_> = guest.controls();
    let started = controls.ask(|monitor| {
        migration::load(monitor, &state)?;
        for device in plugged {
            monitor.execute("device_add", &device)?;
        }
        for (command, arguments) in qemu_mailbox::commands(guest.mailbox().as_raw_fd(), MAILBOX_PORT) {
            monitor.execute(command, &arguments)?;
        }
        for (&socket, port) in numbers.iter().zip(0..) {
            monitor.execute("device_add", &gpu(socket, port, &gpu_port(port)))?;
        }
        mailbox::fill(guest.mailbox(), &header::new(&archive, &spec.run)?, &archive)?;
        monitor.execute("cont", &json!({}))?;
        Ok(())
    });
    started.map_err(|error| guest.explain(error))?;
    Ok(guest)
}

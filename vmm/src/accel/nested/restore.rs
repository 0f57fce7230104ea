// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Starting a guest from a snapshot of the whole outer machine, and making the snapshot.
//!
//! The snapshot contains the running VMM and the guest that it booted, which waits for its run ([`await_run`]). QEMU does not
//! load what it saved while the emulated processor was in guest mode, so the guest is paused by then. Each snapshot is tried before
//! it is kept, and taken again if need be.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use ersatz_guest_image::error_chain::chain;
use ersatz_guest_image::mailbox;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;

use super::await_run::{self, AwaitedRun};
use super::inside::{self, OUTCOME, VMM};
use super::machine::{OuterMachine, Start, add_to_key};
use super::paths::{OuterPaths, RestoredPaths, snapshot_outputs};
use super::session::{Console, Session, SessionEnd};
use super::{Artifacts, GRACE, NestedError, OuterJob, Source};
use crate::console::recorder::Recorder;
use crate::outcome::Outcome;
use crate::qemu::migration::{self, MigrationError};
use crate::snapshot::key::{KeyBuilder, KeyError};
use crate::snapshot::obtain::{Made, Obtained, discard, obtain};
use crate::snapshot::ram::new_memory;
use crate::snapshot::{Key, Snapshot, header};
use crate::spec::{GuestSpec, MachineSpec, RunSpec};
use crate::supervisor::Event;

/// The kind of machine, where snapshots are kept.
const KIND: &str = "nested";
/// Where the description of the guest's machine is in the outer machine.
const MACHINE: &str = "/ersatz/machine.json";
/// How often a snapshot is taken before it is given up.
const ATTEMPTS: u32 = 12;
/// How long outer machine and guest may take to boot: they take half a minute where nothing else runs.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// How long the machine is left alone before each: the guest and the outer kernel finish what they do after a boot.
const SETTLE: Duration = Duration::from_millis(400);

/// Runs a guest from a snapshot; returns `None` if snapshots cannot be kept.
pub(super) fn run(
    spec: &GuestSpec,
    artifacts: &Artifacts,
    memory: u64,
    console: &mut Console,
    stop: &Event,
    progress: &mut dyn FnMut(&str),
) -> Result<Option<Outcome>, NestedError> {
    let key = key(&spec.machine, artifacts, memory)?;
    let mut tried = false;
    loop {
        let make = |progress: &mut dyn FnMut(&str)| make(spec, artifacts, memory, console, stop, progress);
        let snapshot = match obtain(KIND, &key, stop, progress, make)? {
            Obtained::Snapshot(snapshot) => snapshot,
            Obtained::Ended(outcome) => return Ok(Some(outcome)),
            Obtained::Nothing => return Ok(None),
        };
        // Making the snapshot, or waiting for another run that makes it, takes long.
        if stop.wait(Duration::ZERO) {
            return Ok(Some(Outcome::Interrupted));
        }
        match restore(spec, artifacts, &snapshot, console, stop, progress) {
            Err(NestedError::Migration(error @ MigrationError::Failed { .. })) if !tried => {
                progress(&format!("the snapshot cannot be used and is made again: {}", chain(&error)));
                discard(&key);
                tried = true;
            }
            result => return result.map(Some),
        }
    }
}

/// What the snapshot depends on.
fn key(machine: &MachineSpec, artifacts: &Artifacts, memory: u64) -> Result<Key, KeyError> {
    let mut key = KeyBuilder::new(KIND);
    add_to_key(&mut key, memory);
    key.text(&format!("{} {}", machine.resources.vcpus, machine.resources.memory));
    key.text(&machine.command_line);
    for file in [&artifacts.qemu.program(), &artifacts.kernel, &artifacts.initramfs, &artifacts.vmm] {
        key.file(file)?;
    }
    key.file(&machine.kernel)?;
    key.file(&machine.initramfs)?;
    Ok(key.finish())
}

/// Boots outer machine and guest to where the guest waits for a run, and saves the outer machine. A guest that does not get there
/// in time is booted once more: of some hundred nested guests, one stops getting the interrupts of its timer.
fn make(
    spec: &GuestSpec,
    artifacts: &Artifacts,
    memory: u64,
    console: &mut Console,
    stop: &Event,
    progress: &mut dyn FnMut(&str),
) -> Result<Made, NestedError> {
    progress("booting the outer machine and a guest in it once; runs after this one start from their snapshot");
    let limit = spec.run.timeout.map_or(BOOT_LIMIT, |limit| BOOT_LIMIT.min(limit.saturating_add(GRACE)));
    let mut attempt = || boot_and_save(spec, artifacts, memory, limit, console, stop);
    match attempt() {
        Err(error @ NestedError::VmmHung { .. }) => {
            progress(&format!("the guest does not boot; trying once more: {}", chain(&error)));
            attempt()
        }
        result => result,
    }
}

fn boot_and_save(
    spec: &GuestSpec,
    artifacts: &Artifacts,
    memory: u64,
    limit: Duration,
    console: &mut Console,
    stop: &Event,
) -> Result<Made, NestedError> {
    let outcome = tempfile::NamedTempFile::new().map_err(NestedError::Scratch)?;
    let scratch = File::from(
        memfd_create("ersatz-state", MemfdFlags::CLOEXEC).map_err(|error| NestedError::Scratch(error.into()))?,
    );
    let machine = OuterMachine::start(artifacts, Start::Boot(&job(&spec.machine, artifacts)?), memory, &[&scratch])?;
    let mut session = Session::new(machine, vec![Some(outcome.path().to_owned())], Some(limit))?;
    // The guest's console output is shown only if it does not get that far.
    let recorded = Recorder::default();
    let errors = std::mem::replace(&mut console.errors, Box::new(io::sink()));
    let mut unseen = Console { input: None, output: Box::new(recorded.clone()), errors };
    let made = session.until_ready(&mut unseen, stop, &mut |_| ()).and_then(|end| match end {
        SessionEnd::Ready => Ok(match save(&mut session, artifacts, &scratch, &mut unseen, stop)? {
            Some(state) => Made::Saved { memory: session.into_memory(), state },
            None => Made::Ended(Outcome::Interrupted),
        }),
        SessionEnd::Ended(status) => inside::outcome(outcome.path(), status).map(Made::Ended),
        SessionEnd::Stopped => Ok(Made::Ended(Outcome::Interrupted)),
    });
    console.errors = unseen.errors;
    if !matches!(made, Ok(Made::Saved { .. })) {
        // A console that is closed shows nothing.
        let _ = console.output.write_all(&recorded.take());
    }
    made
}

/// What boots a guest in the outer machine.
fn job(machine: &MachineSpec, artifacts: &Artifacts) -> Result<OuterJob, NestedError> {
    let mut paths = OuterPaths::default();
    let inside = machine.map_paths(&mut paths)?;
    let text = serde_json::to_vec(&inside).map_err(|error| NestedError::Scratch(error.into()))?;
    let mut files = paths.inputs;
    files.push((VMM.to_owned(), Source::File(artifacts.vmm.clone())));
    files.push((MACHINE.to_owned(), Source::Bytes(text)));
    Ok(OuterJob {
        command: [VMM, await_run::COMMAND, MACHINE, OUTCOME].map(str::to_owned).to_vec(),
        files,
        folders: Vec::new(),
        collect: std::iter::once(PathBuf::from(OUTCOME)).chain(snapshot_outputs()).collect(),
        gpus: Vec::new(),
    })
}

/// Saves the machine, at a moment at which it can be loaded again. Returns its state, or `None` if `stop` happened before.
fn save(
    session: &mut Session,
    artifacts: &Artifacts,
    scratch: &File,
    console: &mut Console,
    stop: &Event,
) -> Result<Option<Vec<u8>>, NestedError> {
    let mut attempt = 0;
    loop {
        if stop.wait(SETTLE) {
            return Ok(None);
        }
        session.machine().monitor.execute("stop", &json!({}))?;
        let result = match session.drain(console)? {
            // Half a message would be missing in front of what a restored machine sends.
            false => Err(NestedError::Migration(MigrationError::Failed {
                what: "save",
                reason: "the machine was in the middle of a message".to_owned(),
            })),
            true => save_stopped(session, artifacts, scratch),
        };
        attempt += 1;
        match result {
            Err(NestedError::Migration(error)) if attempt < ATTEMPTS => log::info!("once more: {}", chain(&error)),
            result => return result.map(Some),
        }
        session.machine().monitor.execute("cont", &json!({}))?;
    }
}

/// Saves the stopped machine, and tries whether that can be loaded.
fn save_stopped(session: &mut Session, artifacts: &Artifacts, scratch: &File) -> Result<Vec<u8>, NestedError> {
    scratch.set_len(0).map_err(NestedError::Scratch)?;
    let machine = session.machine();
    let state = migration::save(&mut machine.monitor, scratch)?;
    let size = machine.memory.metadata().map_err(NestedError::Scratch)?.len();
    let file = new_memory("ersatz-state", state.len() as u64).map_err(NestedError::Scratch)?;
    file.write_all_at(&state, 0).map_err(NestedError::Scratch)?;
    // The trial maps the memory of the stopped machine copy-on-write and changes nothing.
    OuterMachine::start(artifacts, Start::Restore(&machine.memory), size, &[&file])?.load(&file)?;
    Ok(state)
}

/// Restores the outer machine, gives the guest its run, and runs it to its end.
fn restore(
    spec: &GuestSpec,
    artifacts: &Artifacts,
    snapshot: &Snapshot,
    console: &mut Console,
    stop: &Event,
    progress: &mut dyn FnMut(&str),
) -> Result<Outcome, NestedError> {
    let outcome = tempfile::NamedTempFile::new().map_err(NestedError::Scratch)?;
    let state = snapshot.state().map_err(NestedError::Scratch)?;
    let mailbox = new_memory("ersatz-mailbox", mailbox::SIZE).map_err(NestedError::Scratch)?;
    let start = Start::Restore(snapshot.file());
    let mut machine = OuterMachine::start(artifacts, start, snapshot.memory_size(), &[&state, &mailbox])?;
    let mut paths = RestoredPaths::default();
    let archive = awaited(&spec.run, console.input.is_some(), &mut paths)?;
    machine.load(&state)?;
    machine.plug_mailbox(&mailbox)?;
    let header = header::new(&archive, &spec.run).map_err(NestedError::Scratch)?;
    mailbox::fill(&mailbox, &header, &archive).map_err(NestedError::Scratch)?;
    machine.monitor.execute("cont", &json!({}))?;

    let targets = std::iter::once(Some(outcome.path().to_owned())).chain(paths.targets()).collect();
    let limit = spec.run.timeout.map(|limit| limit.saturating_add(GRACE));
    match Session::restored(machine, targets, limit)?.run(console, stop, progress)? {
        None => Ok(Outcome::Interrupted),
        Some(status) => inside::outcome(outcome.path(), status),
    }
}

/// What goes into the outer mailbox. The archives of the run are in it, not read by their paths.
fn awaited(run: &RunSpec, input: bool, paths: &mut RestoredPaths) -> Result<Vec<u8>, NestedError> {
    let archive = run.archive()?;
    let inside = RunSpec { archives: Vec::new(), request: Vec::new(), ..run.clone() }.map_paths(paths)?;
    let bytes = AwaitedRun { run: inside, input }.encode(&archive);
    bytes.map_err(|error| NestedError::Scratch(error.into()))
}

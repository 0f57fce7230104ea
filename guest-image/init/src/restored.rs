// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Turning a booted guest into one that has its run, by way of a snapshot.
//!
//! A guest that is to wait for its run, and finds none in its initramfs, reports to the host that it is ready and looks at its
//! mailbox until there is a run in it. The host takes its snapshot meanwhile, so every guest that is restored from it wakes up
//! here, with the clock and the random numbers of the snapshot. Both become the run's own before anything of the run starts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ersatz_abi::pci;
use ersatz_guest_image::kernel_command_line::words;
use ersatz_guest_image::mailbox::{Header, Mailbox, ReadError};
use ersatz_guest_image::ports::READY_PORT;
use ersatz_guest_image::run::{self, UnpackError};
use thiserror::Error;

use crate::{machine, random};

/// How often the mailbox is looked at. A look is short beside it, also where the processor is emulated twice over.
const LOOK: Duration = Duration::from_millis(5);
/// How often the bus is looked at for GPUs that were plugged in.
const BUS_LOOK: Duration = Duration::from_millis(2);
/// How long they may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// The kernel's command line.
const COMMAND_LINE: &str = "/proc/cmdline";
/// Makes the kernel look for functions that were not there before.
const RESCAN: &str = "/sys/bus/pci/rescan";
/// One folder per PCI bus.
const BUSES: &str = "/sys/class/pci_bus";
/// One folder per PCI function.
const FUNCTIONS: &str = "/sys/bus/pci/devices";

/// Why the run cannot be received.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The kernel's command line cannot be read.
    #[error("cannot read {COMMAND_LINE}")]
    CommandLine(#[source] io::Error),
    /// The mailbox cannot be used.
    #[error(transparent)]
    Mailbox(#[from] ReadError),
    /// The host cannot be notified.
    #[error("cannot tell the host that the guest is ready")]
    Ready(#[source] io::Error),
    /// The clock could not be set.
    #[error("cannot set the clock")]
    Clock(#[source] nix::errno::Errno),
    /// The random number generator took no seed.
    #[error("cannot seed the random number generator")]
    Seed(#[source] io::Error),
    /// What the run brings could not be read.
    #[error("cannot map what the run brings")]
    Archives(#[source] io::Error),
    /// What the run brings could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The kernel could not be asked to look for the GPUs.
    #[error("cannot rescan the PCI buses")]
    Rescan(#[source] io::Error),
    /// The GPUs did not come.
    #[error("{found} of {wanted} GPUs were on the PCI bus {PATIENCE:?} after the start of the run")]
    Gpus {
        /// Number that was found.
        found: usize,
        /// Number that was announced.
        wanted: usize,
    },
}

/// Waits for a run, if the host asked for that and the initramfs did not bring one. Returns when all that the run brings is in
/// its place.
///
/// # Errors
///
/// Fails if the run cannot be received.
pub fn receive_run() -> Result<(), RestoreError> {
    let line = fs::read_to_string(COMMAND_LINE).map_err(RestoreError::CommandLine)?;
    let is_waited_for = words(&line).any(|word| word == run::WAIT_FOR_RUN);
    if !is_waited_for || Path::new(run::DRIVER_PARAMETERS_PATH).exists() {
        return Ok(());
    }
    machine::write_port(READY_PORT, 1).map_err(RestoreError::Ready)?;
    let (mailbox, header) = wait_for_run()?;
    become_own(&header)?;
    let archives = mailbox.archives(&header).map_err(RestoreError::Archives)?;
    run::unpack(&archives, Path::new("/"))?;
    wait_for_gpus(&header)
}

/// Looks for the mailbox, which may be plugged in only now, and then at it.
fn wait_for_run() -> Result<(Mailbox, Header), RestoreError> {
    let mailbox = loop {
        match Mailbox::find() {
            Ok(Some(mailbox)) => break mailbox,
            Ok(None) => sleep(LOOK),
            // It can be seen before the kernel has given it addresses.
            Err(_) => {
                rescan()?;
                if let Some(mailbox) = Mailbox::find()? {
                    break mailbox;
                }
            }
        }
    };
    loop {
        match mailbox.header()? {
            Some(header) => return Ok((mailbox, header)),
            None => sleep(LOOK),
        }
    }
}

/// Makes clock and random numbers those of this run.
fn become_own(header: &Header) -> Result<(), RestoreError> {
    nix::time::clock_settime(nix::time::ClockId::CLOCK_REALTIME, header.wall_clock.into())
        .map_err(RestoreError::Clock)?;
    random::reseed(&header.seed).map_err(RestoreError::Seed)
}

fn wait_for_gpus(header: &Header) -> Result<(), RestoreError> {
    let deadline = Instant::now() + PATIENCE;
    let wanted = usize::try_from(header.gpus).unwrap_or(usize::MAX);
    loop {
        let found = look_for_gpus(wanted)?;
        if found >= wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(RestoreError::Gpus { found, wanted });
        }
        sleep(BUS_LOOK);
    }
}

/// Makes the kernel look for functions that it does not know yet, bus by bus until there are as many GPUs as are wanted: to look
/// at all buses takes thousands of accesses, each of which leaves the guest. Returns the number of GPUs.
///
/// GPUs that the kernel was about to make known by itself are known to drivers when this returns, since it adds functions one at
/// a time, and at least one bus is looked at.
fn look_for_gpus(wanted: usize) -> Result<usize, RestoreError> {
    let mut found = 0;
    for bus in slots(Path::new(BUSES)).map_err(RestoreError::Rescan)? {
        fs::write(bus.join("rescan"), "1").map_err(RestoreError::Rescan)?;
        found = count_gpus(Path::new(FUNCTIONS));
        if found >= wanted {
            break;
        }
    }
    Ok(found)
}

/// The folders of the buses below root ports, in order.
fn slots(buses: &Path) -> io::Result<Vec<PathBuf>> {
    let mut slots = fs::read_dir(buses)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    slots.retain(|bus| bus.file_name().is_some_and(|name| !name.as_encoded_bytes().ends_with(b":00")));
    slots.sort();
    Ok(slots)
}

/// Makes the kernel look for functions that it does not know yet, on all buses.
fn rescan() -> Result<(), RestoreError> {
    fs::write(RESCAN, "1").map_err(RestoreError::Rescan)
}

/// Number of GPUs on the bus.
fn count_gpus(functions: &Path) -> usize {
    let is_gpu = |folder: &Path| {
        let id = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        id("vendor").trim() == format!("{:#06x}", pci::VENDOR_ID)
            && id("device").trim() == format!("{:#06x}", pci::DEVICE_ID)
    };
    let folders = fs::read_dir(functions).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    folders.filter(|folder| is_gpu(folder)).count()
}

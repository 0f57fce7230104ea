// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! PID 1 of the guest.
//!
//! Mounts what programs expect, waits for its run if it is to be restored from a snapshot ([`restored`]), loads the driver, runs
//! the command that the host asked for, sends the host the files that it wants ([`collect`]), and reports the command's exit status. A failure on the way is printed on the console
//! and ends the machine with [`STATUS_FAILED`], never with the kernel panic that a PID 1 which simply exits would cause.

mod collect;
mod command;
mod console;
mod machine;
mod mounts;
mod outer;
mod random;
mod restored;
mod session;
mod share;
mod streams;
mod virtio_port;

use std::panic::catch_unwind;
use std::path::Path;

use ersatz_guest_image::error_chain::chain;
use ersatz_guest_image::run::{DRIVER_PATH, NO_DRIVER_PATH};
use ersatz_init::driver;
use ersatz_init::kernel_log::KernelLog;
use thiserror::Error;

/// Exit status when it is not the command that failed: the one `ersatz` gives its own failures.
const STATUS_FAILED: u8 = 125;

/// Why the command could not be run.
#[derive(Debug, Error)]
enum InitError {
    #[error(transparent)]
    Mount(#[from] mounts::MountError),
    #[error(transparent)]
    Restore(#[from] restored::RestoreError),
    #[error("cannot give the machine an id")]
    MachineId(#[source] std::io::Error),
    #[error(transparent)]
    Module(#[from] driver::ModuleError),
    #[error(transparent)]
    Command(#[from] command::CommandError),
    #[error(transparent)]
    Collect(#[from] collect::CollectError),
    #[error(transparent)]
    Share(#[from] share::ShareError),
    #[error(transparent)]
    Outer(#[from] outer::OuterError),
}

fn main() {
    if std::process::id() != 1 {
        eprintln!("ersatz-init: to be run by the kernel as /init, not by hand");
        std::process::exit(i32::from(STATUS_FAILED));
    }
    let status = match catch_unwind(run) {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            eprintln!("ersatz-init: {}", chain(&error));
            STATUS_FAILED
        }
        // The panic's message is on the console already.
        Err(_) => STATUS_FAILED,
    };
    machine::end(status)
}

/// Everything from boot to the end of the command; its exit status.
fn run() -> Result<u8, InitError> {
    for missing in mounts::mount_all()? {
        eprintln!("ersatz-init: notice: {missing}");
    }
    if outer::requested() {
        return Ok(outer::run()?);
    }
    restored::receive_run()?;
    random::give_machine_id().map_err(InitError::MachineId)?;
    let collection = collect::Collection::prepare()?;
    let status = run_command();
    if let Err(error) = collection.map_or(Ok(()), collect::Collection::send) {
        // The host says what has not arrived.
        eprintln!("ersatz-init: {}", chain(&error));
    }
    if status.is_ok() {
        repeat_complaints();
    }
    status
}

/// Loads the driver and what else the run brings, and runs the command; its exit status.
fn run_command() -> Result<u8, InitError> {
    if Path::new(NO_DRIVER_PATH).exists() {
        // The run asked for that.
    } else if Path::new(DRIVER_PATH).exists() {
        driver::load_driver("")?;
    } else {
        eprintln!("ersatz-init: notice: no driver in this image ({DRIVER_PATH})");
    }
    driver::load_brought()?;
    share::mount_all()?;
    Ok(command::run(&command::requested()?)?)
}

/// Shows on the console what the kernel complained about since boot.
fn repeat_complaints() {
    match KernelLog::open().and_then(|mut log| log.complaints()) {
        Ok(complaints) => {
            for complaint in complaints {
                eprintln!("ersatz-init: kernel log: {complaint}");
            }
        }
        Err(error) => eprintln!("ersatz-init: cannot read the kernel log: {}", chain(&error)),
    }
}

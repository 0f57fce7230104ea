// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz bench migrate`: the driver's migrations beside the same ones by the kernel's own test driver, in one guest.

use std::io;
use std::time::Duration;

use clap::Args;
use ersatz_guest_image::initramfs::Archive;
use ersatz_guest_image::run::{TEST_DRIVER_PATH, TESTS_PATH, append};

use crate::accel::accelerator::AcceleratorError;
use crate::cli::CommandError;
use crate::cli::guest::{GuestOptions, KernelOption, Mode};
use crate::cli::report::{self, Shown};
use crate::launch::{Connection, launch};

/// The time limit. A round takes seconds, more on a busy machine.
const LIMIT: Duration = Duration::from_secs(1800);

/// Migrations by the driver next to those by the kernel's own test driver
///
/// Moves memory to the device and back, by ioctl and by CPU touch, in 4 KiB and in 2 MiB pages, by turns with this driver and with
/// test_hmm, which simulates its device in the kernel. Prints rates, their ratio, and which share of a copy engine's own rate the
/// driver reaches. The ratios count, not the rates: those are of an emulated processor, unless it is --accel kvm.
#[derive(Debug, Args)]
#[command(mut_arg("accel", |accel| accel.default_value("tcg")))]
pub struct MigrateOptions {
    #[command(flatten)]
    kernel: KernelOption,
    #[command(flatten)]
    guest: GuestOptions,
    /// Sizes of the memory that is moved, in MiB
    #[arg(long, value_name = "MIB[,MIB...]", value_delimiter = ',', default_values = ["32", "64"],
        value_parser = clap::value_parser!(u32).range(2..=1024))]
    size: Vec<u32>,
    /// Rounds that count; one more does not
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), default_value = "5")]
    rounds: u32,
}

/// Measures in a guest; returns the exit status.
///
/// # Errors
///
/// If the guest cannot be run at all.
pub fn run(options: &MigrateOptions) -> Result<u8, CommandError> {
    let sizes: Vec<String> = options.size.iter().map(u32::to_string).collect();
    let words = [TESTS_PATH, "--compare", &sizes.join(","), "--rounds", &options.rounds.to_string()].map(str::to_owned);
    // Memory of the coherent type has no CPU touch to measure, and the test driver has none of it.
    let mut guest = options.guest.guest(options.kernel.kernel.as_ref(), &[Mode::Private], Some(&words), Some(LIMIT))?;
    let manifest = guest.manifest.as_ref().ok_or(AcceleratorError::NotBuilt("tcg"))?;
    let mut archive = Archive::new();
    archive.file_from(TEST_DRIVER_PATH, 0o644, &manifest.test_driver)?;
    append(&mut guest.spec.run.request, &archive.to_bytes()?);
    let accelerator = options.guest.accelerator(guest.manifest.as_ref())?;
    let connection = Connection {
        sink: Some(Box::new(io::stdout())),
        interactive: false,
        keys: false,
        verbatim: false,
        cold: options.guest.is_cold(),
        control: options.guest.control.clone(),
        collect: None,
        shares: Vec::new(),
        progress: Box::new(report::say),
    };
    let (outcome, log) = launch(&guest.spec, &accelerator, connection)?;
    report::ending(&outcome, &log, Shown::Already);
    Ok(outcome.status())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz test`: boots a guest and runs the guest-side tests in it, once for each memory type.

use std::time::Duration;

use clap::{Args, ValueEnum};
use ersatz_guest_image::initramfs::command_archive;

use super::CommandError;
use super::guest::{GuestOptions, Mode};

/// The tests, in the guest.
const PROGRAM: &str = "/bin/ersatz-guest-tests";

/// The time limit of one boot, unless `--timeout` says otherwise.
const BOOT_LIMIT: Duration = Duration::from_secs(600);

/// Run the guest-side tests, in one boot for each memory type
///
/// Exit status: 0 all passed, 1 one failed, 4 all were skipped; else as for `ersatz run`.
#[derive(Debug, Args)]
pub struct TestOptions {
    #[command(flatten)]
    guest: GuestOptions,
    /// Memory types to run the tests with, each in a guest of its own
    #[arg(long, value_name = "MODE[,MODE...]", value_enum, value_delimiter = ',', default_values = ["private", "coherent"], help_heading = "Tests")]
    mode: Vec<Mode>,
    /// List the tests instead of running them
    #[arg(long, help_heading = "Tests")]
    list: bool,
    /// How to report
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "human", help_heading = "Tests")]
    format: Format,
    /// Run only tests whose name contains one of these
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
}

/// How results are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line a test, and a summary.
    Human,
    /// KTAP version 1, as the guest printed it.
    Ktap,
}

/// Runs the tests; returns the exit status.
///
/// # Errors
///
/// If a guest cannot be run at all.
pub fn run(options: &TestOptions) -> Result<u8, CommandError> {
    let mut words = vec![PROGRAM.to_owned()];
    if options.list {
        words.push("--list".to_owned());
    }
    words.extend(options.filter.iter().cloned());
    let tail = command_archive(&words)?;
    let guest = options.guest.guest(&options.mode, tail, Some(BOOT_LIMIT))?;
    Err(format!("cannot run {} as {:?} yet", guest.spec.kernel.display(), options.format).into())
}

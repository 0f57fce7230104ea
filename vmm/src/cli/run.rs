// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz run`: boots a guest with its GPUs and runs one command in it, or a shell.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::CommandError;
use super::artifacts;
use super::guest::{GuestOptions, KernelOption, Mode};
use super::report::{self, Shown};
use crate::accel::accelerator::Accelerator;
use crate::bring::BringOptions;
use crate::collect::Collector;
use crate::launch::{Connection, launch};
use crate::outcome::{Outcome, STATUS_FAILED, STATUS_NOT_COLLECTED};

/// The time limit of a command, unless `--timeout` says otherwise. A shell has none.
const COMMAND_LIMIT: Duration = Duration::from_secs(600);

/// Boot a guest with its GPUs; run a command in it, or a shell
///
/// Without CMD the guest's console is the terminal: Ctrl-A x ends the guest, Ctrl-A a types a Ctrl-A. With CMD the guest runs
/// that, for at most 10 minutes unless --timeout says otherwise, and ersatz ends with its exit status. Under tcg CMD reads and writes the
/// standard streams of ersatz, byte by byte; elsewhere its output comes by the console, together with the kernel's messages.
#[derive(Debug, Args)]
pub struct RunOptions {
    #[command(flatten)]
    kernel: KernelOption,
    #[command(flatten)]
    pub(super) guest: GuestOptions,
    /// How the driver registers VRAM: one for all GPUs, or one each
    #[arg(
        long,
        value_name = "MODE[,MODE...]",
        value_enum,
        value_delimiter = ',',
        default_value = "private",
        help_heading = "Device"
    )]
    mode: Vec<Mode>,
    /// Give CMD the terminal, as the shell has it
    #[arg(long, short)]
    interactive: bool,
    /// Write what the kernel prints on the guest's console to FILE (tcg with CMD, whose streams are apart from the console)
    #[arg(long, value_name = "FILE")]
    console: Option<PathBuf>,
    /// What the run brings.
    #[command(flatten)]
    bring: BringOptions,
    /// What to run in the guest instead of a shell: a program of the guest, one that --add brings, or the path of one on this machine
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Runs the guest; returns the exit status.
///
/// # Errors
///
/// Fails if the guest cannot be run at all. How it ended, however badly, is a status.
pub fn run(options: &RunOptions) -> Result<u8, CommandError> {
    let is_shell = options.command.is_empty();
    let limit = (!is_shell).then_some(COMMAND_LIMIT);
    let kernel = options.kernel.kernel.as_ref();
    let manifest = artifacts::find(kernel, options.guest.initramfs.is_some())?;
    report::say_kernel(manifest.as_ref());
    let accelerator = options.guest.accelerator(manifest.as_ref())?;
    // An initramfs given by hand has a PID 1 that may not know of streams.
    let streams = !is_shell
        && !options.interactive
        && options.guest.initramfs.is_none()
        && matches!(accelerator, Accelerator::Tcg(_));
    if options.guest.initramfs.is_some() && !(options.bring.collect.is_empty() && options.bring.share.is_empty()) {
        return Err("--collect and --share need the PID 1 of the built initramfs; leave --initramfs out".into());
    }
    let archives = options.guest.archives(manifest.as_ref());
    let memory = options.guest.resources.memory;
    let brought = options.bring.pack(manifest.as_ref(), &archives, &options.command, memory, streams)?;
    let mut guest = options.guest.guest(kernel, &options.mode, (!is_shell).then_some(&brought.command), limit)?;
    guest.spec.run.archives.extend(brought.archive());
    guest.spec.run.streams = streams;
    let wanted = &options.bring.collect;
    let (collector, port) =
        if wanted.is_empty() { (None, None) } else { Some(Collector::start(wanted.clone())?).unzip() };
    let connection = Connection {
        sink: console(options.console.as_deref(), streams)?,
        interactive: is_shell || options.interactive,
        keys: true,
        verbatim: false,
        cold: options.guest.is_cold(),
        control: options.guest.control.clone(),
        collect: port.zip(collector.as_ref().map(Collector::link)),
        shares: options.bring.share.clone(),
        progress: Box::new(report::say),
    };
    let (outcome, log) = launch(&guest.spec, &accelerator, connection)?;
    if streams && outcome == Outcome::Exited(STATUS_FAILED) {
        // PID 1 says on the console what it could not do.
        report::last_lines(&log);
    }
    report::ending(&outcome, &log, if streams { Shown::Not } else { Shown::Already });
    let collected = collector.map(Collector::finish).unwrap_or_default();
    collected.lines().iter().for_each(|line| report::say(line));
    Ok(match outcome.status() {
        0 if collected.has_failed() => STATUS_NOT_COLLECTED,
        status => status,
    })
}

/// Where the console goes. With streams of the command's own it has only what the kernel and PID 1 print, which is kept for the end.
fn console(file: Option<&Path>, streams: bool) -> Result<Option<Box<dyn Write + Send>>, CommandError> {
    match file {
        Some(_) if !streams => Err(
            "--console takes a CMD and --accel tcg: else CMD and the kernel print to the same console, which is shown"
                .into(),
        ),
        Some(path) => {
            let file = File::create(path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            Ok(Some(Box::new(file)))
        }
        None if streams => Ok(None),
        None => Ok(Some(Box::new(io::stdout()))),
    }
}

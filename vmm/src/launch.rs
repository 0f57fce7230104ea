// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Running one guest, from its description to its [`Outcome`], on any accelerator.
//!
//! Stands between the command line, which has the description, and [`accel`](crate::accel), which runs it: takes the terminal and
//! the signals, and gives them back.

use std::io::{self, Write};
use std::path::PathBuf;

use thiserror::Error;

use crate::accel::accelerator::Accelerator;
use crate::accel::kvm::{self, KvmRunError};
use crate::accel::nested::{self, NestedError};
use crate::accel::tcg::{self, TcgError};
use crate::attachments::Attachments;
use crate::collect::GuestLink;
use crate::console::log::ConsoleLog;
use crate::console::output::{ConsoleOutput, Style};
use crate::console::terminal::{RawTerminal, follow_input};
use crate::control::server::{ControlError, ControlServer};
use crate::gpu::registry::GpuRegistry;
use crate::guest_port::GuestPort;
use crate::outcome::Outcome;
use crate::share::SharedFolder;
use crate::signals::Signals;
use crate::spec::GuestSpec;
use crate::supervisor::{Event, Watch};

/// Why a guest was not run, or not to its end.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// Exits cannot be counted under TCG.
    #[error("--exit-counts counts exits to the VMM, and under --accel tcg the guest has none; use nested or kvm")]
    NoExits,
    /// The device of a nested guest is not in this process.
    #[error(
        "--control reaches a device on this host, and under --accel nested it is inside the outer machine; \
         use --accel tcg or kvm, or have the device do things from its start on by --rules"
    )]
    ControlInside,
    /// The guest's bus is not this VMM's, or not on this machine.
    #[error("--vfio hands out devices of this machine, which --accel kvm alone can; add that")]
    VfioElsewhere,
    /// The guest has no port to send files by.
    #[error("--collect takes --accel tcg; add that, or print what is wanted, as in -- sh -c 'prog; cat /tmp/log'")]
    CollectElsewhere,
    /// The guest has no device to share folders by.
    #[error("--share takes --accel tcg; add that, or bring a copy of the folder with --add")]
    ShareElsewhere,
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// On KVM.
    #[error(transparent)]
    Kvm(#[from] KvmRunError),
    /// In an outer machine.
    #[error(transparent)]
    Nested(#[from] NestedError),
    /// Under QEMU.
    #[error(transparent)]
    Tcg(#[from] TcgError),
    /// Terminal, signals or threads.
    #[error("cannot connect the guest to this terminal")]
    Terminal(#[from] io::Error),
}

/// How a guest is connected to the user.
pub struct Connection {
    /// Receives the guest's console output, as the log does.
    pub sink: Option<Box<dyn Write + Send>>,
    /// Whether standard input goes to the guest, in raw mode if it is a terminal.
    pub interactive: bool,
    /// Whether Ctrl-A x ends the guest; only if interactive.
    pub keys: bool,
    /// Whether the console is passed on unchanged, for another process to show.
    pub verbatim: bool,
    /// Whether the guest boots though it could start from a snapshot.
    pub cold: bool,
    /// Path of the control socket for the GPUs.
    pub control: Option<PathBuf>,
    /// The port by which the guest sends files at its end, and the link to the guest over it. The request must say so, too
    /// ([`COLLECT_PATH`](ersatz_guest_image::collect::COLLECT_PATH)).
    pub collect: Option<(GuestPort, GuestLink)>,
    /// The folders that the guest shares. The request must say so, too ([`SHARES_PATH`](ersatz_guest_image::share::SHARES_PATH)).
    pub shares: Vec<SharedFolder>,
    /// Called with the steps of a long start, and with exit counts.
    pub progress: Box<dyn FnMut(&str)>,
}

/// Runs a guest. Returns how it ended, and the end of its console output.
///
/// # Errors
///
/// Fails if it could not be run.
pub fn launch(
    spec: &GuestSpec,
    accelerator: &Accelerator,
    mut connection: Connection,
) -> Result<(Outcome, ConsoleLog), LaunchError> {
    let log = ConsoleLog::new();
    let stop = Event::new()?;
    let _signals = Signals::follow(&stop)?;
    let terminal = if connection.interactive { RawTerminal::take()? } else { None };
    let input = if connection.interactive {
        let quit = stop.clone();
        Some(follow_input(connection.keys, move || quit.set())?)
    } else {
        None
    };
    let style = if terminal.is_some() || connection.verbatim { Style::Raw } else { Style::Text };
    let output = ConsoleOutput::new(log.clone(), connection.sink.take(), style);
    let gpus = GpuRegistry::default();
    if !spec.run.vfio.is_empty() && !matches!(accelerator, Accelerator::Kvm) {
        return Err(LaunchError::VfioElsewhere);
    }
    let _control = match &connection.control {
        Some(_) if matches!(accelerator, Accelerator::Nested(_)) => return Err(LaunchError::ControlInside),
        Some(path) => Some(ControlServer::start(path, gpus.clone())?),
        None => None,
    };
    if connection.collect.is_some() && !matches!(accelerator, Accelerator::Tcg(_)) {
        return Err(LaunchError::CollectElsewhere);
    }
    if !connection.shares.is_empty() && !matches!(accelerator, Accelerator::Tcg(_)) {
        return Err(LaunchError::ShareElsewhere);
    }
    let (port, collect) = connection.collect.unzip();
    let attachments = Attachments { ports: port.into_iter().collect(), shares: connection.shares };
    let watch = Watch { log: log.clone(), limit: spec.run.timeout, silence: spec.run.silence, stop, gpus, collect };
    let outcome = match accelerator {
        Accelerator::Kvm => kvm::run(spec, output, input, &watch, &mut connection.progress)?,
        Accelerator::Tcg(_) if spec.run.exit_counts => return Err(LaunchError::NoExits),
        Accelerator::Tcg(qemu) => {
            tcg::run(spec, qemu, connection.cold, output, input, attachments, &watch, &mut connection.progress)?
        }
        Accelerator::Nested(artifacts) => {
            let mut console = nested::Console { input, output: Box::new(output), errors: Box::new(io::stderr()) };
            nested::run(spec, artifacts, connection.cold, &mut console, &watch.stop, &mut connection.progress)?
        }
    };
    Ok((outcome, log))
}

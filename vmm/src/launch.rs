// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One guest from its description to its [`Outcome`], on whichever accelerator.
//!
//! Between the command line, which knows what is wanted, and [`accel`](crate::accel), which knows how to run it: this
//! takes the terminal and the signals, and gives them back.

use std::io::{self, Write};

use thiserror::Error;

use crate::accel::accelerator::Accelerator;
use crate::accel::kvm::{self, KvmRunError};
use crate::accel::nested::{self, NestedError};
use crate::accel::tcg::{self, TcgError};
use crate::console::log::ConsoleLog;
use crate::console::output::{ConsoleOutput, Style};
use crate::console::terminal::{RawTerminal, follow_input};
use crate::outcome::Outcome;
use crate::signals::Signals;
use crate::spec::GuestSpec;
use crate::supervisor::{Event, Watch};

/// Why a guest was not run, or not to its end.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// Exits were to be counted where there are none.
    #[error("--exit-counts counts exits to our VMM, and under --accel tcg the guest has none; use nested or kvm")]
    NoExits,
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
    /// Gets the guest's console, besides the log.
    pub sink: Option<Box<dyn Write + Send>>,
    /// Whether the guest gets what is typed, and the terminal in raw mode if there is one.
    pub interactive: bool,
    /// Whether Ctrl-A x ends the guest; only if interactive.
    pub keys: bool,
    /// Whether the console is passed on as it is, for somebody else to show.
    pub verbatim: bool,
    /// Whether the guest boots though it could start from a snapshot.
    pub cold: bool,
    /// Hears of the steps of a long start, and of exit counts.
    pub progress: Box<dyn FnMut(&str)>,
}

/// Runs a guest; how it ended, and what its console said last.
///
/// # Errors
///
/// If it could not be run.
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
    let watch = Watch { log: log.clone(), limit: spec.run.timeout, stop };
    let outcome = match accelerator {
        Accelerator::Kvm => kvm::run(spec, output, input, &watch, &mut connection.progress)?,
        Accelerator::Tcg(_) if spec.run.exit_counts => return Err(LaunchError::NoExits),
        Accelerator::Tcg(qemu) => {
            tcg::run(spec, qemu, connection.cold, output, input, &watch, &mut connection.progress)?
        }
        Accelerator::Nested(artifacts) => {
            let mut console = nested::Console { input, output: Box::new(output), errors: Box::new(io::stderr()) };
            nested::run(spec, artifacts, connection.cold, &mut console, &watch.stop, &mut connection.progress)?
        }
    };
    Ok((outcome, log))
}

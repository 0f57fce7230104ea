// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One guest from its description to its [`Outcome`], on whichever accelerator.
//!
//! Between the command line, which knows what is wanted, and [`accel`](crate::accel), which knows how to run it: this
//! takes the terminal and the signals, and gives them back.

use std::io::{self, Write};
use std::path::PathBuf;

use ersatz_guest_image::manifest::Manifest;
use thiserror::Error;

use crate::accel::kvm::{self, KvmRunError};
use crate::accel::nested::{self, Ground, NestedError};
use crate::accel::probe::probe;
use crate::accel::tcg::{self, TcgError};
use crate::console::log::ConsoleLog;
use crate::console::output::{ConsoleOutput, Style};
use crate::console::terminal::{RawTerminal, follow_input};
use crate::outcome::Outcome;
use crate::qemu::{Qemu, UnfitError, check_vfio_user};
use crate::signals::Signals;
use crate::spec::GuestSpec;
use crate::supervisor::{Event, Watch};

/// What carries a guest.
#[derive(Clone, Debug)]
pub enum Carrier {
    /// Our machine on this machine's KVM.
    Kvm,
    /// Our machine on the KVM of an emulated machine.
    Nested(Ground),
    /// QEMU's emulation.
    Tcg(Qemu),
}

/// Why a guest was not run, or not to its end.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// Something must be built first.
    #[error("--accel {0} needs what `cargo xtask build` builds; run that first")]
    NotBuilt(&'static str),
    /// The QEMU that was named will not do.
    #[error(transparent)]
    Unfit(#[from] UnfitError),
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

/// The accelerators one can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// KVM if it works, else nested.
    Auto,
    /// KVM.
    Kvm,
    /// Nested.
    Nested,
    /// QEMU's emulation.
    Tcg,
}

impl Carrier {
    /// Decides what carries a guest. `said` hears what was chosen and why, if that was left to us.
    ///
    /// # Errors
    ///
    /// If what it needs is not there.
    pub fn choose(
        wanted: Wanted,
        qemu: Option<PathBuf>,
        manifest: Option<&Manifest>,
        said: &mut dyn FnMut(&str),
    ) -> Result<Self, LaunchError> {
        let choose_qemu = |name| match (&qemu, manifest) {
            (named @ Some(_), _) => Ok(Qemu::choose(named.as_deref(), "".as_ref())),
            (None, Some(manifest)) => Ok(Qemu::choose(None, &manifest.toolchain_root)),
            (None, None) => Err(LaunchError::NotBuilt(name)),
        };
        let nested = || {
            let manifest = manifest.ok_or(LaunchError::NotBuilt("nested"))?;
            Ok(Self::Nested(Ground::new(manifest, choose_qemu("nested")?)))
        };
        match wanted {
            Wanted::Kvm => Ok(Self::Kvm),
            Wanted::Nested => nested(),
            Wanted::Tcg => {
                let chosen = choose_qemu("tcg")?;
                if qemu.is_some() {
                    check_vfio_user(&chosen)?;
                }
                Ok(Self::Tcg(chosen))
            }
            Wanted::Auto => {
                let verdict = probe();
                if verdict.works() {
                    said(&format!("--accel kvm, since {verdict}"));
                    Ok(Self::Kvm)
                } else {
                    said(&format!("--accel nested, since {verdict}"));
                    nested()
                }
            }
        }
    }
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
    carrier: &Carrier,
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
    let outcome = match carrier {
        Carrier::Kvm => kvm::run(spec, output, input, &watch, &mut connection.progress)?,
        Carrier::Tcg(_) if spec.run.exit_counts => return Err(LaunchError::NoExits),
        Carrier::Tcg(qemu) => tcg::run(spec, qemu, connection.cold, output, input, &watch, &mut connection.progress)?,
        Carrier::Nested(ground) => {
            let mut console = nested::Console { input, output: Box::new(output), errors: Box::new(io::stderr()) };
            nested::run(spec, ground, connection.cold, &mut console, &watch.stop, &mut connection.progress)?
        }
    };
    Ok((outcome, log))
}

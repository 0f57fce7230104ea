// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The names of the tests. Those of the built guest are kept beside it, so none is booted to list them; an initramfs given by hand has
//! tests of its own, which only a guest can list.

use std::fs;

use ersatz_guest_image::hmm_test;

use super::suite::Suite;
use super::{LIMIT, PROGRAM, TestOptions};
use crate::cli::CommandError;
use crate::cli::artifacts;
use crate::cli::report::{self, Shown, say};
use crate::console::recorder::Recorder;
use crate::launch::{Connection, launch};
use crate::outcome::Outcome;

/// Returns the names of all tests, in the order in which they run; or how the guest that should list them ended, which is then reported.
pub(super) fn names(options: &TestOptions, suite: Suite) -> Result<Result<Vec<String>, Outcome>, CommandError> {
    if options.guest.initramfs.is_some() {
        return names_of_guest(options);
    }
    let manifest = artifacts::find(options.kernel.kernel.as_ref(), false)?
        .ok_or("no built guest, which has the tests, was found; give its --initramfs, too")?;
    let (path, prefix) = match suite {
        Suite::Guest => (manifest.test_names, String::new()),
        Suite::Hmm(_) => (manifest.hmm_test_names, format!("{}.", hmm_test::SUITE)),
    };
    let text = fs::read_to_string(&path).map_err(|error| {
        format!("cannot read {}, which lists the tests: {error}; run `cargo xtask build` again", path.display())
    })?;
    Ok(Ok(text.lines().map(|name| format!("{prefix}{name}")).collect()))
}

fn names_of_guest(options: &TestOptions) -> Result<Result<Vec<String>, Outcome>, CommandError> {
    let words = [PROGRAM, "--list"].map(str::to_owned);
    let guest = options.guest.guest(options.kernel.kernel.as_ref(), &options.mode[..1], Some(&words), LIMIT)?;
    let accelerator = options.guest.accelerator(guest.manifest.as_ref())?;
    let mut spec = guest.spec;
    // The logs are for the guests that run tests.
    spec.run.devices.iter_mut().for_each(|gpu| gpu.trace = None);
    let console = Recorder::default();
    let connection = Connection {
        sink: Some(Box::new(console.clone())),
        interactive: false,
        keys: false,
        verbatim: false,
        cold: options.guest.is_cold(),
        control: None,
        collect: None,
        shares: Vec::new(),
        progress: Box::new(say),
    };
    let (outcome, log) = launch(&spec, &accelerator, connection)?;
    if outcome != Outcome::Exited(0) {
        report::ending(&outcome, &log, Shown::Not);
        return Ok(Err(outcome));
    }
    // A name has no blanks; messages of the kernel in between have.
    let is_name = |line: &&str| line.contains('.') && !line.contains(char::is_whitespace);
    let text = String::from_utf8_lossy(&console.take()).into_owned();
    Ok(Ok(text.lines().map(str::trim).filter(is_name).map(str::to_owned).collect()))
}

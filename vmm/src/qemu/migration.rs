// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Saving the state of a machine that QEMU emulates, and loading it into another QEMU with the same machine.
//!
//! Guest memory is left out (`x-ignore-shared`): it is in a file that is shared with QEMU, and copied as one.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use thiserror::Error;

use super::{Monitor, QmpError};

/// How long QEMU may take: a thousand times what it takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often to ask whether it is done.
const LOOK: Duration = Duration::from_millis(2);

/// Why a state was not saved or loaded.
#[derive(Debug, Error)]
pub enum MigrationError {
    /// QEMU does not answer, or refuses.
    #[error(transparent)]
    Monitor(#[from] QmpError),
    /// It failed.
    #[error("QEMU could not {what} the state of the machine: {reason}")]
    Failed {
        /// Save or load.
        what: &'static str,
        /// QEMU's reason.
        reason: String,
    },
    /// The state could not be read back.
    #[error("cannot read the state of the machine")]
    Read(#[source] std::io::Error),
}

/// Saves the state of a stopped machine. `scratch` is an empty file that QEMU has inherited.
///
/// # Errors
///
/// Fails if QEMU cannot.
pub fn save(monitor: &mut Monitor, scratch: &File) -> Result<Vec<u8>, MigrationError> {
    leave_memory_out(monitor)?;
    monitor.execute("migrate", &json!({ "uri": uri(scratch) }))?;
    wait(monitor, "save")?;
    let mut state = Vec::new();
    let mut file = File::open(format!("/proc/self/fd/{}", scratch.as_raw_fd())).map_err(MigrationError::Read)?;
    file.read_to_end(&mut state).map_err(MigrationError::Read)?;
    Ok(state)
}

/// Loads a state into a machine that was started to wait for it. `state` is a file that QEMU has inherited.
///
/// # Errors
///
/// Fails if QEMU cannot.
pub fn load(monitor: &mut Monitor, state: &File) -> Result<(), MigrationError> {
    leave_memory_out(monitor)?;
    monitor.execute("migrate-incoming", &json!({ "uri": uri(state) }))?;
    wait(monitor, "load")
}

/// The descriptor has the same number in QEMU, which inherited it.
fn uri(file: &File) -> String {
    format!("file:/proc/self/fd/{}", file.as_raw_fd())
}

fn leave_memory_out(monitor: &mut Monitor) -> Result<(), QmpError> {
    let capabilities = json!({ "capabilities": [{ "capability": "x-ignore-shared", "state": true }] });
    monitor.execute("migrate-set-capabilities", &capabilities).map(drop)
}

fn wait(monitor: &mut Monitor, what: &'static str) -> Result<(), MigrationError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = monitor.execute("query-migrate", &json!({}))?;
        let failed = |reason: &str| MigrationError::Failed { what, reason: reason.to_owned() };
        match answer["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed") => return Err(failed(answer["error-desc"].as_str().unwrap_or("no reason given"))),
            _ if Instant::now() > deadline => return Err(failed("it takes too long")),
            _ => thread::sleep(LOOK),
        }
    }
}

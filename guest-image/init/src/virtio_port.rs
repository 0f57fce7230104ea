// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Virtio-serial ports to the host, found by their names.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use thiserror::Error;

/// One folder per port, each with its name.
const PORTS: &str = "/sys/class/virtio-ports";
/// How often a port is looked for: a restored guest has it only now.
const LOOK: Duration = Duration::from_millis(2);
/// How long it may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a port cannot be used.
#[derive(Debug, Error)]
pub enum PortError {
    /// It did not come.
    #[error("the virtio-serial port {0} is not there after {PATIENCE:?}")]
    Absent(&'static str),
    /// It cannot be opened.
    #[error("cannot open the virtio-serial port {path}")]
    Open {
        /// Its device node.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// What a port is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The guest reads.
    In,
    /// The guest writes.
    Out,
    /// The guest does both.
    Both,
}

/// Opens the port with a name, which may be plugged in only now. A port can be open once at a time.
///
/// # Errors
///
/// Fails if it is not there in time, or cannot be opened.
pub fn open(name: &'static str, direction: Direction) -> Result<File, PortError> {
    let deadline = Instant::now() + PATIENCE;
    let path = loop {
        if let Some(path) = find(Path::new(PORTS), name) {
            break path;
        }
        if Instant::now() > deadline {
            return Err(PortError::Absent(name));
        }
        sleep(LOOK);
    };
    let (reads, writes) = (direction != Direction::Out, direction != Direction::In);
    File::options().read(reads).write(writes).open(&path).map_err(|source| PortError::Open { path, source })
}

/// The device node of the port with a name, if both are there.
fn find(ports: &Path, name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(ports).ok()?.flatten() {
        // A port without a name, or one that has just come, has no such file.
        if fs::read_to_string(entry.path().join("name")).is_ok_and(|found| found.trim_end() == name) {
            let node = Path::new("/dev").join(entry.file_name());
            return node.exists().then_some(node);
        }
    }
    None
}

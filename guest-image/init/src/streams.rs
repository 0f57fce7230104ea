// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The standard streams of the command as virtio-serial ports: every byte reaches the host as it is, and the console is left to the
//! kernel.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ersatz_guest_image::run::STREAM_PORTS;
use thiserror::Error;

/// One folder per port, each with its name.
const PORTS: &str = "/sys/class/virtio-ports";
/// How often the ports are looked for: a restored guest has them only now.
const LOOK: Duration = Duration::from_millis(2);
/// How long they may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why the streams cannot be used.
#[derive(Debug, Error)]
pub enum StreamError {
    /// A port did not come.
    #[error("the virtio-serial port {0} is not there after {PATIENCE:?}")]
    Absent(&'static str),
    /// A port cannot be opened.
    #[error("cannot open the virtio-serial port {path}")]
    Open {
        /// Its device node.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Opens standard input, output and error.
///
/// # Errors
///
/// Fails if one is not there in time, or cannot be opened.
pub fn open() -> Result<[File; 3], StreamError> {
    let deadline = Instant::now() + PATIENCE;
    let [input, output, errors] = STREAM_PORTS;
    let wait = |name: &'static str| loop {
        if let Some(path) = find(Path::new(PORTS), name) {
            return Ok(path);
        }
        if Instant::now() > deadline {
            return Err(StreamError::Absent(name));
        }
        sleep(LOOK);
    };
    let open = |path: PathBuf, is_input: bool| {
        let opened = File::options().read(is_input).write(!is_input).open(&path);
        opened.map_err(|source| StreamError::Open { path, source })
    };
    Ok([open(wait(input)?, true)?, open(wait(output)?, false)?, open(wait(errors)?, false)?])
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

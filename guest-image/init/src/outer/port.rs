// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The virtio-serial port to the host.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ersatz_guest_image::outer::PORT_NAME;
use ersatz_guest_image::outer::channel::Message;
use thiserror::Error;

/// One folder per port, each with its name.
const PORTS: &str = "/sys/class/virtio-ports";

/// Time between heartbeats to the host.
const BEAT: Duration = Duration::from_secs(1);

/// Why the port cannot be used.
#[derive(Debug, Error)]
pub enum PortError {
    /// The machine has no port of the right name.
    #[error("no virtio-serial port named {PORT_NAME} in {PORTS}")]
    Absent(#[source] io::Error),
    /// It cannot be opened.
    #[error("cannot open the virtio-serial port {path}")]
    Open {
        /// Its device node.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The port, shared by the threads that send.
#[derive(Clone)]
pub struct Port(Arc<Inner>);

struct Inner {
    reader: File,
    writer: Mutex<File>,
}

impl Port {
    /// Finds the port by its name and opens it.
    ///
    /// # Errors
    ///
    /// Fails if it is not there or cannot be opened.
    pub fn open() -> Result<Self, PortError> {
        let path = find(Path::new(PORTS)).map_err(PortError::Absent)?;
        let open = || -> io::Result<Inner> {
            let reader = File::options().read(true).write(true).open(&path)?;
            let writer = Mutex::new(reader.try_clone()?);
            Ok(Inner { reader, writer })
        };
        Ok(Self(Arc::new(open().map_err(|source| PortError::Open { path: path.clone(), source })?)))
    }

    /// Sends a message, after all that other threads are sending.
    pub fn send(&self, message: &Message) {
        let mut writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writer.write_all(&message.encode()) {
            // The host is gone, or will notice the gap: only the kernel's console is left.
            eprintln!("ersatz-init: cannot send to the host: {error}");
        }
    }

    /// Returns the reader of the host's messages.
    pub fn reader(&self) -> &File {
        &self.0.reader
    }
}

/// The device node of the port with the right name.
fn find(ports: &Path) -> io::Result<PathBuf> {
    for entry in std::fs::read_dir(ports)? {
        let entry = entry?;
        // A port without a name has no such file.
        if std::fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim_end() == PORT_NAME) {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::from(io::ErrorKind::NotFound))
}

/// Starts the thread that sends heartbeats until the machine ends.
pub fn beat(port: &Port) {
    let port = port.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(BEAT);
            port.send(&Message::Heartbeat);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_by_its_name() {
        let folder = std::env::temp_dir().join(format!("ersatz-init-ports-{}", std::process::id()));
        for (node, name) in [("vport1p0", None), ("vport1p1", Some("org.example")), ("vport1p2", Some(PORT_NAME))] {
            std::fs::create_dir_all(folder.join(node)).unwrap();
            if let Some(name) = name {
                std::fs::write(folder.join(node).join("name"), format!("{name}\n")).unwrap();
            }
        }
        let found = find(&folder);
        std::fs::write(folder.join("vport1p2/name"), "other\n").unwrap();
        let absent = find(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found.unwrap(), Path::new("/dev/vport1p2"));
        assert_eq!(absent.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

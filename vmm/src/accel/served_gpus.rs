// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The GPUs of a machine under QEMU: each with a vfio-user server on a thread of its own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::{env, fs, io, process};

use ersatz_device_model::fabric::{FABRIC_PORTS, Fabric};
use ersatz_guest_image::error_chain::chain;
use rustix::fs::{Mode, OFlags, open};
use serde_json::{Value, json};
use thiserror::Error;

use crate::gpu::registry::GpuRegistry;
use crate::gpu::{self, BuildError, GpuAddress};
use crate::spec::GpuSpec;
use crate::supervisor::Event;
use crate::threads::{Role, spawn};
use crate::vfio_user::server::{self, Clients, ServeError, Until};

/// How long QEMU waits for a reply of the device, in milliseconds; afterwards the link is dead.
const MESSAGE_TIMEOUT: u32 = 60_000;

/// Why devices could not be made.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// There are more than a fabric links.
    #[error("a guest may have at most {FABRIC_PORTS} GPUs, not {0}")]
    TooMany(usize),
    /// One could not be made.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// One could not be served.
    #[error("cannot serve GPU {index} to QEMU")]
    Serve {
        /// Its number.
        index: u8,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The served devices. Dropping them waits until their servers have ended.
#[derive(Debug)]
pub(in crate::accel) struct Devices {
    stop: Event,
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    socket: OwnedFd,
    ended: Event,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Devices {
    /// Makes the devices, and enters them in a registry; each listens when this returns.
    pub(in crate::accel) fn start(specs: &[GpuSpec], registry: &GpuRegistry) -> Result<Self, DeviceError> {
        let stop = Event::new().map_err(|source| DeviceError::Serve { index: 0, source })?;
        let mut devices = Self { stop, servers: Vec::new() };
        if specs.len() > usize::from(FABRIC_PORTS) {
            return Err(DeviceError::TooMany(specs.len()));
        }
        let fabric = Fabric::new();
        for (index, spec) in (0..).zip(specs) {
            let address = GpuAddress { index, fabric: fabric.clone(), requester_id: 0, registry: registry.clone() };
            let backend = gpu::build_backend(spec, &address, true)?;
            let started = listen(index).and_then(|(socket, listener)| {
                let (ended, stop) = (Event::new()?, devices.stop.clone());
                let at_end = ended.clone();
                let serve = move || {
                    let result = server::serve(&listener, backend, Until::FirstClientLeft, Clients::OfThisUser, &stop);
                    at_end.set();
                    result
                };
                let thread = spawn(Role::VfioUserServer(index), serve)?;
                Ok(Server { socket, ended, thread: Some(thread) })
            });
            devices.servers.push(started.map_err(|source| DeviceError::Serve { index, source })?);
        }
        Ok(devices)
    }

    /// Copies of the descriptors that QEMU is to inherit, one per device: each leads to the inode of the device's socket.
    pub(in crate::accel) fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        self.servers.iter().map(|server| server.socket.try_clone()).collect()
    }

    /// Returns for each device an event that happens when its server has ended.
    pub(in crate::accel) fn ends(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.servers.iter().map(|server| server.ended.as_fd())
    }

    /// Why a server has ended.
    pub(in crate::accel) fn reason(&mut self, index: usize) -> String {
        let thread = self.servers.get_mut(index).and_then(|server| server.thread.take());
        match thread.map(JoinHandle::join) {
            Some(Ok(Ok(()))) => "the connection was closed".to_owned(),
            Some(Ok(Err(error))) => chain(&error).to_string(),
            Some(Err(_)) => "the server panicked".to_owned(),
            None => "the server has ended".to_owned(),
        }
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        self.stop.set();
        for server in &mut self.servers {
            if let Some(Ok(Err(error))) = server.thread.take().map(JoinHandle::join) {
                log::warn!("vfio-user: {}", chain(&error));
            }
        }
    }
}

/// A GPU, as QEMU takes it on the command line and by `device_add`. `socket` leads to the inode of its socket, `bus` is the name of
/// its root port.
pub(in crate::accel) fn gpu(socket: RawFd, number: u8, bus: &str) -> Value {
    json!({
        "driver": "vfio-user-pci",
        "id": format!("gpu{number}"),
        "bus": bus,
        "socket": { "type": "unix", "path": format!("/proc/self/fd/{socket}") },
        "x-msg-timeout": MESSAGE_TIMEOUT,
    })
}

/// Listens on a socket that QEMU finds by a descriptor it inherits: vfio-user-pci takes nothing but the path of a socket file,
/// and a file that exists only between bind and unlink is unlikely to be left over. Its inode stays reachable through
/// `/proc/self/fd`.
fn listen(index: u8) -> io::Result<(OwnedFd, UnixListener)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let name = format!("ersatz-{}-{}-gpu{index}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        let listener = match UnixListener::bind(&path) {
            Ok(listener) => listener,
            // Left over by a process with the same id that was killed between the two.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
            Err(error) => return Err(error),
        };
        let inode = open(&path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        fs::remove_file(&path)?;
        return Ok((inode?, listener));
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_is_reached_by_its_descriptor_and_leaves_no_file() {
        let (inode, listener) = listen(0).unwrap();
        let path = format!("/proc/self/fd/{}", inode.as_raw_fd());
        let mut client = UnixStream::connect(&path).unwrap();
        let (mut server, address) = listener.accept().unwrap();
        io::Write::write_all(&mut client, b"x").unwrap();
        io::Read::read_exact(&mut server, &mut [0]).unwrap();
        assert!(address.is_unnamed());
        assert!(fs::read_link(&path).unwrap().to_string_lossy().ends_with("(deleted)"));
    }
}

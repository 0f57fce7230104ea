// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz device`: serves GPUs over vfio-user, for a QEMU of the user's own.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::{self, ScopedJoinHandle};

use clap::Args;
use ersatz_device_model::fabric::Fabric;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::socket_reaper::SocketReaper;
use super::{CommandError, size};
use crate::control::server::ControlServer;
use crate::gpu::registry::GpuRegistry;
use crate::gpu::{self, GpuAddress};
use crate::spec::GpuSpec;
use crate::threads::{Role, spawn_scoped};
use crate::vfio_user::server::{self, Clients, ServeError, Until};
use crate::vfio_user::socket::Socket;

/// Serve GPUs over vfio-user, for a QEMU of your own
///
/// Start this first, then QEMU with
///   -object memory-backend-memfd,id=m,size=1G,share=on -machine q35,memory-backend=m
///   -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"PATH"},"x-msg-timeout":60000}'
/// Clients are served one after the other until Ctrl-C; the device is reset in between. Several sockets are several
/// GPUs, linked with each other; the Nth has peer number N - 1.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct DeviceOptions {
    /// Unix socket to listen on, one for each GPU; a stale one is replaced
    #[arg(long = "socket", value_name = "PATH", required = true)]
    sockets: Vec<PathBuf>,
    #[command(flatten)]
    gpu: GpuSpec,
    /// Have `ersatz ctl PATH` reach the GPUs, by a socket of this user's (see docs/injection.md)
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Keep the content of VRAM from one client to the next
    #[arg(long)]
    keep_vram: bool,
    /// End when the first client leaves
    #[arg(long)]
    once: bool,
}

/// Serves until interrupted; returns the exit status.
///
/// # Errors
///
/// Fails if the device cannot be made or the socket cannot be listened on.
pub fn run(options: &DeviceOptions) -> Result<u8, CommandError> {
    let stop = &interrupted()?;
    let fabric = Fabric::new();
    // Dropped after the sockets, which are then gone already.
    let paths: Vec<_> = options.sockets.iter().chain(&options.control).cloned().collect();
    let mut reaper = SocketReaper::start(&paths)?;
    let registry = GpuRegistry::default();
    let mut devices = Vec::new();
    let count = u8::try_from(options.sockets.len()).unwrap_or(u8::MAX);
    for ((index, path), gpu) in (0..).zip(&options.sockets).zip(options.gpu.repeat(count)?) {
        let address = GpuAddress { index, fabric: fabric.clone(), requester_id: 0, registry: registry.clone() };
        let backend = gpu::build_backend(&gpu, &address, options.keep_vram)?;
        let socket = Socket::bind(path)?;
        reaper.register(&socket)?;
        devices.push((socket, backend));
        eprintln!("ersatz: {} of VRAM at {}; Ctrl-C ends", size::format(gpu.vram), path.display());
    }
    let control = options.control.as_ref().map(|path| Socket::bind_private(path)).transpose()?;
    if let Some(socket) = &control {
        reaper.register(socket)?;
    }
    let _control = control.map(|socket| ControlServer::serve(socket, registry)).transpose()?;
    let until = if options.once { Until::FirstClientLeft } else { Until::Stopped };
    let ends: Vec<Result<(), ServeError>> = thread::scope(|scope| {
        let serve = |(index, (socket, backend)): (u8, (Socket, _))| {
            let body = move || server::serve(socket.listener(), backend, until, Clients::Anyone, stop);
            spawn_scoped(scope, Role::VfioUserServer(index), body)
        };
        let servers: Vec<_> = (0..).zip(devices).map(serve).collect();
        let join = |server: io::Result<ScopedJoinHandle<'_, _>>| match server {
            Ok(server) => server.join().unwrap_or(Err(ServeError::Panicked)),
            Err(error) => Err(ServeError::Thread(error)),
        };
        servers.into_iter().map(join).collect()
    });
    Ok(ends.into_iter().collect::<Result<(), _>>().map(|()| 0)?)
}

/// Becomes readable on SIGINT, SIGTERM and SIGHUP, which from now on do not end the process by themselves.
fn interrupted() -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

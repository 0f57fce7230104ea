// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz device`: serves GPUs over vfio-user, for a QEMU of the user's own.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use clap::Args;
use ersatz_device_model::fabric::Fabric;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::guest::{bar_of, trace_path, vram_size};
use super::socket_reaper::SocketReaper;
use super::{CommandError, size};
use crate::gpu::{self, GpuAddress};
use crate::spec::GpuSpec;
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
    /// VRAM: a power of two from 2M to 1T; only what is touched takes memory
    #[arg(long, value_name = "SIZE", value_parser = vram_size, default_value = "1G")]
    vram: u64,
    /// VRAM that BAR2 shows: a power of two from 2M on [default: all]
    #[arg(long, value_name = "SIZE", value_parser = vram_size)]
    bar: Option<u64>,
    /// Write what the device sees to FILE (or to gpu0.trace, gpu1.trace... in the folder DIR)
    #[arg(long, value_name = "FILE|DIR")]
    trace: Option<PathBuf>,
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
/// If the device cannot be made or the socket cannot be listened on.
pub fn run(options: &DeviceOptions) -> Result<u8, CommandError> {
    let stop = &interrupted()?;
    let bar = bar_of(options.vram, options.bar)?;
    let fabric = Fabric::new();
    // Dropped after the sockets, which are then gone already.
    let mut reaper = SocketReaper::start(&options.sockets)?;
    let mut devices = Vec::new();
    for (index, path) in (0..).zip(&options.sockets) {
        let trace = options.trace.as_deref().map(|path| trace_path(path, index, options.sockets.len()));
        let address = GpuAddress { index, fabric: fabric.clone(), requester_id: 0 };
        let backend = gpu::build_backend(&GpuSpec { vram: options.vram, bar, trace }, &address, options.keep_vram)?;
        let socket = Socket::bind(path)?;
        reaper.register(&socket)?;
        devices.push((socket, backend));
        eprintln!("ersatz: {} of VRAM at {}; Ctrl-C ends", size::format(options.vram), path.display());
    }
    let until = if options.once { Until::FirstClientLeft } else { Until::Stopped };
    let ends: Vec<Result<(), ServeError>> = thread::scope(|scope| {
        let serve = |(socket, backend): (Socket, _)| {
            scope.spawn(move || server::serve(socket.listener(), backend, until, Clients::Anyone, stop))
        };
        let servers: Vec<_> = devices.into_iter().map(serve).collect();
        servers.into_iter().map(|server| server.join().unwrap_or(Err(ServeError::Panicked))).collect()
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

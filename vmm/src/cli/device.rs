// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz device`: serves one GPU over vfio-user, for a QEMU of the user's own.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::guest::vram_size;
use super::{CommandError, size};
use crate::gpu;
use crate::spec::GpuSpec;
use crate::vfio_user::server::{self, Clients, Socket, Until};

/// Serve one GPU over vfio-user, for a QEMU of your own
///
/// Start this first, then QEMU with
///   -object memory-backend-memfd,id=m,size=1G,share=on -machine q35,memory-backend=m
///   -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"PATH"},"x-msg-timeout":60000}'
/// Clients are served one after the other until Ctrl-C; the device is reset in between.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct DeviceOptions {
    /// Unix socket to listen on; a stale one is replaced
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// VRAM: a power of two from 2M to 1T; only what is touched takes memory
    #[arg(long, value_name = "SIZE", value_parser = vram_size, default_value = "1G")]
    vram: u64,
    /// Write what the device sees to FILE
    #[arg(long, value_name = "FILE")]
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
    let stop = interrupted()?;
    let spec = GpuSpec { vram: options.vram, trace: options.trace.clone() };
    let backend = gpu::build_backend(&spec, 0, options.keep_vram)?;
    let socket = Socket::bind(&options.socket)?;
    eprintln!("ersatz: {} of VRAM at {}; Ctrl-C ends", size::format(options.vram), options.socket.display());
    let until = if options.once { Until::FirstClientLeft } else { Until::Stopped };
    server::serve(socket.listener(), backend, until, Clients::Anyone, &stop)?;
    Ok(0)
}

/// Becomes readable on SIGINT, SIGTERM and SIGHUP, which from now on do not end the process by themselves.
fn interrupted() -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

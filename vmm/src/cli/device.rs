// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz device`: serves one GPU over vfio-user, for a QEMU of the user's own.

use std::path::PathBuf;

use clap::Args;

use super::CommandError;
use super::guest::vram_size;

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
    Err(format!("cannot serve {options:?} yet").into())
}

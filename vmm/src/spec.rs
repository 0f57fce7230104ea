// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What to run, whatever the accelerator: the one description that the KVM, nested and TCG paths all start from.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A guest and its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSpec {
    /// bzImage or ELF kernel.
    pub kernel: PathBuf,
    /// The initramfs file.
    pub initramfs: PathBuf,
    /// A further cpio archive to load right behind it (the kernel unpacks both): says what PID 1 is to run.
    pub initramfs_tail: Vec<u8>,
    /// The kernel's command line.
    pub command_line: String,
    /// Number of vCPUs.
    pub vcpus: u8,
    /// Guest memory in bytes.
    pub memory: u64,
    /// The GPUs, in PCI order.
    pub devices: Vec<GpuSpec>,
    /// How long the guest may run.
    pub timeout: Option<Duration>,
    /// Whether to say at the end how often its processors exited to the VMM.
    pub exit_counts: bool,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuSpec {
    /// VRAM in bytes.
    pub vram: u64,
    /// How much of it BAR2 shows until the guest resizes that, in bytes.
    pub bar: u64,
    /// Where its trace goes.
    pub trace: Option<PathBuf>,
}

impl GpuSpec {
    /// All of VRAM in BAR2, no trace.
    pub const fn new(vram: u64) -> Self {
        Self { vram, bar: vram, trace: None }
    }
}

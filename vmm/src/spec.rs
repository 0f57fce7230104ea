// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What to run, whatever the accelerator: the one description that the KVM, nested and TCG paths all start from.
//!
//! It has two halves. A [`MachineSpec`] is what a guest boots with; guests of equal machines can start from one and the same
//! snapshot. A [`RunSpec`] is what comes in afterwards: programs, command, driver, GPUs.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ersatz_guest_image::run;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A guest and its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSpec {
    /// What it boots with.
    pub machine: MachineSpec,
    /// What it is for.
    pub run: RunSpec,
}

/// What a guest boots with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// bzImage or ELF kernel.
    pub kernel: PathBuf,
    /// The initramfs file.
    pub initramfs: PathBuf,
    /// The kernel's command line.
    pub command_line: String,
    /// Number of vCPUs.
    pub vcpus: u8,
    /// Guest memory in bytes.
    pub memory: u64,
}

/// What one run brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Cpio archives with programs and the driver.
    pub archives: Vec<PathBuf>,
    /// A further one, with the command and the driver's parameters ([`run::request_archive`]).
    pub request: Vec<u8>,
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

/// An archive that a run brings cannot be read.
#[derive(Debug, Error)]
#[error("cannot read {path}, which the run brings into the guest")]
pub struct ArchiveError {
    /// The file.
    path: PathBuf,
    /// What the system said.
    #[source]
    source: io::Error,
}

impl RunSpec {
    /// All archives in one: what is appended to the initramfs, or unpacked by a restored guest.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn archive(&self) -> Result<Vec<u8>, ArchiveError> {
        let mut all = Vec::new();
        for path in &self.archives {
            let archive = fs::read(path).map_err(|source| ArchiveError { path: path.clone(), source })?;
            run::append(&mut all, &archive);
        }
        run::append(&mut all, &self.request);
        Ok(all)
    }
}

impl GpuSpec {
    /// All of VRAM in BAR2, no trace.
    pub const fn new(vram: u64) -> Self {
        Self { vram, bar: vram, trace: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_follow_one_another_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("programs");
        fs::write(&path, b"12345").unwrap();
        let mut run = RunSpec {
            archives: vec![path],
            request: b"abc".to_vec(),
            devices: Vec::new(),
            timeout: None,
            exit_counts: false,
        };
        assert_eq!(run.archive().unwrap(), b"12345\0\0\0abc");
        run.archives.push("/nowhere/archive".into());
        assert!(run.archive().unwrap_err().to_string().contains("/nowhere/archive"));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What to run, whatever the accelerator: the one description that the KVM, nested and TCG paths all start from.
//!
//! It has two halves. A [`MachineSpec`] is what a guest boots with; guests of equal machines can start from the same snapshot. A
//! [`RunSpec`] is what comes in afterwards: programs, command, driver, GPUs. Options of the command line that go into a description
//! unchanged are defined here, on the fields that they fill.

mod gpu;
mod injection;
mod machine;
mod path;
mod pci_address;

use std::fs;
use std::io;
use std::time::Duration;

use ersatz_guest_image::run;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use gpu::{BarError, GpuSpec, check_vram};
pub use injection::{ApplyError, InjectionSpec, RulesFileError};
pub use machine::{MachineSpec, Resources, check_memory};
pub use path::{PathMapping, ReadPath, WrittenPath};
pub use pci_address::{PciAddress, PciAddressError};

/// A guest and its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSpec {
    /// What it boots with.
    pub machine: MachineSpec,
    /// What it is for.
    pub run: RunSpec,
}

/// What one run brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Cpio archives with programs and the driver.
    pub archives: Vec<ReadPath>,
    /// A further archive, with the command and the driver's parameters ([`run::request_archive`]).
    pub request: Vec<u8>,
    /// The GPUs, in PCI order.
    pub devices: Vec<GpuSpec>,
    /// Devices of the machine that runs the VMM, which are handed to the guest; in PCI order, behind the GPUs.
    #[serde(default)]
    pub vfio: Vec<PciAddress>,
    /// How long the guest may run; `None` for no limit.
    pub timeout: Option<Duration>,
    /// How long its console may be silent; `None` for as long as it likes.
    pub silence: Option<Duration>,
    /// Whether to report at the end how often its vCPUs exited to the VMM.
    pub exit_counts: bool,
    /// Whether the command's standard streams are apart from the console; under TCG only. The request must say so, too
    /// ([`run::STREAMS_PATH`]).
    pub streams: bool,
}

/// An archive that a run brings cannot be read.
#[derive(Debug, Error)]
#[error("cannot read {}, which the run brings into the guest", path.display())]
pub struct ArchiveError {
    /// The file.
    path: ReadPath,
    /// The system's error.
    #[source]
    source: io::Error,
}

impl GuestSpec {
    /// Returns the same guest with its paths mapped.
    ///
    /// # Errors
    ///
    /// Those of `mapping`.
    pub fn map_paths<M: PathMapping>(&self, mapping: &mut M) -> Result<Self, M::Error> {
        let Self { machine, run } = self;
        Ok(Self { machine: machine.map_paths(mapping)?, run: run.map_paths(mapping)? })
    }
}

impl RunSpec {
    /// Reads all archives into one: what is appended to the initramfs, or unpacked by a restored guest.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read.
    pub fn archive(&self) -> Result<Vec<u8>, ArchiveError> {
        let mut all = Vec::new();
        for path in &self.archives {
            let archive = fs::read(path).map_err(|source| ArchiveError { path: path.clone(), source })?;
            run::append(&mut all, &archive);
        }
        run::append(&mut all, &self.request);
        Ok(all)
    }

    /// Returns the same run with its paths mapped.
    ///
    /// # Errors
    ///
    /// Those of `mapping`.
    pub fn map_paths<M: PathMapping>(&self, mapping: &mut M) -> Result<Self, M::Error> {
        let Self { archives, request, devices, vfio, timeout, silence, exit_counts, streams } = self;
        Ok(Self {
            archives: archives.iter().map(|path| mapping.read(path)).collect::<Result<_, _>>()?,
            request: request.clone(),
            devices: devices.iter().map(|gpu| gpu.map_paths(mapping)).collect::<Result<_, _>>()?,
            vfio: vfio.clone(),
            timeout: *timeout,
            silence: *silence,
            exit_counts: *exit_counts,
            streams: *streams,
        })
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
            archives: vec![path.into()],
            request: b"abc".to_vec(),
            devices: Vec::new(),
            vfio: Vec::new(),
            timeout: None,
            silence: None,
            exit_counts: false,
            streams: false,
        };
        assert_eq!(run.archive().unwrap(), b"12345\0\0\0abc");
        run.archives.push("/nowhere/archive".into());
        assert!(run.archive().unwrap_err().to_string().contains("/nowhere/archive"));
    }
}

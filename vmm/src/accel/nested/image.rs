// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What goes into the outer machine: its initramfs with a job and the job's files behind it, in a memfd.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ersatz_guest_image::initramfs::Archive;
use ersatz_guest_image::outer::{JOB_PATH, Job, Share};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{NestedError, utf8};
use crate::spec::{GpuSpec, PciAddress};

/// Something to run in the outer machine, seen from the host.
#[derive(Clone, Debug)]
pub struct OuterJob {
    /// The program, by its path in the outer machine, and its arguments.
    pub command: Vec<String>,
    /// Files it needs, by their paths in the outer machine. They are in memory there.
    pub files: Vec<(String, Source)>,
    /// Folders of the host, by their paths in the outer machine. They are read-only there.
    pub folders: Vec<(PathBuf, PathBuf)>,
    /// Files it may leave, which come out in this order.
    pub collect: Vec<PathBuf>,
    /// GPUs that this process has, and the outer machine sees, bound to vfio-pci.
    pub gpus: Vec<GpuSpec>,
}

/// What a file in the outer machine holds.
#[derive(Clone, Debug)]
pub enum Source {
    /// What a file of the host does.
    File(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
}

/// The first bus behind the root ports of GPUs: the port before them is the mailbox's, and the firmware numbers buses in this order.
const FIRST_GPU_BUS: u8 = 2;

/// Where GPUs are in the outer machine.
pub(super) fn gpu_addresses(gpus: &[GpuSpec]) -> Vec<PciAddress> {
    (FIRST_GPU_BUS..).zip(gpus).map(|(bus, _)| PciAddress::on_bus(bus)).collect()
}

impl OuterJob {
    /// The mount tag of a folder.
    pub(super) fn tag(index: usize) -> String {
        format!("ersatz{index}")
    }

    /// The job as PID 1 gets it.
    fn for_pid_1(&self) -> Job {
        let share = |(index, (_, target)): (usize, &(PathBuf, PathBuf))| Share {
            tag: Self::tag(index),
            target: target.clone(),
        };
        Job {
            command: self.command.clone(),
            shares: self.folders.iter().enumerate().map(share).collect(),
            passed_through: gpu_addresses(&self.gpus).iter().map(PciAddress::to_string).collect(),
            collect: self.collect.clone(),
        }
    }

    /// The archive that is appended to the outer initramfs.
    fn archive(&self) -> Result<Archive, NestedError> {
        for path in &self.collect {
            utf8(path)?;
        }
        let mut archive = Archive::new();
        let job = serde_json::to_vec(&self.for_pid_1()).map_err(|error| NestedError::Scratch(error.into()))?;
        archive.file(JOB_PATH, 0o644, job)?;
        for (path, source) in &self.files {
            // Executable or not makes no difference to data.
            match source {
                Source::File(file) => archive.file_from(path, 0o755, file)?,
                Source::Bytes(bytes) => archive.file(path, 0o755, bytes.clone())?,
            };
        }
        Ok(archive)
    }
}

/// The outer initramfs with the job behind it, as a memfd: nothing is left over however the run ends.
pub(super) fn assemble(initramfs: &Path, job: &OuterJob) -> Result<OwnedFd, NestedError> {
    let archive = job.archive()?;
    let descriptor = memfd_create("ersatz-outer-initramfs", MemfdFlags::CLOEXEC)
        .map_err(|error| NestedError::Scratch(error.into()))?;
    let mut file = File::from(descriptor);
    let mut outer = File::open(initramfs).map_err(|source| NestedError::Read { path: initramfs.to_owned(), source })?;
    let length =
        io::copy(&mut outer, &mut file).map_err(|source| NestedError::Read { path: initramfs.to_owned(), source })?;
    // The kernel looks for the next archive at a multiple of 4.
    let padding = usize::try_from(length.wrapping_neg() % 4).unwrap_or(0);
    file.write_all(&[0; 3][..padding]).map_err(NestedError::Scratch)?;
    archive.write_to(&mut file)?;
    Ok(file.into())
}

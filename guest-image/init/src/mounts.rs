// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The file systems every program expects, mounted on the bare initramfs.

use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use thiserror::Error;

/// Why a file system is not there.
#[derive(Debug, Error)]
pub enum MountError {
    /// The mount point could not be made.
    #[error("cannot make the mount point {target}")]
    MountPoint {
        /// The mount point.
        target: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file system could not be mounted.
    #[error("cannot mount {kind} on {target}")]
    Mount {
        /// The type of file system.
        kind: &'static str,
        /// The mount point.
        target: &'static str,
        /// The system's error.
        source: Errno,
    },
}

/// One file system: type, mount point, and whether the guest is of use without it.
struct FileSystem {
    kind: &'static str,
    target: &'static str,
    needed: bool,
}

const fn needed(kind: &'static str, target: &'static str) -> FileSystem {
    FileSystem { kind, target, needed: true }
}

const fn optional(kind: &'static str, target: &'static str) -> FileSystem {
    FileSystem { kind, target, needed: false }
}

/// In the order they are mounted: a later one may lie inside an earlier one.
const FILE_SYSTEMS: &[FileSystem] = &[
    needed("devtmpfs", "/dev"),
    needed("proc", "/proc"),
    needed("sysfs", "/sys"),
    needed("tmpfs", "/tmp"),
    needed("tmpfs", "/run"),
    optional("devpts", "/dev/pts"),
    optional("tmpfs", "/dev/shm"),
    optional("debugfs", "/sys/kernel/debug"),
    optional("tracefs", "/sys/kernel/tracing"),
    optional("cgroup2", "/sys/fs/cgroup"),
];

/// Mounts them all; what a kernel without the optional ones lacks is returned for a notice.
///
/// # Errors
///
/// Fails if one that is needed cannot be mounted. One that is mounted already is fine.
pub fn mount_all() -> Result<Vec<MountError>, MountError> {
    let mut missing = Vec::new();
    for file_system in FILE_SYSTEMS {
        match mount_one(file_system) {
            Err(error) if file_system.needed => return Err(error),
            Err(error) => missing.push(error),
            Ok(()) => {}
        }
    }
    Ok(missing)
}

fn mount_one(&FileSystem { kind, target, .. }: &FileSystem) -> Result<(), MountError> {
    if !Path::new(target).is_dir() {
        std::fs::create_dir_all(target).map_err(|source| MountError::MountPoint { target, source })?;
    }
    match mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>) {
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(source) => Err(MountError::Mount { kind, target, source }),
    }
}

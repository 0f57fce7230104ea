// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The list of built artifacts, `manifest.json`, by which `ersatz run` finds everything it boots.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The name of the manifest in its folder.
pub const FILE_NAME: &str = "manifest.json";

/// Everything one kernel series needs to run. All paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The kernel release, as `uname -r` prints it.
    pub release: String,
    /// The stock kernel as the distribution ships it.
    pub bz_image: PathBuf,
    /// The same kernel, decompressed.
    pub vmlinux: PathBuf,
    /// The guest's initramfs: PID 1, driver module, tests, busybox.
    pub initramfs: PathBuf,
    /// The initramfs of the outer machine of `--accel nested`: PID 1, the modules for KVM and for shared folders.
    pub outer_initramfs: PathBuf,
    /// A statically linked `ersatz`, to run in the outer machine.
    pub static_ersatz: PathBuf,
    /// The toolchain root that has QEMU in it.
    pub toolchain_root: PathBuf,
}

/// Why there is no manifest to be had.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The file could not be read.
    #[error("no built guest in {path}: {source}; run `cargo xtask build` first")]
    Read {
        /// The manifest's path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was read but makes no sense.
    #[error("{path} is not a manifest of this version: {source}; run `cargo xtask build` again")]
    Parse {
        /// The manifest's path.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
}

impl Manifest {
    /// Reads the manifest in a folder.
    ///
    /// # Errors
    ///
    /// If there is none, or it is not one.
    pub fn load(folder: &Path) -> Result<Self, ManifestError> {
        let path = folder.join(FILE_NAME);
        let text = std::fs::read(&path).map_err(|source| ManifestError::Read { path: path.clone(), source })?;
        serde_json::from_slice(&text).map_err(|source| ManifestError::Parse { path, source })
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The list of built artifacts, `manifest.json`, by which `ersatz run` finds everything it boots.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::build_tree::TreeRecord;

/// The name of the manifest in its folder.
pub const FILE_NAME: &str = "manifest.json";

/// What `--kernel` calls the debug kernel, which has the kernel's own checkers compiled in.
pub const DEBUG_KERNEL: &str = "debug";

/// Everything one kernel needs to run. All paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The kernel release, as `uname -r` prints it.
    pub release: String,
    /// The guest's kernel, compressed: a stock one as the distribution ships it.
    pub bz_image: PathBuf,
    /// The same kernel as an ELF file.
    pub vmlinux: PathBuf,
    /// The guest's initramfs: PID 1, busybox.
    pub initramfs: PathBuf,
    /// The archive that each run brings: driver module, tests.
    pub programs: PathBuf,
    /// The names of the tests in that archive, one per line in the order in which they run.
    pub test_names: PathBuf,
    /// The module of the kernel's own test driver of device memory.
    pub test_driver: PathBuf,
    /// The kernel's own tests of device memory, `hmm-tests`: a static program.
    pub hmm_tests: PathBuf,
    /// The names of the tests in that program, `FIXTURE.VARIANT.TEST`, one per line.
    pub hmm_test_names: PathBuf,
    /// The folder of the kernel's own modules; `None` if it has none.
    pub modules: Option<PathBuf>,
    /// The kernel of the outer machine of `--accel nested`, an ELF file: always a stock one.
    pub outer_vmlinux: PathBuf,
    /// The initramfs of the outer machine of `--accel nested`: PID 1, the modules for KVM and for shared folders.
    pub outer_initramfs: PathBuf,
    /// A statically linked `ersatz`, to run in the outer machine.
    pub static_ersatz: PathBuf,
    /// The toolchain root that has QEMU in it.
    pub toolchain_root: PathBuf,
    /// The build tree that the kernel is in; `None` if it is another kernel.
    #[serde(default)]
    pub tree: Option<TreeRecord>,
}

/// Why a manifest cannot be read or written.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The file could not be read.
    #[error("cannot read {path}, which lists a built guest (run `cargo xtask build` first)")]
    Read {
        /// The manifest's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file was read but cannot be parsed.
    #[error("{path} is not a manifest of this version (run `cargo xtask build` again)")]
    Parse {
        /// The manifest's path.
        path: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// The file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The manifest's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl Manifest {
    /// Reads the manifest in a folder.
    ///
    /// # Errors
    ///
    /// Fails if there is none, or it cannot be parsed.
    pub fn load(folder: &Path) -> Result<Self, ManifestError> {
        let path = folder.join(FILE_NAME);
        let text = fs::read(&path).map_err(|source| ManifestError::Read { path: path.clone(), source })?;
        serde_json::from_slice(&text).map_err(|source| ManifestError::Parse { path, source })
    }

    /// Writes the manifest to a folder, over an older one: at every moment a reader finds a whole one.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), ManifestError> {
        let path = folder.join(FILE_NAME);
        let beside = folder.join(format!(".{FILE_NAME}.{}", std::process::id()));
        let write = || {
            let mut text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
            text.push(b'\n');
            let mut file = File::create(&beside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&beside, &path)
        };
        write().map_err(|source| ManifestError::Write { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(release: &str) -> Manifest {
        Manifest {
            release: release.to_owned(),
            bz_image: "/a/vmlinuz".into(),
            vmlinux: "/a/vmlinux".into(),
            initramfs: "/b/initramfs.cpio".into(),
            programs: "/b/programs.cpio".into(),
            test_names: "/b/test-names".into(),
            test_driver: "/b/test_hmm.ko".into(),
            hmm_tests: "/c/hmm-tests".into(),
            hmm_test_names: "/c/names".into(),
            modules: Some("/a/modules".into()),
            outer_vmlinux: "/a/vmlinux".into(),
            outer_initramfs: "/b/outer.cpio".into(),
            static_ersatz: "/b/ersatz".into(),
            toolchain_root: "/c".into(),
            tree: None,
        }
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        for release in ["7.2.12+deb13-amd64", "7.2.14+deb13-amd64"] {
            manifest(release).save(folder.path()).unwrap();
            assert_eq!(Manifest::load(folder.path()).unwrap(), manifest(release));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn errors_say_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Manifest::load(folder.path()).unwrap_err();
        assert!(matches!(missing, ManifestError::Read { .. }));
        assert!(missing.to_string().contains("cargo xtask build"), "{missing}");
        fs::write(folder.path().join(FILE_NAME), "{}").unwrap();
        let malformed = Manifest::load(folder.path()).unwrap_err();
        assert!(matches!(malformed, ManifestError::Parse { .. }));
        assert!(manifest("x").save(&folder.path().join("none")).is_err());
    }
}

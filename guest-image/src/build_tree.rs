// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A kernel's build tree: the folder of its source, in which `make` has built it.
//!
//! The driver is built against such a tree, and guests boot the kernel in it. [`config`] says which options that takes.

pub mod config;

use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::config::{Config, Missing};

/// What every source tree of the kernel has.
const SOURCE: &[&str] = &["Kbuild", "Kconfig", "scripts/config"];
/// The configuration that the user edits, and what make has made of it.
const CONFIG: &str = ".config";
const BUILT_CONFIG: &str = "include/config/auto.conf";
/// The symbols that modules may use, and their checksums.
const SYMBOLS: &str = "Module.symvers";
/// The release, as `uname -r` prints it.
const RELEASE: &str = "include/config/kernel.release";
/// The number and date of the build, as `uname -v` prints them.
const VERSION: &str = "include/generated/utsversion.h";
/// The kernel, compressed and as an ELF file.
const BZ_IMAGE: &str = "arch/x86/boot/bzImage";
const VMLINUX: &str = "vmlinux";
/// A link to the source, in a folder that was built in by `make O=FOLDER`.
const SOURCE_LINK: &str = "source";
/// What changes when `make` does something that concerns modules or the kernel.
const STATE: &[&str] = &[CONFIG, SYMBOLS, RELEASE, BZ_IMAGE, VMLINUX, "rust/libkernel.rmeta", "rust/libbindings.rmeta"];

/// A tree that is configured as guests and driver need it, and built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildTree {
    folder: PathBuf,
    release: String,
    config: Config,
}

/// The tree that something was built for, and its state then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeRecord {
    /// The folder, as an absolute path without links.
    pub folder: PathBuf,
    /// [`BuildTree::state`] at that time.
    pub state: String,
    /// The commit that was checked out, if the tree is in a git repository.
    pub commit: Option<String>,
    /// The first digits of the SHA-256 of its `.config`.
    pub config: String,
    /// The number and date of the build, as `uname -v` prints them.
    pub version: String,
}

/// Why a folder is not a tree to use.
#[derive(Debug, Error)]
pub enum TreeError {
    /// It has something else in it.
    #[error(
        "this folder is not a kernel tree: it has no {0}; give the top of the kernel's source, in which `make` has built it"
    )]
    NotATree(&'static str),
    /// It was built by `make O=`.
    #[error("this folder was built by `make O=` from the source in {}; give a tree that was built in its source folder", .0.display())]
    OutputFolder(PathBuf),
    /// There is no configuration.
    #[error(
        "this tree is not configured: it has no .config; make one, then run `make -j$(nproc) bzImage modules` in the tree"
    )]
    NotConfigured,
    /// Options that are needed are off.
    #[error("this tree cannot be used: {0}")]
    Options(#[from] Missing),
    /// Something that the build leaves is not there.
    #[error("this tree is not built: it has no {0}; run `make -j$(nproc) bzImage modules` in it")]
    NotBuilt(&'static str),
    /// The configuration is newer than the build.
    #[error("the .config of this tree has changed since it was built; run `make -j$(nproc) bzImage modules` in it")]
    Outdated,
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl BuildTree {
    /// Looks at a folder.
    ///
    /// # Errors
    ///
    /// Fails if it is not a tree, is not built, or an option that guests or the driver need is off. The error's text is one line that says what to do.
    pub fn open(folder: &Path) -> Result<Self, TreeError> {
        let folder = folder.canonicalize().map_err(unreadable(folder))?;
        let lacks = |names: &[&'static str]| names.iter().copied().find(|name| !folder.join(name).exists());
        if let Some(missing) = lacks(SOURCE) {
            return Err(match fs::read_link(folder.join(SOURCE_LINK)) {
                Ok(source) if folder.join(CONFIG).is_file() => TreeError::OutputFolder(source),
                _ => TreeError::NotATree(missing),
            });
        }
        let path = folder.join(CONFIG);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(TreeError::NotConfigured),
            read => read.map_err(unreadable(&path))?,
        };
        let config = Config::parse(&text);
        config.check()?;
        if let Some(missing) = lacks(&[BUILT_CONFIG, RELEASE, SYMBOLS]) {
            return Err(TreeError::NotBuilt(missing));
        }
        if !folder.join(BZ_IMAGE).is_file() && !folder.join(VMLINUX).is_file() {
            return Err(TreeError::NotBuilt(BZ_IMAGE));
        }
        let modified = |name: &str| {
            let path = folder.join(name);
            path.metadata().map(|metadata| (metadata.mtime(), metadata.mtime_nsec())).map_err(unreadable(&path))
        };
        if modified(CONFIG)? > modified(BUILT_CONFIG)? {
            return Err(TreeError::Outdated);
        }
        let path = folder.join(RELEASE);
        let release = fs::read_to_string(&path).map_err(unreadable(&path))?.trim().to_owned();
        Ok(Self { folder, release, config })
    }

    /// The folder, as an absolute path without links.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The release of the kernel, as `uname -r` prints it.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The compressed kernel; the ELF file if only that is there.
    pub fn bz_image(&self) -> PathBuf {
        self.image(BZ_IMAGE, VMLINUX)
    }

    /// The kernel as an ELF file; the compressed one if only that is there.
    pub fn vmlinux(&self) -> PathBuf {
        self.image(VMLINUX, BZ_IMAGE)
    }

    /// The file of the configuration.
    pub fn config_file(&self) -> PathBuf {
        self.folder.join(CONFIG)
    }

    /// The number and date of the build, as `uname -v` prints them; empty if the tree does not say.
    pub fn version(&self) -> String {
        let text = fs::read_to_string(self.folder.join(VERSION)).unwrap_or_default();
        text.split('"').nth(1).unwrap_or_default().to_owned()
    }

    /// A text that is another one after each `make` that changed something: sizes and times of what it leaves.
    pub fn state(&self) -> String {
        let mut state = String::new();
        for name in STATE {
            if let Ok(metadata) = self.folder.join(name).metadata() {
                let (size, seconds, nanoseconds) = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
                // Writing to a string cannot fail.
                let _ = write!(state, "{name} {size} {seconds}.{nanoseconds:09};");
            }
        }
        state
    }

    fn image(&self, first: &str, second: &str) -> PathBuf {
        let path = self.folder.join(first);
        if path.is_file() { path } else { self.folder.join(second) }
    }
}

impl TreeRecord {
    /// Whether what was built for the tree fits it as it is now.
    pub fn fits(&self, tree: &BuildTree) -> bool {
        self.folder == tree.folder && self.state == tree.state()
    }

    /// What reports say of the kernel besides its release: build, commit, configuration.
    pub fn describe(&self) -> String {
        let commit = self.commit.as_ref().map(|commit| format!("commit {commit}, ")).unwrap_or_default();
        let build = self.version.split_whitespace().next().unwrap_or("a build");
        format!("{build} of {}, {commit}.config {}", self.folder.display(), self.config)
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> TreeError {
    let path = path.to_owned();
    |source| TreeError::Read { path, source }
}

#[cfg(test)]
mod tests;

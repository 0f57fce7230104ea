// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which runs may start from the same snapshot: those with equal keys.
//!
//! A key covers all that the saved machine depends on. Files count by what the file system says of them (device, inode, size and
//! change time, which no program can set), so that a key costs nothing to make; a file that is written again with the same
//! content costs one boot.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

/// The kind of processor of this machine, by which the emulated time-stamp counter runs.
const CPUINFO: &str = "/proc/cpuinfo";
/// Changes with every boot of this machine: what was measured of its clocks is good until then.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A file that a snapshot depends on cannot be looked at.
#[derive(Debug, Error)]
#[error("cannot look at {path}")]
pub struct KeyError {
    /// The file.
    path: PathBuf,
    /// The system's error.
    #[source]
    source: io::Error,
}

/// The key of a snapshot: 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

/// Gathers what a key covers. Each part goes in with its length, so no two lists of parts look the same.
pub struct KeyBuilder(Sha256);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl KeyBuilder {
    /// A key for a kind of machine, on this host.
    pub fn new(kind: &str) -> Self {
        let mut key = Self(Sha256::new());
        key.text(kind);
        let processor = fs::read_to_string(CPUINFO).unwrap_or_default();
        key.text(processor.lines().find(|line| line.starts_with("model name")).unwrap_or_default());
        key.text(&fs::read_to_string(BOOT_ID).unwrap_or_default());
        key
    }

    /// Adds a value.
    pub fn text(&mut self, value: &str) {
        self.0.update((value.len() as u64).to_le_bytes());
        self.0.update(value);
    }

    /// Adds a file.
    ///
    /// # Errors
    ///
    /// Fails if it is not there.
    pub fn file(&mut self, path: &Path) -> Result<(), KeyError> {
        let metadata = fs::metadata(path).map_err(|source| KeyError { path: path.to_owned(), source })?;
        let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.size());
        self.text(&format!("{device} {inode} {size} {} {}", metadata.ctime(), metadata.ctime_nsec()));
        Ok(())
    }

    /// The key.
    pub fn finish(self) -> Key {
        let digest = self.0.finalize();
        Key(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[&str], file: &Path) -> Key {
        let mut key = KeyBuilder::new("test");
        parts.iter().for_each(|part| key.text(part));
        key.file(file).unwrap();
        key.finish()
    }

    #[test]
    fn a_key_depends_on_each_part_and_on_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel");
        fs::write(&path, "1").unwrap();
        let first = key(&["ab", "c"], &path);
        assert_eq!(first, key(&["ab", "c"], &path));
        assert_ne!(first, key(&["a", "bc"], &path));
        assert_eq!(first.to_string().len(), 32);
        // A file in its place is another one, even of the same size and time of modification.
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let other = folder.path().join("other");
        fs::write(&other, "2").unwrap();
        fs::File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(first, key(&["ab", "c"], &path));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = KeyBuilder::new("test").file(Path::new("/nowhere/kernel")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/kernel"), "{error}");
    }
}

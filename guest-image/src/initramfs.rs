// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Initramfs archives: the `newc` cpio format the kernel unpacks into its root before PID 1 runs.
//!
//! `cargo xtask` makes the root file systems that guests boot with, and the archive of the programs that each run brings; what
//! else a run brings is in [`run`](crate::run). The kernel unpacks every archive it finds in the initramfs region, later
//! ones over earlier ones.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cpio::newc::{Builder, ModeFileType, trailer};
use thiserror::Error;

/// Archives are padded to this many bytes, so that another one can follow: the kernel requires an uncompressed archive to
/// start at a multiple of 4, and boot loaders like whole sectors.
const BLOCK: usize = 512;

/// The kernel refuses names longer than its `PATH_MAX`.
const MAX_PATH: usize = 4095;

/// Why an archive cannot be made.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// A path that is empty, too long, or has `.`, `..` or NUL in it.
    #[error("'{0}' cannot be a path in an initramfs: use a plain absolute path of at most {MAX_PATH} bytes")]
    BadPath(String),
    /// Something else was added at this path before.
    #[error("'{0}' is in the initramfs twice")]
    Duplicate(String),
    /// A path leads through something that is not a directory.
    #[error("'{0}' is needed as a directory in the initramfs but was added as something else")]
    NotADirectory(String),
    /// The format has 32-bit sizes.
    #[error("'{0}' has {1} bytes, and a file in an initramfs has less than 4 GiB")]
    TooLarge(String, usize),
    /// A command with no program, or a word with NUL in it.
    #[error("a guest command needs a program and words without NUL bytes, not {0:?}")]
    BadCommand(Vec<String>),
    /// A file to be added could not be read.
    #[error("cannot read {path} for the initramfs")]
    Read {
        /// The file on this machine.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The archive could not be written.
    #[error("cannot write the initramfs")]
    Write(#[from] io::Error),
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Directory,
    File(Vec<u8>),
    Symlink(String),
    CharDevice { major: u32, minor: u32 },
}

#[derive(Clone, Debug)]
struct Entry {
    mode: u32,
    node: Node,
}

/// A file system to be, in memory. Paths are absolute paths in the guest; missing parents are added as directories.
///
/// The bytes depend on the content alone (no times, no owners but root, sorted names), so equal trees give equal archives.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory with mode 0755. Adding one twice is fine.
    ///
    /// # Errors
    ///
    /// Fails if the path cannot be one, or something else is there.
    pub fn directory(&mut self, path: &str) -> Result<&mut Self, ArchiveError> {
        let name = normalized(path)?;
        self.add_directories(&name)?;
        Ok(self)
    }

    /// Adds a regular file. `mode` holds the permission bits, such as `0o755`.
    ///
    /// # Errors
    ///
    /// Fails if the path cannot be one or is taken, or the content has 4 GiB or more.
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Result<&mut Self, ArchiveError> {
        let content = content.into();
        if u32::try_from(content.len()).is_err() {
            return Err(ArchiveError::TooLarge(path.to_owned(), content.len()));
        }
        self.add(path, Entry { mode, node: Node::File(content) })
    }

    /// Adds a copy of a file of this machine.
    ///
    /// # Errors
    ///
    /// As [`Archive::file`], and if the file cannot be read.
    pub fn file_from(&mut self, path: &str, mode: u32, source: &Path) -> Result<&mut Self, ArchiveError> {
        let content =
            std::fs::read(source).map_err(|error| ArchiveError::Read { path: source.to_owned(), source: error })?;
        self.file(path, mode, content)
    }

    /// Adds a symbolic link to `target`.
    ///
    /// # Errors
    ///
    /// Fails if the path cannot be one or is taken.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<&mut Self, ArchiveError> {
        self.add(path, Entry { mode: 0o777, node: Node::Symlink(target.to_owned()) })
    }

    /// Adds a character device node, such as 5, 1 for `/dev/console`. `mode` holds the permission bits.
    ///
    /// # Errors
    ///
    /// Fails if the path cannot be one or is taken.
    pub fn char_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) -> Result<&mut Self, ArchiveError> {
        self.add(path, Entry { mode, node: Node::CharDevice { major, minor } })
    }

    fn add(&mut self, path: &str, entry: Entry) -> Result<&mut Self, ArchiveError> {
        let name = normalized(path)?;
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.add_directories(parent)?;
        }
        if self.entries.contains_key(&name) {
            return Err(ArchiveError::Duplicate(path.to_owned()));
        }
        self.entries.insert(name, entry);
        Ok(self)
    }

    /// Adds `name` and everything above it as directories. A name sorts behind its parents, which is the order the
    /// kernel needs.
    fn add_directories(&mut self, name: &str) -> Result<(), ArchiveError> {
        let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
        for directory in ends.map(|end| &name[..end]) {
            let entry =
                self.entries.entry(directory.to_owned()).or_insert(Entry { mode: 0o755, node: Node::Directory });
            if entry.node != Node::Directory {
                return Err(ArchiveError::NotADirectory(format!("/{directory}")));
            }
        }
        Ok(())
    }

    /// Writes the archive, padded so that another one can follow.
    ///
    /// # Errors
    ///
    /// Fails if the writer fails.
    pub fn write_to(&self, mut writer: impl Write) -> Result<(), ArchiveError> {
        let mut counted = Counted { inner: &mut writer, written: 0 };
        for (inode, (name, entry)) in (1..).zip(&self.entries) {
            entry.write(name, inode, &mut counted)?;
        }
        trailer(&mut counted)?;
        let padding = counted.written.next_multiple_of(BLOCK) - counted.written;
        writer.write_all(&[0; BLOCK][..padding])?;
        Ok(())
    }

    /// The archive as bytes.
    ///
    /// # Errors
    ///
    /// As [`Archive::write_to`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes)?;
        Ok(bytes)
    }
}

impl Entry {
    fn write(&self, name: &str, inode: u32, writer: impl Write) -> io::Result<()> {
        let builder = Builder::new(name).ino(inode).mode(self.mode);
        let (builder, content) = match &self.node {
            Node::Directory => (builder.nlink(2).set_mode_file_type(ModeFileType::Directory), &[][..]),
            Node::File(content) => (builder.set_mode_file_type(ModeFileType::Regular), content.as_slice()),
            Node::Symlink(target) => (builder.set_mode_file_type(ModeFileType::Symlink), target.as_bytes()),
            Node::CharDevice { major, minor } => {
                (builder.rdev_major(*major).rdev_minor(*minor).set_mode_file_type(ModeFileType::Char), &[][..])
            }
        };
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut file = builder.write(writer, size);
        file.write_all(content)?;
        file.finish()?;
        Ok(())
    }
}

/// Counts what goes through, for the padding at the end.
struct Counted<W> {
    inner: W,
    written: usize,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.written += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The name by which the archive knows a path of the guest: relative to the root.
fn normalized(path: &str) -> Result<String, ArchiveError> {
    let name = path.strip_prefix('/').unwrap_or(path);
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if name.len() > MAX_PATH || !name.split('/').all(plain) {
        return Err(ArchiveError::BadPath(path.to_owned()));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use cpio::newc::Reader;

    use super::*;

    /// Name, mode and content of each entry, as an independent reader of the format sees them.
    fn listing(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut rest = bytes;
        let mut found = Vec::new();
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                return found;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            found.push((name, mode, content));
            rest = reader.finish().unwrap();
        }
    }

    #[test]
    fn parents_come_before_what_they_hold() {
        let mut archive = Archive::new();
        archive.file("/lib/modules/a.ko", 0o644, "module").unwrap();
        archive.file("/lib-x", 0o600, "sorts between /lib and /lib/").unwrap();
        archive.symlink("/bin", "usr/bin").unwrap();
        let found = listing(&archive.to_bytes().unwrap());
        let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["bin", "lib", "lib-x", "lib/modules", "lib/modules/a.ko"]);
        assert_eq!(found[0], ("bin".into(), 0o120_777, b"usr/bin".to_vec()));
        assert_eq!(found[1].1, 0o040_755);
        assert_eq!(found[4], ("lib/modules/a.ko".into(), 0o100_644, b"module".to_vec()));
    }

    #[test]
    fn archives_are_whole_blocks_and_repeatable() {
        for length in [0, 1, 2, 3, 4, 511, 512, 513] {
            let mut archive = Archive::new();
            archive.file("/f", 0o644, vec![7; length]).unwrap();
            let bytes = archive.to_bytes().unwrap();
            assert_eq!(bytes.len() % BLOCK, 0);
            assert_eq!(listing(&bytes)[0].2, vec![7; length]);
            assert_eq!(bytes, archive.clone().to_bytes().unwrap());
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["", "/", "/a//b", "/a/../b", "./a", "/a/", "/a\0b"] {
            let refused = Archive::new().file(path, 0o644, "").map(|_| ());
            assert!(matches!(refused, Err(ArchiveError::BadPath(_))), "{path:?}: {refused:?}");
        }
        let long = format!("/{}", "a".repeat(MAX_PATH + 1));
        assert!(matches!(Archive::new().directory(&long).map(|_| ()), Err(ArchiveError::BadPath(_))));
    }

    #[test]
    fn a_path_is_one_thing() {
        let mut archive = Archive::new();
        archive.file("/a", 0o644, "").unwrap();
        assert!(matches!(archive.file("/a", 0o644, ""), Err(ArchiveError::Duplicate(_))));
        assert!(matches!(archive.file("/a/b", 0o644, ""), Err(ArchiveError::NotADirectory(_))));
        assert!(matches!(archive.directory("/a"), Err(ArchiveError::NotADirectory(_))));
        assert!(archive.directory("/d/e").is_ok() && archive.directory("/d").is_ok());
    }

    #[test]
    fn a_missing_source_is_named() {
        let error = Archive::new().file_from("/a", 0o644, Path::new("/nonexistent/file")).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/file"), "{error}");
    }
}

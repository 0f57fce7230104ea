// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which paths a guest has: the names in the archives that it is made of.
//!
//! Options that name a place in the guest are checked against these before anything starts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cpio::newc::{ModeFileType, Reader};

/// The bits of a mode with the kind of file.
const FILE_TYPE: u32 = 0o170_000;

/// Every entry of a `newc` archive begins with this.
const MAGIC: &[u8] = b"070701";

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// Anything else.
    File,
}

/// The paths of a guest, absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    paths: BTreeMap<PathBuf, Kind>,
}

impl Contents {
    /// Reads the names in archive files, later ones over earlier ones. An archive that is compressed counts as one without names.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read.
    pub fn of_files<P: AsRef<Path>>(archives: &[P]) -> io::Result<Self> {
        let mut contents = Self::default();
        for archive in archives {
            contents.add(&fs::read(archive)?);
        }
        Ok(contents)
    }

    /// Adds the names in archives that follow one another, up to the first byte that is not part of one.
    pub fn add(&mut self, archives: &[u8]) {
        let mut rest = archives;
        loop {
            let padding = rest.iter().take_while(|byte| **byte == 0).count();
            rest = &rest[padding..];
            if !rest.starts_with(MAGIC) {
                return;
            }
            let Ok(reader) = Reader::new(rest) else { return };
            let entry = reader.entry();
            if !entry.is_trailer() {
                let is_directory = entry.mode() & FILE_TYPE == u32::from(ModeFileType::Directory);
                let path = Path::new("/").join(entry.name().trim_start_matches('/'));
                self.paths.insert(path, if is_directory { Kind::Directory } else { Kind::File });
            }
            let Ok(behind) = reader.finish() else { return };
            rest = behind;
        }
    }

    /// Returns what is at an absolute path; `None` if nothing is known to be there.
    pub fn at(&self, path: &Path) -> Option<Kind> {
        self.paths.get(path).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initramfs::Archive;

    #[test]
    fn names_are_those_of_all_archives() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, archive: &Archive| {
            let path = folder.path().join(name);
            fs::write(&path, archive.to_bytes().unwrap()).unwrap();
            path
        };
        let (mut first, mut second) = (Archive::new(), Archive::new());
        first.file("/bin/busybox", 0o755, "x").unwrap().symlink("/bin/sh", "busybox").unwrap();
        second.file("/bin/tests", 0o755, vec![0; 100]).unwrap();
        let contents = Contents::of_files(&[file("a", &first), file("b", &second)]).unwrap();
        let at = |path: &str| contents.at(Path::new(path));
        assert_eq!(
            (at("/bin"), at("/bin/sh"), at("/bin/tests")),
            (Some(Kind::Directory), Some(Kind::File), Some(Kind::File))
        );
        assert_eq!((at("/bin/none"), at("bin")), (None, None));
        assert!(Contents::of_files(&[Path::new("/nowhere")]).is_err());
    }

    #[test]
    fn what_is_not_an_archive_has_no_names() {
        for bytes in [&b"\x1f\x8b compressed"[..], b"", b"\0\0", b"070701 and no more"] {
            let mut contents = Contents::default();
            contents.add(bytes);
            assert_eq!(contents, Contents::default());
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files out of a guest: what PID 1 sends to the host when the command has ended, and how host and PID 1 agree on it.
//!
//! PID 1 sends one `newc` archive by a virtio-serial port, as a stream: neither side keeps it in memory. Paths are known by their
//! numbers in [`COLLECT_PATH`].
//!
//! ```text
//! files/N         what is at path N: a file, or a folder
//! files/N/NAME    what is in that folder, folders before what they hold
//! failed/N        a message: something of path N could not be read
//! TRAILER!!!      all was sent
//! ```
//!
//! The host sends single bytes: [`END_COMMAND`], [`RECEIVED`].

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cpio::newc::{Builder, trailer};
use rustix::fs::{Mode, OFlags};
use walkdir::WalkDir;

/// Where PID 1 looks for the paths to send, each NUL-terminated; without the file it sends nothing.
pub const COLLECT_PATH: &str = "/ersatz/collect";

/// The name of the virtio-serial port.
pub const COLLECT_PORT: &str = "ersatz.collect";

/// The folder of the archive for what was collected.
pub const FILES: &str = "files";
/// The folder of the archive for messages.
pub const FAILED: &str = "failed";

/// From the host: the run is over, so the command is to be ended, and the files are to be sent.
pub const END_COMMAND: u8 = b'e';
/// From the host: the whole archive was received, so the machine may be ended.
pub const RECEIVED: u8 = b'r';

/// Bytes that are read at a time. A file that is shorter is read whole before its header is written, so its length is the true one,
/// whatever the file system claims.
const PIECE: usize = 64 << 10;

/// Most bytes of a file that the kernel makes while it is read, as those in `/proc` and `/sys`: their length is not known before.
const MADE_LIMIT: u64 = 64 << 20;

/// Writes the archive.
#[derive(Debug)]
pub struct Packer<W> {
    writer: W,
    inode: u32,
}

impl<W: Write> Packer<W> {
    /// Returns a packer that has written nothing.
    pub fn new(writer: W) -> Self {
        Self { writer, inode: 0 }
    }

    /// Writes what is at a path, with all that is in it if it is a folder. Links in a folder are not followed, other file
    /// systems that are mounted in it are left out. What cannot be read becomes a message.
    ///
    /// # Errors
    ///
    /// Fails if the writer does.
    pub fn add(&mut self, index: usize, path: &Path) -> io::Result<()> {
        let top = match fs::canonicalize(path) {
            Ok(top) => top,
            Err(error) => return self.fail(index, &error.to_string()),
        };
        for entry in WalkDir::new(&top).same_file_system(true) {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.fail(index, &error.to_string())?;
                    continue;
                }
            };
            let path = entry.path();
            let Some(below) = path.strip_prefix(&top).ok().and_then(Path::to_str) else {
                self.fail(index, &format!("the name of {path:?} is not UTF-8"))?;
                continue;
            };
            let name = if below.is_empty() { format!("{FILES}/{index}") } else { format!("{FILES}/{index}/{below}") };
            match entry.metadata() {
                Ok(metadata) => self.entry(index, &name, path, &metadata)?,
                Err(error) => self.fail(index, &error.to_string())?,
            }
        }
        Ok(())
    }

    /// Writes a message about a path.
    ///
    /// # Errors
    ///
    /// Fails if the writer does.
    pub fn fail(&mut self, index: usize, message: &str) -> io::Result<()> {
        const FILE_MODE: u32 = 0o100_644;
        self.bytes(&format!("{FAILED}/{index}"), FILE_MODE, message.as_bytes())
    }

    /// Writes the end, and returns the writer.
    ///
    /// # Errors
    ///
    /// Fails if the writer does.
    pub fn finish(self) -> io::Result<W> {
        let mut writer = trailer(self.writer)?;
        writer.flush()?;
        Ok(writer)
    }

    fn entry(&mut self, index: usize, name: &str, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let mode = metadata.mode();
        if metadata.is_symlink() {
            match fs::read_link(path) {
                Ok(target) => self.bytes(name, mode, target.as_os_str().as_encoded_bytes()),
                Err(error) => self.fail(index, &format!("{}: {error}", path.display())),
            }
        } else if metadata.is_file() {
            match self.file(name, path, metadata)? {
                Ok(()) => Ok(()),
                Err(message) => self.fail(index, &format!("{}: {message}", path.display())),
            }
        } else {
            // Of a device, a pipe or a socket the host is told that it is there.
            self.bytes(name, mode, b"")
        }
    }

    /// Writes a file; the inner error says why it is missing or not what it was.
    fn file(&mut self, name: &str, path: &Path, metadata: &Metadata) -> io::Result<Result<(), String>> {
        // Some files of tracefs and of /proc block for as long as there is nothing new.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty()).map(File::from).map_err(io::Error::from);
        let (file, mut start) = match opened.and_then(|file| read_up_to(&file, PIECE as u64).map(|start| (file, start)))
        {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let mut length = start.len() as u64;
        if start.len() == PIECE {
            if metadata.len() > length {
                length = metadata.len();
            } else {
                match read_up_to(&file, MADE_LIMIT + 1 - length) {
                    Ok(rest) => start.extend_from_slice(&rest),
                    Err(error) => return Ok(Err(error.to_string())),
                }
                length = start.len() as u64;
                if length > MADE_LIMIT {
                    return Ok(Err(format!("the kernel makes more than {} MiB of it", MADE_LIMIT >> 20)));
                }
            }
        }
        let Ok(size) = u32::try_from(length) else {
            return Ok(Err(format!("has {length} bytes, and files of less than 4 GiB can be collected")));
        };
        self.content(name, metadata.mode(), size, &start, &file)
    }

    /// Writes a file of a known length, of which the first bytes were read.
    fn content(
        &mut self,
        name: &str,
        mode: u32,
        size: u32,
        start: &[u8],
        mut file: &File,
    ) -> io::Result<Result<(), String>> {
        let mut entry = self.builder(name, mode).write(&mut self.writer, size);
        entry.write_all(start)?;
        let mut left = u64::from(size).saturating_sub(start.len() as u64);
        let mut result = Ok(());
        let mut piece = vec![0; if left > 0 { PIECE } else { 0 }];
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let length = match file.read(&mut piece[..wanted]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(length @ 1..) => length,
                ended => {
                    // The header has promised as many bytes.
                    piece.fill(0);
                    result = Err(ended.map_or_else(
                        |error| format!("{error}; the rest of it is zeros"),
                        |_| "became shorter while it was collected; the rest of it is zeros".to_owned(),
                    ));
                    wanted
                }
            };
            entry.write_all(&piece[..length])?;
            left -= length as u64;
            if result.is_err() {
                io::copy(&mut io::repeat(0).take(left), &mut entry)?;
                break;
            }
        }
        entry.finish()?;
        Ok(result)
    }

    fn bytes(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut entry = self.builder(name, mode).write(&mut self.writer, size);
        entry.write_all(content)?;
        entry.finish()?;
        Ok(())
    }

    fn builder(&mut self, name: &str, mode: u32) -> Builder {
        self.inode = self.inode.wrapping_add(1);
        Builder::new(name).ino(self.inode).mode(mode)
    }
}

fn read_up_to(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use cpio::newc::Reader;

    use super::*;

    /// Name, kind (the first digits of the mode) and content of each entry; fails without a trailer.
    fn listing(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let (mut rest, mut found) = (archive, Vec::new());
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                return found;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            found.push((name, mode >> 12, content));
            rest = reader.finish().unwrap();
        }
    }

    fn packed(paths: &[&Path]) -> Vec<(String, u32, Vec<u8>)> {
        let mut packer = Packer::new(Vec::new());
        for (index, path) in paths.iter().enumerate() {
            packer.add(index, path).unwrap();
        }
        let mut found = listing(&packer.finish().unwrap());
        found.sort();
        found
    }

    #[test]
    fn files_and_folders_are_packed_under_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("tree")).unwrap();
        fs::write(at("tree/inside"), "in").unwrap();
        symlink("../..", at("tree/link")).unwrap();
        let large: Vec<u8> = (0..=255).cycle().take(3 * PIECE + 17).collect();
        fs::write(at("large"), &large).unwrap();
        symlink("large", at("alias")).unwrap();
        let found = packed(&[&at("alias"), &at("tree")]);
        let expected = [
            ("files/0".to_owned(), 0o10, large),
            ("files/1".to_owned(), 0o4, Vec::new()),
            ("files/1/inside".to_owned(), 0o10, b"in".to_vec()),
            ("files/1/link".to_owned(), 0o12, b"../..".to_vec()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_cannot_be_read_is_a_message_and_the_others_are_packed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("good"), "good").unwrap();
        fs::create_dir(at("odd")).unwrap();
        fs::write(at("odd").join(OsStr::from_bytes(b"\xff")), "").unwrap();
        let found = packed(&[&at("none"), &at("good"), &at("odd")]);
        let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["failed/0", "failed/2", "files/1", "files/2"]);
        assert!(String::from_utf8_lossy(&found[0].2).contains("No such file"), "{found:?}");
        assert!(String::from_utf8_lossy(&found[1].2).contains("UTF-8"), "{found:?}");
    }

    #[test]
    fn files_that_the_kernel_makes_have_the_length_that_is_read() {
        // The kernel says that it has 0 bytes, which it has not.
        let found = packed(&[Path::new("/proc/self/status"), Path::new("/proc/kallsyms")]);
        assert!(found[0].2.starts_with(b"Name:"), "{found:?}");
        assert!(found[1].2.len() > PIECE && found[1].2.ends_with(b"\n"));
    }

    #[test]
    fn a_file_that_is_too_large_is_a_message() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        File::create(&path).unwrap().set_len(1 << 32).unwrap();
        let found = packed(&[&path]);
        assert_eq!(found.len(), 1);
        assert!(String::from_utf8_lossy(&found[0].2).contains("4 GiB"), "{found:?}");
    }

    #[test]
    fn a_file_that_becomes_shorter_keeps_the_archive_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![1; PIECE]).unwrap();
        let mut packer = Packer::new(Vec::new());
        let file = File::open(&path).unwrap();
        let size = u32::try_from(4 * PIECE).unwrap();
        let result = packer.content("files/0", 0o100_644, size, b"start", &file).unwrap();
        assert!(result.unwrap_err().contains("shorter"));
        let found = listing(&packer.finish().unwrap());
        assert_eq!(found[0].2.len(), 4 * PIECE);
        assert_eq!(found[0].2.iter().filter(|byte| **byte == 1).count(), PIECE);
    }
}

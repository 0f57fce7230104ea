// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a run brings into a guest, as opposed to what the guest boots with: the command, the driver with its parameters, the
//! programs.
//!
//! All of it is cpio archives, whichever way the guest starts. A guest that boots has them appended to its initramfs, so the
//! kernel unpacks them; a guest that is restored from a snapshot finds them in its [`mailbox`](crate::mailbox), and PID 1
//! unpacks them with [`unpack`]. Either way the same files are in the same places when PID 1 goes on.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use cpio::newc::{ModeFileType, Reader};
use thiserror::Error;

use crate::initramfs::{Archive, ArchiveError};

/// Where PID 1 looks for the command to run: NUL-terminated words, first the program.
pub const COMMAND_PATH: &str = "/ersatz/command";

/// Where PID 1 looks for the parameters of the driver: `NAME=VALUE` separated by blanks. The file is in every run.
pub const DRIVER_PARAMETERS_PATH: &str = "/ersatz/driver-parameters";

/// A word of the kernel command line: PID 1 waits for a run at its mailbox, unless the initramfs has brought one.
pub const WAIT_FOR_RUN: &str = "ersatz_init.run=mailbox";

/// Where the driver is.
pub const DRIVER_PATH: &str = "/lib/modules/ersatz.ko";

/// Where the module is that holds tasks at functions of the kernel. Nothing loads it unless it is needed.
pub const HOLD_MODULE_PATH: &str = "/lib/modules/ersatz_hold.ko";

/// Where the module is whose device's memory is RAM. Nothing loads it unless it is needed.
pub const RAM_MODULE_PATH: &str = "/lib/modules/ersatz_ram.ko";

/// Where the kernel's own test driver of device memory is, in runs that bring it.
pub const TEST_DRIVER_PATH: &str = "/lib/modules/test_hmm.ko";

/// Where the kernel's own tests of device memory are, in runs that bring them.
pub const HMM_TESTS_PATH: &str = "/bin/hmm-tests";

/// The modules that give a guest something to swap to, and where a run brings them: in the order of their names, which begin with numbers.
pub const SWAP_MODULES: &[&str] = &["zram"];
/// Their folder.
pub const SWAP_MODULES_FOLDER: &str = "/lib/modules/swap";

/// Tells PID 1 that the command's standard streams are virtio-serial ports with these names, if it is there.
pub const STREAMS_PATH: &str = "/ersatz/streams";
/// The ports: standard input, output, error.
pub const STREAM_PORTS: [&str; 3] = ["ersatz.stdin", "ersatz.stdout", "ersatz.stderr"];

/// Tells PID 1 to load no driver, if it is there.
pub const NO_DRIVER_PATH: &str = "/ersatz/no-driver";

/// Where PID 1 looks for the modules to load after the driver: for each its path and its parameters, both NUL-terminated.
pub const MODULES_LIST: &str = "/ersatz/modules";

/// The folder of those modules.
pub const MODULES_FOLDER: &str = "/lib/modules/brought";

/// The folder of the guest for programs that a run brings. PID 1 puts it first in `PATH`, so they are found by name, and the
/// guest's own programs keep their places.
pub const PROGRAMS_FOLDER: &str = "/usr/local/bin";

/// The folder for libraries that a run brings and that a guest's loader would not find. PID 1 names it in `LD_LIBRARY_PATH` if it is
/// there.
pub const LIBRARIES_FOLDER: &str = "/ersatz/lib";

/// Where the guest-side tests are.
pub const TESTS_PATH: &str = "/bin/ersatz-guest-tests";

/// Where a scenario is, in runs that try one.
pub const SCENARIO_PATH: &str = "/ersatz/scenario";

/// Where scenarios are, in runs that try many, in the order of their names.
pub const SCENARIOS_FOLDER: &str = "/ersatz/scenarios";

/// Archives start at a multiple of this many bytes; the kernel requires it.
const ALIGNMENT: usize = 4;

/// The bits of a mode with the kind of file.
const FILE_TYPE: u32 = 0o170_000;

/// Bytes that are copied at a time: few system calls, and little memory that must be cleared first.
const PIECE: usize = 64 << 10;

/// Every entry of a `newc` archive begins with this.
const MAGIC: &[u8] = b"070701";

/// The archive with the command and the driver's parameters. Without a command PID 1 starts a shell.
///
/// # Errors
///
/// Fails if there is no program, or a word has a NUL byte in it.
pub fn request_archive<S: AsRef<OsStr>>(
    command: Option<&[S]>,
    driver_parameters: &str,
) -> Result<Vec<u8>, ArchiveError> {
    let mut archive = Archive::new();
    archive.file(DRIVER_PARAMETERS_PATH, 0o644, driver_parameters)?;
    if let Some(words) = command {
        archive.file(COMMAND_PATH, 0o644, command_words(words)?)?;
    }
    archive.to_bytes()
}

fn command_words<S: AsRef<OsStr>>(words: &[S]) -> Result<Vec<u8>, ArchiveError> {
    let words: Vec<&OsStr> = words.iter().map(AsRef::as_ref).collect();
    let program_named = words.first().is_some_and(|program| !program.is_empty());
    if !program_named || words.iter().any(|word| word.as_bytes().contains(&0)) {
        let words = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        return Err(ArchiveError::BadCommand(words));
    }
    let mut content = Vec::new();
    for word in words {
        content.extend_from_slice(word.as_bytes());
        content.push(0);
    }
    Ok(content)
}

/// Appends an archive to others, at the place where a reader of all of them looks for it.
pub fn append(archives: &mut Vec<u8>, archive: &[u8]) {
    archives.resize(archives.len().next_multiple_of(ALIGNMENT), 0);
    archives.extend_from_slice(archive);
}

/// Why archives were not unpacked, or not to their end.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The bytes are not archives.
    #[error("what the run brings is not a cpio archive at byte {offset}")]
    Malformed {
        /// Where.
        offset: usize,
        /// The error of the reader of the format.
        #[source]
        source: io::Error,
    },
    /// A name leads out of the root, or has no file name.
    #[error("'{0}' in an archive of the run is not a path below the root")]
    BadPath(String),
    /// Something that is not a directory, a regular file or a symbolic link.
    #[error("'{0}' in an archive of the run is neither a directory, nor a file, nor a symbolic link")]
    BadType(String),
    /// A file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Unpacks archives that follow one another below `root`, later ones over earlier ones, as the kernel does with an
/// initramfs. What is there already is replaced; owners are those of the caller.
///
/// # Errors
///
/// Fails if the bytes are not valid archives, or a file cannot be written.
pub fn unpack(archives: &[u8], root: &Path) -> Result<(), UnpackError> {
    let mut rest = archives;
    loop {
        let padding = rest.iter().take_while(|byte| **byte == 0).count();
        rest = &rest[padding..];
        if rest.is_empty() {
            return Ok(());
        }
        let offset = archives.len() - rest.len();
        let malformed = |source| UnpackError::Malformed { offset, source };
        if !rest.starts_with(MAGIC) {
            return Err(malformed(io::ErrorKind::InvalidData.into()));
        }
        let mut reader = Reader::new(rest).map_err(malformed)?;
        if !reader.entry().is_trailer() {
            unpack_entry(&mut reader, root, malformed)?;
        }
        rest = reader.finish().map_err(malformed)?;
    }
}

fn unpack_entry(
    reader: &mut Reader<&[u8]>,
    root: &Path,
    malformed: impl Fn(io::Error) -> UnpackError,
) -> Result<(), UnpackError> {
    let entry = reader.entry();
    let (name, mode) = (entry.name().to_owned(), entry.mode());
    let path = below(root, &name).ok_or_else(|| UnpackError::BadPath(name.clone()))?;
    let is = |kind: ModeFileType| mode & FILE_TYPE == u32::from(kind);
    let written = if is(ModeFileType::Directory) {
        fs::create_dir_all(&path)
    } else if is(ModeFileType::Regular) {
        replace(&path, |path| {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode & 0o7777).open(path)?;
            copy(reader, &mut file)
        })
    } else if is(ModeFileType::Symlink) {
        let mut target = Vec::new();
        io::Read::read_to_end(reader, &mut target).map_err(malformed)?;
        replace(&path, |path| symlink(OsStr::from_bytes(&target), path))
    } else {
        return Err(UnpackError::BadType(name));
    };
    written.map_err(|source| UnpackError::Write { path, source })
}

/// Copies what is left of an entry. The header's size is a claim; what is read ends with the archive.
fn copy(reader: &mut Reader<&[u8]>, file: &mut fs::File) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match io::Read::read(reader, &mut piece)? {
            0 => return Ok(()),
            length => io::Write::write_all(file, &piece[..length])?,
        }
    }
}

/// Makes a new file in the place of an older one. An older one may be a program that runs, which cannot be written to.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make(path)
}

/// The path of an entry; `None` if it is not one below the root.
fn below(root: &Path, name: &str) -> Option<PathBuf> {
    let relative = Path::new(name.trim_start_matches('/'));
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && relative.file_name().is_some()).then(|| root.join(relative))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn request(words: &[&str]) -> Vec<u8> {
        request_archive(Some(words), "memory=private").unwrap()
    }

    #[test]
    fn what_was_packed_is_unpacked_later_archives_over_earlier_ones() {
        let root = tempfile::tempdir().unwrap();
        let mut programs = Archive::new();
        programs.file("/bin/tool", 0o755, "first").unwrap();
        programs.symlink("/bin/link", "tool").unwrap();
        let mut newer = Archive::new();
        newer.file("/bin/tool", 0o700, "second").unwrap();
        let mut all = Vec::new();
        append(&mut all, &programs.to_bytes().unwrap());
        append(&mut all, &newer.to_bytes().unwrap());
        append(&mut all, &request(&["/bin/sh", "-c", "echo 'a b'", ""]));
        for _ in 0..2 {
            unpack(&all, root.path()).unwrap();
        }
        let at = |path: &str| root.path().join(path);
        assert_eq!(fs::read(at("bin/tool")).unwrap(), b"second");
        assert_eq!(fs::metadata(at("bin/tool")).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_link(at("bin/link")).unwrap(), Path::new("tool"));
        assert_eq!(fs::read(at("ersatz/command")).unwrap(), b"/bin/sh\0-c\0echo 'a b'\0\0");
        assert_eq!(fs::read(at("ersatz/driver-parameters")).unwrap(), b"memory=private");
    }

    #[test]
    fn a_run_without_a_command_has_no_words() {
        let root = tempfile::tempdir().unwrap();
        unpack(&request_archive::<&str>(None, "").unwrap(), root.path()).unwrap();
        assert!(!root.path().join("ersatz/command").exists());
        assert!(root.path().join("ersatz/driver-parameters").exists());
    }

    #[test]
    fn commands_that_cannot_be_are_refused() {
        let none: [&str; 0] = [];
        for words in [&none[..], &[""], &["a", "b\0c"]] {
            assert!(matches!(request_archive(Some(words), ""), Err(ArchiveError::BadCommand(_))), "{words:?}");
        }
    }

    #[test]
    fn malformed_archives_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let good = request(&["x"]);
        assert!(unpack(b"hello", root.path()).is_err());
        assert!(unpack(&good[..good.len() / 3], root.path()).is_err());
        for length in 0..good.len() {
            let _ = unpack(&good[..length], root.path());
        }
        let mut outside = Vec::new();
        cpio::newc::Builder::new("../outside").mode(0o100_644).write(&mut outside, 0).finish().unwrap();
        assert!(matches!(unpack(&outside, root.path()), Err(UnpackError::BadPath(_))));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's end of the mailbox: finds the device by its ids, maps its memory, and looks.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::ptr;
use std::slice;
use std::sync::atomic::{Ordering, fence};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use thiserror::Error;

use super::{ARCHIVES, BAR, DEVICE, HEADER_SIZE, Header, MailboxError, SIZE, VENDOR};

/// One folder per PCI function.
const FUNCTIONS: &str = "/sys/bus/pci/devices";

/// Why no run can be taken from a mailbox.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The device is there and cannot be used.
    #[error("cannot map the mailbox {path}")]
    Map {
        /// Its folder in sysfs.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Its content is not valid.
    #[error(transparent)]
    Content(#[from] MailboxError),
}

/// A mailbox. What is looked at is mapped, and no more: the kernel enters each page of a BAR's mapping at once.
#[derive(Debug)]
pub struct Mailbox {
    memory: File,
    header: Mapping,
}

/// A part of a file, mapped and shared with all that have the file open.
///
/// # Invariants
///
/// `memory` is a readable mapping of `length` bytes that lives as long as this.
#[derive(Debug)]
struct Mapping {
    memory: *const u8,
    length: usize,
}

impl Mailbox {
    /// Finds this machine's mailbox; `None` if it has no such device.
    ///
    /// # Errors
    ///
    /// Fails if the device is there and cannot be mapped.
    pub fn find() -> Result<Option<Self>, ReadError> {
        let Some(path) = find(Path::new(FUNCTIONS)) else { return Ok(None) };
        Self::map(&path).map(Some).map_err(|source| ReadError::Map { path, source })
    }

    fn map(function: &Path) -> io::Result<Self> {
        if !has_address(&fs::read_to_string(function.join("resource"))?) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the kernel has given it no address yet"));
        }
        // Without a driver nothing else makes the device answer in its windows.
        fs::write(function.join("enable"), "1")?;
        Self::of_file(OpenOptions::new().read(true).write(true).open(function.join(format!("resource{BAR}")))?)
    }

    fn of_file(memory: File) -> io::Result<Self> {
        let header = Mapping::new(&memory, 0, HEADER_SIZE)?;
        Ok(Self { memory, header })
    }

    /// The header, once the mailbox is full; `None` before.
    ///
    /// # Errors
    ///
    /// Fails if it is full and its content is not valid.
    pub fn header(&self) -> Result<Option<Header>, ReadError> {
        Ok(read_header(|bytes| self.header.copy_to(bytes))?)
    }

    /// The archives behind a header that came from this mailbox. They are mapped, not copied.
    ///
    /// # Errors
    ///
    /// Fails if they cannot be mapped.
    pub fn archives(&self, header: &Header) -> io::Result<Archives> {
        let length = usize::try_from(header.length.min(SIZE - ARCHIVES)).map_err(io::Error::other)?;
        // There is no mapping without a byte.
        let mapping = (length != 0).then(|| Mapping::new(&self.memory, ARCHIVES, length)).transpose()?;
        Ok(Archives(mapping))
    }
}

/// What a full mailbox holds behind its header.
#[derive(Debug)]
pub struct Archives(Option<Mapping>);

impl Deref for Archives {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Some(mapping) = &self.0 else { return &[] };
        // SAFETY: the mapping is readable and lives as long as this (invariant of `Mapping`). Nobody writes to it: the host filled
        // the mailbox before it wrote the state in the header, and fills it once.
        unsafe { slice::from_raw_parts(mapping.memory, mapping.length) }
    }
}

/// Reads the header by `copy`, while the host may be writing it.
fn read_header(mut copy: impl FnMut(&mut [u8; HEADER_SIZE])) -> Result<Option<Header>, MailboxError> {
    let mut bytes = [0; HEADER_SIZE];
    copy(&mut bytes);
    if !Header::is_full(&bytes) {
        return Ok(None);
    }
    // The host writes the state last. The first copy may have taken the words before the state while they were still unwritten;
    // a copy made after the state was seen is whole.
    fence(Ordering::Acquire);
    copy(&mut bytes);
    Header::decode(&bytes)
}

impl Mapping {
    fn new(file: &File, offset: u64, length: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses the place, so the mapping overlaps nothing that is in use.
        let memory = unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, offset) }?;
        Ok(Self { memory: memory.cast(), length })
    }

    /// Copies the first bytes out, as they are now.
    fn copy_to(&self, bytes: &mut [u8]) {
        let length = bytes.len().min(self.length);
        let words = bytes[..length].chunks_exact_mut(8);
        for (index, word) in words.enumerate() {
            // SAFETY: the word lies inside the mapping (invariant), `index` counting whole words of its length.
            let source = unsafe { self.memory.cast::<u64>().add(index) };
            // SAFETY: the mapping is page-aligned, so `source` is aligned, and it is readable (invariant). The read is volatile
            // since the host may write meanwhile.
            word.copy_from_slice(&unsafe { ptr::read_volatile(source) }.to_ne_bytes());
        }
        for (index, byte) in bytes[..length].iter_mut().enumerate().skip(length & !7) {
            // SAFETY: the byte lies inside the mapping (invariant).
            let source = unsafe { self.memory.add(index) };
            // SAFETY: `source` is readable (invariant).
            *byte = unsafe { ptr::read_volatile(source) };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by this type with this length, and nothing refers into it: what is handed out
        // is a copy, or borrows this. It could fail only if it were not mapped.
        let _ = unsafe { munmap(self.memory.cast_mut().cast(), self.length) };
    }
}

/// Whether the mailbox's BAR has an address, by the function's list of resources: start, end and flags of one on each line.
fn has_address(resources: &str) -> bool {
    let line = resources.lines().nth(BAR.into()).unwrap_or_default();
    let start = line.split_whitespace().next().and_then(|text| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok());
    start.is_some_and(|start| start != 0)
}

/// The sysfs folder of the mailbox.
fn find(functions: &Path) -> Option<PathBuf> {
    let id = |folder: &Path, name: &str| {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
        u16::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    let folders = fs::read_dir(functions).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    folders.into_iter().find(|path| id(path, "vendor") == Some(VENDOR) && id(path, "device") == Some(DEVICE))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    use super::super::{SEED_SIZE, fill};
    use super::*;

    #[test]
    fn a_full_mailbox_is_read() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        let mailbox = Mailbox::of_file(file.try_clone().unwrap()).unwrap();
        assert_eq!(mailbox.header().unwrap(), None);
        let header = Header { length: 11, gpus: 1, wall_clock: Duration::from_secs(9), seed: [3; SEED_SIZE] };
        fill(&file, &header, b"hello world").unwrap();
        assert_eq!(mailbox.header().unwrap(), Some(header));
        assert_eq!(&*mailbox.archives(&header).unwrap(), b"hello world");
        assert!(mailbox.archives(&Header { length: 0, ..header }).unwrap().is_empty());
    }

    #[test]
    fn a_header_that_is_written_while_it_is_read_is_read_again() {
        let file = tempfile::tempfile().unwrap();
        let header = Header { length: 0, gpus: 1, wall_clock: Duration::from_secs(9), seed: [3; SEED_SIZE] };
        fill(&file, &header, b"").unwrap();
        let mut whole = [0; HEADER_SIZE];
        file.read_exact_at(&mut whole, 0).unwrap();
        // The magic was read before the host wrote it, the state after.
        let mut torn = whole;
        torn[..8].fill(0);
        let mut copies = [torn, whole].into_iter();
        let read = read_header(|bytes| *bytes = copies.next().expect("two copies are enough"));
        assert_eq!(read, Ok(Some(header)));
    }

    #[test]
    fn a_function_that_was_just_seen_has_no_address() {
        let registers = "0x00000000fd800000 0x00000000fd8000ff 0x0000000000040200\n0x0 0x0 0x0\n";
        assert!(has_address(&format!("{registers}0x0000eff800000000 0x0000eff83fffffff 0x000000000014220c\n")));
        for line in ["0x0000000000000000 0x000000003fffffff 0x000000000014220c", "", "text"] {
            assert!(!has_address(&format!("{registers}{line}\n")), "{line}");
        }
    }

    #[test]
    fn the_device_is_found_by_its_ids() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find(folder.path()), None);
        for (name, vendor, device) in [("0000:00:01.0", "0x1af4", "0x1003"), ("0000:00:02.0", "0x1af4", "0x1110")] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("vendor"), format!("{vendor}\n")).unwrap();
            fs::write(folder.path().join(name).join("device"), format!("{device}\n")).unwrap();
        }
        assert_eq!(find(folder.path()), Some(folder.path().join("0000:00:02.0")));
        assert_eq!(find(&folder.path().join("none")), None);
    }
}

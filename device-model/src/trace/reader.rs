// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reading a log back: finished, still being written, left behind by a crash, cut short, or made up by an enemy.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{Ordering, fence};

use thiserror::Error;

use super::header::{HEADER_BYTES, Header, HeaderError};
use super::record::{RECORD_BYTES, RECORD_WORDS, Record};

/// Records that are read at a time.
const BATCH_RECORDS: usize = 1024;

/// Why a log cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file could not be opened or read.
    #[error("cannot read the trace log {}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is a folder, a pipe, a device.
    #[error("cannot read the trace log {}: it is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// It is shorter than a header.
    #[error("cannot read the trace log {}: it has {length} bytes and the header alone has {HEADER_BYTES}", path.display())]
    Short {
        /// Where.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
    },
    /// Its header is not that of a trace log.
    #[error("cannot read the trace log {}", path.display())]
    Header {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: HeaderError,
    },
}

/// Where the bytes of a log are.
trait Source: Send {
    /// Reads at `offset`; as many bytes as there are, up to the length of `buffer`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl Source for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl Source for Vec<u8> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|start| self.get(start..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// A log that is open for reading. It shows what had happened when it was opened.
pub struct TraceFile {
    path: PathBuf,
    source: Box<dyn Source>,
    header: Header,
    slots: u64,
}

impl TraceFile {
    /// Opens the log at `path`.
    ///
    /// # Errors
    ///
    /// Whatever [`ReadError`] lists.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let failed = |source| ReadError::File { path: path.to_owned(), source };
        // Looked at before it is opened: opening a FIFO would wait for its writer.
        if !path.metadata().map_err(failed)?.is_file() {
            return Err(ReadError::NotAFile(path.to_owned()));
        }
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        Self::new(path.to_owned(), Box::new(file), length)
    }

    /// Reads a log that is in memory.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ReadError> {
        let length = bytes.len() as u64;
        Self::new(PathBuf::from("(memory)"), Box::new(bytes), length)
    }

    fn new(path: PathBuf, source: Box<dyn Source>, length: u64) -> Result<Self, ReadError> {
        let mut page = [0; HEADER_BYTES];
        match source.read_at(&mut page, 0) {
            Ok(HEADER_BYTES) => {}
            Ok(_) => return Err(ReadError::Short { path, length }),
            Err(source) => return Err(ReadError::File { path, source }),
        }
        let header = match Header::decode(&page) {
            Ok(header) => header,
            Err(source) => return Err(ReadError::Header { path, source }),
        };
        let on_disk = length.saturating_sub(HEADER_BYTES as u64) / RECORD_BYTES as u64;
        let slots = header.claimed.min(header.capacity).min(on_disk);
        Ok(Self { path, source, header, slots })
    }

    /// Where the log is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The header.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The records in the order of their sequence numbers, from the first.
    pub const fn records(&self) -> Records<'_> {
        Records { file: self, next: 0, batch: Vec::new(), position: 0, failed: false }
    }

    /// Reads the slots from `first` on, at most a batch of them, into `batch`; those that were not published are left out.
    fn read_batch(&self, first: u64, count: usize, batch: &mut Vec<Record>) -> Result<(), ReadError> {
        let failed = |source| ReadError::File { path: self.path.clone(), source };
        let offset = HEADER_BYTES as u64 + first * RECORD_BYTES as u64;
        let mut bytes = vec![0; count * RECORD_BYTES];
        let mut published = vec![true; count];
        if !self.header.closed {
            // A slot that has its sequence number now has its payload in the second look, whatever order this copies in.
            let filled = self.source.read_at(&mut bytes, offset).map_err(failed)?;
            bytes[filled..].fill(0);
            for (index, slot) in bytes.chunks_exact(RECORD_BYTES).enumerate() {
                published[index] = words(slot)[0] == first + index as u64 + 1;
            }
            fence(Ordering::Acquire);
        }
        let filled = self.source.read_at(&mut bytes, offset).map_err(failed)?;
        bytes[filled..].fill(0);
        batch.clear();
        for (index, slot) in bytes.chunks_exact(RECORD_BYTES).enumerate() {
            let words = words(slot);
            if published[index] && words[0] == first + index as u64 + 1 {
                batch.push(Record::from_words(&words));
            }
        }
        Ok(())
    }
}

/// The words of a slot of [`RECORD_BYTES`] bytes.
fn words(slot: &[u8]) -> [u64; RECORD_WORDS] {
    let mut words = [0; RECORD_WORDS];
    for (word, bytes) in words.iter_mut().zip(slot.chunks_exact(8)) {
        let mut copy = [0; 8];
        copy.copy_from_slice(bytes);
        *word = u64::from_le_bytes(copy);
    }
    words
}

/// Iterates over the records of a log. Memory stays bounded, however long the log is; a failure to read ends it.
pub struct Records<'a> {
    file: &'a TraceFile,
    next: u64,
    batch: Vec<Record>,
    position: usize,
    failed: bool,
}

impl Iterator for Records<'_> {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.batch.get(self.position) {
                self.position += 1;
                return Some(Ok(*record));
            }
            if self.failed || self.next >= self.file.slots {
                return None;
            }
            let left = self.file.slots - self.next;
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(BATCH_RECORDS);
            self.position = 0;
            if let Err(error) = self.file.read_batch(self.next, count, &mut self.batch) {
                self.failed = true;
                self.batch.clear();
                return Some(Err(error));
            }
            self.next += count as u64;
        }
    }
}

#[cfg(test)]
mod tests;

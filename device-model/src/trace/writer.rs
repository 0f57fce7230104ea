// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The writer's side of the log: a file, mapped shared, in the [`space`] of which records are put.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use thiserror::Error;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use super::header::{CLAIMED, CLOSED, DROPPED, HEADER_BYTES, Header, MAX_CAPACITY};
use super::record::{RECORD_BYTES, RECORD_WORDS};
use super::slots;
use super::space::{self, Space};

/// Why a log could not be created.
#[derive(Debug, Error)]
pub enum CreateError {
    /// A capacity of zero or beyond [`MAX_CAPACITY`].
    #[error("a trace log cannot have room for {0} records; give 1 to {MAX_CAPACITY}")]
    Capacity(u64),
    /// The path leads to something that is not a regular file.
    #[error("cannot write the trace log {}: it is not a regular file (a log is mapped; give the path of a file)", .0.display())]
    NotAFile(PathBuf),
    /// Another process writes this very file.
    #[error("cannot write the trace log {}: another process is writing it; give each device a file of its own", .0.display())]
    InUse(PathBuf),
    /// The file could not be made.
    #[error("cannot create the trace log {}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file could not be mapped.
    #[error("cannot map the trace log {} (its file system must support shared mappings)", path.display())]
    Map {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: MmapRegionError,
    },
}

/// An open log. Every method may be called from any thread at any time.
#[derive(Debug)]
pub(super) struct Log {
    space: Space,
    capacity: u64,
}

impl Log {
    /// Creates the file, or empties it, and writes its header.
    pub(super) fn create(path: &Path, header: &Header) -> Result<Self, CreateError> {
        let failed = |source: io::Error| CreateError::File { path: path.to_owned(), source };
        let capacity = header.capacity;
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(CreateError::Capacity(capacity));
        }
        // Looked at before it is opened: opening a FIFO would wait for its reader.
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(CreateError::NotAFile(path.to_owned()));
        }
        // Emptied only under the lock: cutting a file that another process has mapped would kill it.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(CreateError::InUse(path.to_owned())),
            // A file system without locks is no reason to go without a trace.
            Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK) => {}
            Err(error) => return Err(failed(error.into())),
        }
        file.set_len(0).map_err(failed)?;

        let size = HEADER_BYTES as u64 + capacity * RECORD_BYTES as u64;
        let allocated = space::begin(&file, size).map_err(failed)?;
        file.write_all_at(&header.encode()[..], 0).map_err(failed)?;

        let length = usize::try_from(size).map_err(|_| CreateError::Capacity(capacity))?;
        let map = MmapRegion::from_file(FileOffset::new(file, 0), length)
            .map_err(|source| CreateError::Map { path: path.to_owned(), source })?;
        Ok(Self { space: Space::new(map, allocated, header.identity.device), capacity })
    }

    /// Writes one record: `record` makes its words from its sequence number, or it is counted as dropped.
    #[inline]
    pub(super) fn append(&self, record: impl FnOnce(u64) -> [u64; RECORD_WORDS]) {
        self.write(slots::claim(self.word(CLAIMED), 1), record);
    }

    /// Writes records that follow upon each other, as [`Self::append`] does one.
    #[inline]
    pub(super) fn append_all<T>(
        &self,
        items: impl ExactSizeIterator<Item = T>,
        record: impl Fn(T, u64) -> [u64; RECORD_WORDS],
    ) {
        let first = slots::claim(self.word(CLAIMED), items.len() as u64);
        for (number, item) in (0..).zip(items) {
            // The count is in a file, which others may write.
            self.write(first.saturating_add(number), |sequence| record(item, sequence));
        }
    }

    /// Writes a record to a slot that was claimed.
    #[inline]
    fn write(&self, index: u64, record: impl FnOnce(u64) -> [u64; RECORD_WORDS]) {
        let has_space = || self.space.reach(HEADER_BYTES as u64 + (index + 1) * RECORD_BYTES as u64);
        if index >= self.capacity || !has_space() {
            self.word(DROPPED).fetch_add(1, Ordering::Relaxed);
            return;
        }
        slots::publish(self.slot(HEADER_BYTES + index as usize * RECORD_BYTES), &record(index + 1));
    }

    /// The words of the slot at this place in the map.
    #[inline]
    fn slot(&self, offset: usize) -> &[AtomicU64; RECORD_WORDS] {
        let slot = self.space.map().get_slice(offset, RECORD_BYTES).expect("a slot of the map");
        // SAFETY: the slice is as long as the array, lies in the map, which lives as long as `self`, and is aligned: the map
        // to a page, slots in it to their size. Its memory is accessed by atomics alone.
        unsafe { &*slot.ptr_guard_mut().as_ptr().cast() }
    }

    /// An aligned word of the map.
    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        // Offsets are multiples of 8 and inside the map: header fields, and slots below the capacity.
        self.space.map().get_atomic_ref(offset).expect("a word of the map")
    }
}

impl Drop for Log {
    /// Marks the log as closed and gives back the disk space that no record uses.
    fn drop(&mut self) {
        self.word(CLOSED).store(1, Ordering::Release);
        let used = self.word(CLAIMED).load(Ordering::Acquire).min(self.capacity);
        self.space.end(HEADER_BYTES as u64 + used * RECORD_BYTES as u64);
    }
}

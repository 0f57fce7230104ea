// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The writer's side of the log: a file, mapped shared, that grows ahead of its records.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;
use rustix::mm::{Advice, madvise};
use thiserror::Error;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use super::header::{CLAIMED, CLOSED, DROPPED, HEADER_BYTES, Header, MAX_CAPACITY};
use super::record::{RECORD_BYTES, RECORD_WORDS};
use super::slots;

/// Disk space is allocated in steps of this many bytes.
pub const CHUNK_BYTES: u64 = 1 << 20;

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
    file: Arc<File>,
    map: MmapRegion,
    capacity: u64,
    /// Length that the file has on disk, in bytes: what may be touched in the map. Only rises.
    allocated: AtomicU64,
    /// Set once the disk was full: from then on nothing is allocated.
    full: AtomicBool,
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
        let first = CHUNK_BYTES.min(size);
        let allocated = match fallocate(&file, FallocateFlags::empty(), 0, first) {
            Ok(()) => first,
            // Then the file is sparse from the start, and the disk had better not fill up.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                file.set_len(size).map_err(failed)?;
                size
            }
            Err(error) => return Err(failed(error.into())),
        };
        file.write_all_at(&header.encode()[..], 0).map_err(failed)?;

        let file = Arc::new(file);
        let length = usize::try_from(size).map_err(|_| CreateError::Capacity(capacity))?;
        let map = MmapRegion::from_file(FileOffset::from_arc(Arc::clone(&file), 0), length)
            .map_err(|source| CreateError::Map { path: path.to_owned(), source })?;
        Ok(Self { file, map, capacity, allocated: AtomicU64::new(allocated), full: AtomicBool::new(false) })
    }

    /// Writes one record: `record` makes its words from its sequence number, or it is counted as dropped.
    #[inline]
    pub(super) fn append(&self, record: impl FnOnce(u64) -> [u64; RECORD_WORDS]) {
        let index = slots::claim(self.word(CLAIMED));
        if index >= self.capacity || !self.reach(index) {
            self.word(DROPPED).fetch_add(1, Ordering::Relaxed);
            return;
        }
        let offset = HEADER_BYTES + index as usize * RECORD_BYTES;
        let slot = std::array::from_fn(|word| self.word(offset + word * 8));
        slots::publish(&slot, &record(index + 1));
    }

    /// An aligned word of the map.
    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        // Offsets are multiples of 8 and inside the map: header fields, and slots below the capacity.
        self.map.get_atomic_ref(offset).expect("a word of the map")
    }

    /// Makes sure that the slot's place on disk exists; `false` if the disk is full.
    #[inline]
    fn reach(&self, index: u64) -> bool {
        let end = HEADER_BYTES as u64 + (index + 1) * RECORD_BYTES as u64;
        // Acquire pairs with the release in `grow`: the blocks were allocated before the figure rose.
        end <= self.allocated.load(Ordering::Acquire) || self.grow(end)
    }

    /// Allocates whole chunks up to the one that `end` lies in. Threads may do the same allocation side by side: it changes
    /// nothing that is there, and none has to wait for another to get round to it.
    #[cold]
    fn grow(&self, end: u64) -> bool {
        let start = self.allocated.load(Ordering::Acquire);
        if end <= start {
            return true;
        }
        if self.full.load(Ordering::Relaxed) {
            return false;
        }
        let target = end.next_multiple_of(CHUNK_BYTES).min(self.map.size() as u64);
        // From where the last allocation ended, so that no hole is left below the figure.
        loop {
            match fallocate(&*self.file, FallocateFlags::empty(), start, target - start) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(error) => {
                    if !self.full.swap(true, Ordering::Relaxed) {
                        log::error!(
                            "the trace log cannot grow beyond {start} bytes: {error}; further events are only counted"
                        );
                    }
                    return false;
                }
            }
        }
        if self.allocated.fetch_max(target, Ordering::AcqRel) < target {
            self.release_before(start);
        }
        true
    }

    /// Unmaps the pages of the chunk before the one that ends at `end`, which nobody is likely to write any more: the log
    /// costs the process a few chunks of resident memory, however long it grows. A late writer just faults its page in again.
    fn release_before(&self, end: u64) {
        let first = end.saturating_sub(2 * CHUNK_BYTES).max(HEADER_BYTES as u64);
        let Some(length) = end.checked_sub(CHUNK_BYTES).and_then(|last| last.checked_sub(first)) else { return };
        let (Ok(first), Ok(length)) = (usize::try_from(first), usize::try_from(length)) else { return };
        let Ok(pages) = self.map.get_slice(first, length) else { return };
        // SAFETY: the range lies in the map, and the map is shared: its content is the page cache's and stays as it is.
        let advised = unsafe { madvise(pages.ptr_guard_mut().as_ptr().cast(), length, Advice::LinuxDontNeed) };
        if let Err(error) = advised {
            log::debug!("the trace log keeps {length} bytes of memory: {error}");
        }
    }
}

impl Drop for Log {
    /// Marks the log as closed and gives back the disk space that no record uses.
    fn drop(&mut self) {
        self.word(CLOSED).store(1, Ordering::Release);
        let used = self.word(CLAIMED).load(Ordering::Acquire).min(self.capacity);
        let length = (HEADER_BYTES as u64 + used * RECORD_BYTES as u64).min(*self.allocated.get_mut());
        if let Err(error) = self.file.set_len(length) {
            log::warn!("cannot cut the trace log to the {length} bytes it uses: {error}");
        }
    }
}

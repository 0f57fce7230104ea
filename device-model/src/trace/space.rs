// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The disk space of a log: it is there before a slot in it is touched, so that a full disk cannot turn a store into
//! SIGBUS.
//!
//! Space is added a chunk at a time by a thread of the log, which stays a chunk ahead of the writers and makes the
//! pages ready, too: the page faults of a file are dear, and would be most of what a record costs. A writer that finds
//! no space because that thread is late adds it by itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Builder, JoinHandle};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::mm::{Advice, madvise};
use vm_memory::{MmapRegion, VolatileMemory};

use super::header::HEADER_BYTES;
use crate::sync::Mutex;

/// Disk space is added in steps of this many bytes.
pub const CHUNK_BYTES: u64 = 512 << 10;

/// Allocates the first chunk of a file that is to have up to `size` bytes; how much may be touched.
pub(super) fn begin(file: &File, size: u64) -> io::Result<u64> {
    let first = CHUNK_BYTES.min(size);
    match fallocate(file, FallocateFlags::empty(), 0, first) {
        Ok(()) => Ok(first),
        // Then the file is sparse from the start, and a disk that fills up makes a store raise SIGBUS.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(size).map(|()| size),
        Err(error) => Err(error.into()),
    }
}

/// A mapped file that grows.
#[derive(Debug)]
pub(super) struct Space {
    chunks: Arc<Chunks>,
    /// Adds space ahead of the writers; `None` if there is no such thread.
    keeper: Option<JoinHandle<()>>,
}

impl Space {
    /// The space of the log of a GPU, of whose file all is mapped, and `allocated` bytes may be touched.
    pub(super) fn new(map: MmapRegion, allocated: u64, gpu: u8) -> Self {
        let chunks = Arc::new(Chunks {
            gpu,
            map,
            allocated: AtomicU64::new(allocated),
            adding: Mutex::new(vec![0; CHUNK_BYTES as usize].into_boxed_slice()),
            full: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        });
        let keeper = Builder::new().name(format!("gpu{gpu}-trace")).spawn({
            let chunks = chunks.clone();
            move || chunks.keep()
        });
        let keeper = keeper.inspect_err(|error| {
            log::warn!("GPU {gpu}: events will cost more: no thread for the trace log: {error}");
        });
        Self { chunks, keeper: keeper.ok() }
    }

    /// The file, mapped.
    #[inline]
    pub(super) fn map(&self) -> &MmapRegion {
        &self.chunks.map
    }

    /// Makes sure that the file has disk space up to `end`; `false` if the disk is full.
    #[inline]
    pub(super) fn reach(&self, end: u64) -> bool {
        // Acquire pairs with the release in `add`: the space was there before the figure rose.
        let allocated = self.chunks.allocated.load(Ordering::Acquire);
        if end + CHUNK_BYTES > allocated {
            self.ask();
        }
        end <= allocated || self.chunks.add(end)
    }

    /// Asks the keeper for another chunk, unless that has been asked for.
    #[cold]
    fn ask(&self) {
        let Some(keeper) = &self.keeper else { return };
        if !self.chunks.asked.load(Ordering::Relaxed) && !self.chunks.asked.swap(true, Ordering::Relaxed) {
            keeper.thread().unpark();
        }
    }

    /// Gives back what the file has beyond `length`. Nothing may be reached after.
    pub(super) fn end(&mut self, length: u64) {
        self.chunks.leaving.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            keeper.thread().unpark();
            // A panic there has been printed, and the log is whole without it.
            let _ = keeper.join();
        }
        let length = length.min(self.chunks.allocated.load(Ordering::Acquire));
        if let Err(error) = self.chunks.file().map_or(Ok(()), |file| file.set_len(length)) {
            let gpu = self.chunks.gpu;
            log::warn!("GPU {gpu}: cannot cut the trace log to the {length} bytes it uses: {error}");
        }
    }
}

/// What the writers share with the keeper.
#[derive(Debug)]
struct Chunks {
    /// The number of the GPU, for messages.
    gpu: u8,
    map: MmapRegion,
    /// Length that the file has on disk, in bytes: what may be touched in the map. Only rises.
    allocated: AtomicU64,
    /// Locked while space is added; a chunk of zeroes.
    adding: Mutex<Box<[u8]>>,
    /// Set once the disk was full: from then on nothing is added.
    full: AtomicBool,
    /// A writer has come to the last chunk.
    asked: AtomicBool,
    leaving: AtomicBool,
}

impl Chunks {
    fn size(&self) -> u64 {
        self.map.size() as u64
    }

    fn file(&self) -> Option<&File> {
        self.map.file_offset().map(|offset| offset.file())
    }

    /// The keeper: adds space as it is asked to, until the log ends.
    fn keep(&self) {
        while !self.leaving.load(Ordering::Relaxed) {
            if self.asked.load(Ordering::Relaxed) {
                let end = self.allocated.load(Ordering::Acquire) + 1;
                let done = end > self.size() || !self.add(end);
                // After it is there, so that the writer that asked for this does not ask again.
                self.asked.store(done, Ordering::Relaxed);
            }
            thread::park();
        }
    }

    /// Adds whole chunks up to the one that `end` lies in; `false` if the disk is full. If another thread is adding chunks, waits
    /// for it, and adds what is still missing.
    #[cold]
    fn add(&self, end: u64) -> bool {
        let zeroes = self.adding.lock();
        let start = self.allocated.load(Ordering::Acquire);
        if end <= start {
            return true;
        }
        let Some(file) = self.file().filter(|_| !self.full.load(Ordering::Relaxed)) else { return false };
        let target = end.next_multiple_of(CHUNK_BYTES).min(self.size());
        if let Err(error) = allocate(file, start, target) {
            let gpu = self.gpu;
            log::error!(
                "GPU {gpu}: the trace log cannot grow beyond {start} bytes: {error}; further events are only counted"
            );
            self.full.store(true, Ordering::Relaxed);
            return false;
        }
        for place in (start..target).step_by(CHUNK_BYTES as usize) {
            let length = zeroes.len().min((target - place) as usize);
            // Zeroes are there already. But what is written comes into the page cache in large pieces, which are mapped
            // in one go: a quarter of what it costs page by page. Without it, nothing is missing.
            let _ = file.write_all_at(&zeroes[..length], place);
        }
        self.advise(start, target, Advice::LinuxPopulateWrite);
        self.allocated.store(target, Ordering::Release);
        self.release_before(start);
        true
    }

    /// Unmaps the pages of a chunk that is not likely to be written any more, as `start` is where the last one begins: the
    /// log costs the process a few chunks of resident memory, however long it grows. A late writer just faults its page in again.
    fn release_before(&self, start: u64) {
        let first = start.saturating_sub(3 * CHUNK_BYTES).max(HEADER_BYTES as u64);
        if let Some(end) = start.checked_sub(2 * CHUNK_BYTES) {
            self.advise(first, end, Advice::LinuxDontNeed);
        }
    }

    fn advise(&self, start: u64, end: u64, advice: Advice) {
        let Some(length) = end.checked_sub(start).filter(|length| *length > 0) else { return };
        let (Ok(first), Ok(length)) = (usize::try_from(start), usize::try_from(length)) else { return };
        let Ok(pages) = self.map.get_slice(first, length) else { return };
        // SAFETY: the range lies in the map, and the map is shared: its content is the page cache's and stays as it is, with
        // either advice that is given here.
        let advised = unsafe { madvise(pages.ptr_guard_mut().as_ptr().cast(), length, advice) };
        if let Err(error) = advised {
            let gpu = self.gpu;
            log::debug!("GPU {gpu}: the trace log cannot have {advice:?} for {length} bytes: {error}");
        }
    }
}

/// Gives a file disk space, from where it ends.
fn allocate(file: &File, start: u64, end: u64) -> Result<(), Errno> {
    loop {
        match fallocate(file, FallocateFlags::empty(), start, end - start) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device file, and what tests ask of it.
//!
//! The functions named `try_` return what the system said, for tests about errors. The others expect success and panic
//! otherwise, which is how a test fails.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ersatz_abi::counter::Counter;
use ersatz_uapi::{Counters, Digest, Direction, Evict, Info, Mark, MemoryType, Migrate, PageState, Residency};
use nix::errno::Errno;

use crate::region::Span;

/// The first device, which all tests but those about several use.
pub const PATH: &str = "/dev/ersatz0";
/// The second one.
pub const SECOND_PATH: &str = "/dev/ersatz1";

/// How long pages that are busy for a moment (on a list of another CPU, say) may take to settle.
const PATIENCE: Duration = Duration::from_secs(10);

mod ioctls {
    use ersatz_uapi::{
        Counters, Digest, Evict, IOC_COUNTERS, IOC_DIGEST, IOC_EVICT, IOC_INFO, IOC_MARK, IOC_MIGRATE, IOC_RESIDENCY,
        Info, Mark, Migrate, Residency,
    };

    nix::ioctl_readwrite_bad!(
        /// [`IOC_INFO`].
        info, IOC_INFO, Info
    );
    nix::ioctl_readwrite_bad!(
        /// [`IOC_MIGRATE`].
        migrate, IOC_MIGRATE, Migrate
    );
    nix::ioctl_readwrite_bad!(
        /// [`IOC_RESIDENCY`].
        residency, IOC_RESIDENCY, Residency
    );
    nix::ioctl_readwrite_bad!(
        /// [`IOC_DIGEST`].
        digest, IOC_DIGEST, Digest
    );
    nix::ioctl_readwrite_bad!(
        /// [`IOC_COUNTERS`].
        counters, IOC_COUNTERS, Counters
    );
    nix::ioctl_readwrite_bad!(
        /// [`IOC_EVICT`].
        evict, IOC_EVICT, Evict
    );
    nix::ioctl_readwrite_bad!(
        /// [`IOC_MARK`].
        mark, IOC_MARK, Mark
    );
}

/// An open device.
#[derive(Debug)]
pub struct Device {
    file: File,
}

impl Device {
    /// Opens the first device.
    ///
    /// # Errors
    ///
    /// If there is none, or it cannot be opened.
    pub fn try_open() -> io::Result<Self> {
        Self::try_open_at(PATH)
    }

    fn try_open_at(path: &str) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).open(path).map(|file| Self { file })
    }

    /// Opens the first device.
    pub fn open() -> Self {
        Self::try_open().unwrap_or_else(|error| panic!("cannot open {PATH}: {error}"))
    }

    /// Opens the second device.
    pub fn open_second() -> Self {
        Self::try_open_at(SECOND_PATH).unwrap_or_else(|error| panic!("cannot open {SECOND_PATH}: {error}"))
    }

    /// Whether there is a device file.
    pub fn exists() -> bool {
        Path::new(PATH).exists()
    }

    /// Whether there is a second one.
    pub fn second_exists() -> bool {
        Path::new(SECOND_PATH).exists()
    }

    /// The descriptor, for calls that no wrapper fits.
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// `ERSATZ_IOC_INFO`.
    pub fn try_info(&self) -> Result<Info, Errno> {
        let mut info = Info::default();
        // SAFETY: the structure is the one the ioctl writes, and lives through the call.
        unsafe { ioctls::info(self.descriptor(), &mut info) }.map(|_| info)
    }

    /// `ERSATZ_IOC_INFO`.
    pub fn info(&self) -> Info {
        self.try_info().unwrap_or_else(|error| panic!("ERSATZ_IOC_INFO: {error}"))
    }

    /// Whether the CPU reads and writes VRAM in place.
    pub fn is_coherent(&self) -> bool {
        self.info().memory_type == MemoryType::Coherent as u32
    }

    /// Pages of VRAM that nothing uses.
    pub fn free_pages(&self) -> u64 {
        self.info().vram_free / crate::pattern::PAGE as u64
    }

    /// Waits until nothing uses exactly so many pages of VRAM: pages are freed a moment after their last use.
    pub fn assert_free(&self, pages: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.free_pages() != pages {
            assert!(Instant::now() < deadline, "{} pages of VRAM free, not {pages}", self.free_pages());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// `ERSATZ_IOC_MIGRATE` with any arguments.
    pub fn try_migrate_raw(&self, mut request: Migrate) -> Result<Migrate, Errno> {
        // SAFETY: the structure is the one the ioctl reads and writes, and lives through the call. The range in it
        // may be anything: migrating changes no content.
        unsafe { ioctls::migrate(self.descriptor(), &mut request) }.map(|_| request)
    }

    /// One attempt to move a range.
    pub fn try_migrate(&self, span: Span, direction: Direction) -> Result<Migrate, Errno> {
        self.try_migrate_raw(Migrate {
            address: span.address,
            length: span.length,
            direction: direction as u32,
            ..Migrate::default()
        })
    }

    /// One attempt to move a range, which may leave pages where they are.
    pub fn migrate(&self, span: Span, direction: Direction) -> Migrate {
        let done = self
            .try_migrate(span, direction)
            .unwrap_or_else(|error| panic!("ERSATZ_IOC_MIGRATE of {span:x?} ({direction:?}): {error}"));
        assert!(
            done.moved <= span.pages() as u64 && done.left <= span.pages() as u64,
            "moved {}, left {} of {} pages",
            done.moved,
            done.left,
            span.pages()
        );
        done
    }

    /// Moves a whole range to the device, trying again for pages that are busy for a moment. Returns how many moved.
    pub fn to_device(&self, span: Span) -> u64 {
        self.settle(span, Direction::ToDevice)
    }

    /// Moves a whole range back to system memory. Returns how many moved.
    pub fn to_system(&self, span: Span) -> u64 {
        self.settle(span, Direction::ToSystem)
    }

    fn settle(&self, span: Span, direction: Direction) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        let mut moved = 0;
        loop {
            let done = self.migrate(span, direction);
            moved += done.moved;
            if done.left == 0 {
                return moved;
            }
            assert!(Instant::now() < deadline, "{} of {} pages never went {direction:?}", done.left, span.pages());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Where each page of a range is.
    pub fn residency(&self, span: Span) -> Vec<PageState> {
        let mut states = vec![u8::MAX; span.pages()];
        let mut request =
            Residency { address: span.address, length: span.length, states: states.as_mut_ptr().addr() as u64 };
        // SAFETY: the array has one byte a page of the range, and both live through the call.
        unsafe { ioctls::residency(self.descriptor(), &mut request) }
            .unwrap_or_else(|error| panic!("ERSATZ_IOC_RESIDENCY of {span:x?}: {error}"));
        states.iter().map(|&state| page_state(state)).collect()
    }

    /// `ERSATZ_IOC_RESIDENCY` with any arguments.
    ///
    /// # Safety
    ///
    /// `request.states` must lead to one writable byte a page of the range, or nowhere.
    pub unsafe fn try_residency_raw(&self, mut request: Residency) -> Result<(), Errno> {
        // SAFETY: the caller vouches for the array.
        unsafe { ioctls::residency(self.descriptor(), &mut request) }.map(drop)
    }

    /// How many pages of a range are in VRAM.
    pub fn on_device(&self, span: Span) -> usize {
        self.residency(span).into_iter().filter(|&state| state == PageState::Device).count()
    }

    /// Asserts that all pages of a range are in one place.
    pub fn assert_all(&self, span: Span, state: PageState) {
        let states = self.residency(span);
        if let Some(index) = states.iter().position(|&found| found != state) {
            panic!("page {index} of {} is {:?}, not {state:?}", span.pages(), states[index]);
        }
    }

    /// What the device reads in each page, as CRC-32C, and how many of the pages it read in VRAM.
    pub fn try_digest(&self, span: Span) -> Result<(Vec<u64>, u64), Errno> {
        let mut digests = vec![u64::MAX; span.pages()];
        let request = Digest {
            address: span.address,
            length: span.length,
            digests: digests.as_mut_ptr().addr() as u64,
            ..Digest::default()
        };
        // SAFETY: the array has one number a page of the range and lives through the call.
        let done = unsafe { self.try_digest_raw(request) }?;
        Ok((digests, done.in_vram))
    }

    /// `ERSATZ_IOC_DIGEST` with any arguments.
    ///
    /// # Safety
    ///
    /// `request.digests` must lead to one writable `u64` a page of the range, or nowhere.
    pub unsafe fn try_digest_raw(&self, mut request: Digest) -> Result<Digest, Errno> {
        // SAFETY: the caller vouches for the array.
        unsafe { ioctls::digest(self.descriptor(), &mut request) }.map(|_| request)
    }

    /// Has the device read a range and asserts what it found, and where.
    pub fn assert_digests(&self, span: Span, in_vram: usize, expected: impl Fn(usize) -> u64) {
        let (digests, found_in_vram) =
            self.try_digest(span).unwrap_or_else(|error| panic!("ERSATZ_IOC_DIGEST of {span:x?}: {error}"));
        for (index, &digest) in digests.iter().enumerate() {
            assert_eq!(digest, expected(index), "what the device reads in page {index} of {}", span.pages());
        }
        assert_eq!(found_in_vram, in_vram as u64, "pages that the device read in VRAM, of {}", span.pages());
    }

    /// The device's own counters.
    pub fn try_counters(&self) -> Result<Counters, Errno> {
        let mut counters = Counters::default();
        // SAFETY: the structure is the one the ioctl writes, and lives through the call.
        unsafe { ioctls::counters(self.descriptor(), &mut counters) }.map(|_| counters)
    }

    /// The device's own counters, from now on: see [`Watch`].
    pub fn watch(&self) -> Watch<'_> {
        Watch { device: self, before: self.counters() }
    }

    /// One of the device's own counters, from its start.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters().values[usize::from(counter as u8)]
    }

    fn counters(&self) -> Counters {
        self.try_counters().unwrap_or_else(|error| panic!("ERSATZ_IOC_COUNTERS: {error}"))
    }

    /// Moves every page of every process off the device.
    pub fn evict(&self) -> Evict {
        self.try_evict().unwrap_or_else(|error| panic!("ERSATZ_IOC_EVICT: {error}"))
    }

    /// `ERSATZ_IOC_EVICT`.
    pub fn try_evict(&self) -> Result<Evict, Errno> {
        let mut request = Evict::default();
        // SAFETY: the structure is the one the ioctl writes, and lives through the call.
        unsafe { ioctls::evict(self.descriptor(), &mut request) }.map(|_| request)
    }

    /// Puts a number into the trace log.
    pub fn mark(&self, value: u64) {
        self.try_mark(value).unwrap_or_else(|error| panic!("ERSATZ_IOC_MARK: {error}"));
    }

    /// `ERSATZ_IOC_MARK`.
    pub fn try_mark(&self, value: u64) -> Result<(), Errno> {
        let mut request = Mark { value };
        // SAFETY: the structure is the one the ioctl reads, and lives through the call.
        unsafe { ioctls::mark(self.descriptor(), &mut request) }.map(|_| ())
    }
}

fn page_state(raw: u8) -> PageState {
    [PageState::None, PageState::System, PageState::Device, PageState::Swapped]
        .into_iter()
        .find(|&state| state as u8 == raw)
        .unwrap_or_else(|| panic!("ERSATZ_IOC_RESIDENCY wrote {raw}, which is no state"))
}

/// The device's counters since a moment: what the device itself says it did.
#[derive(Debug)]
pub struct Watch<'a> {
    device: &'a Device,
    before: Counters,
}

impl Watch<'_> {
    /// How far a counter has come.
    pub fn count(&self, counter: Counter) -> u64 {
        let (before, now) = (self.before.values[usize::from(counter as u8)], self.device.count(counter));
        now.checked_sub(before).unwrap_or_else(|| panic!("counter {} went back from {before} to {now}", counter.name()))
    }

    /// How far a counter of bytes has come, in pages.
    pub fn pages(&self, counter: Counter) -> u64 {
        let bytes = self.count(counter);
        assert_eq!(bytes % crate::pattern::PAGE as u64, 0, "counter {} counts parts of pages", counter.name());
        bytes / crate::pattern::PAGE as u64
    }

    /// Asserts how many pages a counter of bytes has come.
    pub fn assert_pages(&self, counter: Counter, pages: usize) {
        assert_eq!(self.pages(counter), pages as u64, "pages that the device counts as {}", counter.name());
    }
}

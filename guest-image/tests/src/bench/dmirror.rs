// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel's own test driver of device memory, `lib/test_hmm.c`: loaded beside ours, to measure the same migrations.
//!
//! Its device is simulated by the kernel itself: device memory is system memory, and the CPU copies.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use ersatz_guest_image::run::TEST_DRIVER_PATH;
use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, delete_module};

use crate::pattern::PAGE;
use crate::region::Span;

/// The first of its devices of the type `MEMORY_DEVICE_PRIVATE`.
const PATH: &str = "/dev/hmm_dmirror0";

/// How long its device file may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a call is made again that met pages in use for a moment.
const ATTEMPTS: u32 = 10;

/// The argument of its ioctls.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// First byte of the range.
    address: u64,
    /// Where the content of the range is copied to, by the ioctls that read it.
    buffer: u64,
    /// Length of the range in pages.
    pages: u64,
    /// Set by the driver: pages that it copied.
    copied: u64,
    /// Set by the driver: faults of the simulated device.
    faults: u64,
}

mod ioctls {
    use super::Request;

    nix::ioctl_readwrite!(
        /// Reads a range through the simulated device.
        read, b'H', 0, Request
    );
    nix::ioctl_readwrite!(
        /// Migrates a range to the device, and reads it there.
        migrate_to_device, b'H', 2, Request
    );
    nix::ioctl_readwrite!(
        /// Migrates a range to system memory.
        migrate_to_system, b'H', 3, Request
    );
}

/// One of the ioctls.
type Call = unsafe fn(i32, *mut Request) -> nix::Result<i32>;

/// The loaded module. It is unloaded when dropped.
#[derive(Debug)]
pub struct Module(());

impl Module {
    /// Loads the module that the run brought.
    ///
    /// # Panics
    ///
    /// As all functions here, if the system refuses what the benchmark needs.
    pub fn load() -> Self {
        ersatz_init::driver::load(Path::new(TEST_DRIVER_PATH), "").unwrap_or_else(|error| panic!("{error}"));
        let module = Self(());
        let deadline = Instant::now() + PATIENCE;
        while !Path::new(PATH).exists() {
            assert!(Instant::now() < deadline, "the kernel's test driver is loaded, but there is no {PATH}");
            std::thread::sleep(Duration::from_millis(2));
        }
        module
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // At the end of a process that panics there is nothing else to do about it.
        let _ = delete_module(c"test_hmm", DeleteModuleFlags::O_NONBLOCK);
    }
}

/// Its device, open. Closed, it moves all that is on the device back.
#[derive(Debug)]
pub struct Dmirror {
    file: File,
    /// Takes the content of ranges.
    buffer: Vec<u8>,
}

impl Dmirror {
    /// Opens the device, for ranges of at most so many pages.
    pub fn open(pages: usize) -> Self {
        let file = OpenOptions::new().read(true).write(true).open(PATH);
        let file = file.unwrap_or_else(|error| panic!("cannot open {PATH}: {error}"));
        // Not zeros, whose pages the first copy would have to allocate.
        Self { file, buffer: vec![1; pages * PAGE] }
    }

    /// Migrates a range to the device. The ioctl reads all of it back through the device, which cannot be turned off.
    pub fn migrate_to_device(&mut self, span: Span) {
        self.call("migration to the device", ioctls::migrate_to_device, span);
    }

    /// Migrates a range to system memory.
    pub fn migrate_to_system(&mut self, span: Span) {
        self.call("migration to system memory", ioctls::migrate_to_system, span);
    }

    /// Reads a range through the device: what [`migrate_to_device`](Self::migrate_to_device) does besides the migration.
    pub fn read(&mut self, span: Span) {
        self.call("read", ioctls::read, span);
    }

    fn call(&mut self, what: &str, call: Call, span: Span) {
        assert!(span.length <= self.buffer.len() as u64, "{span:x?} is longer than the device was opened for");
        for attempt in 1.. {
            let buffer = self.buffer.as_mut_ptr().addr() as u64;
            let mut request =
                Request { address: span.address, buffer, pages: span.pages() as u64, ..Request::default() };
            // SAFETY: the structure is the one the ioctl reads and writes, the buffer has room for the content of the range,
            // and both live through the call. Migrating changes no content.
            match unsafe { call(self.file.as_raw_fd(), &mut request) } {
                Ok(_) => return,
                // A page that was in use stayed, and the read-back found no entry for it.
                Err(Errno::ENOENT) if attempt < ATTEMPTS => {}
                Err(error) => panic!("{what} of {span:x?} by the kernel's test driver: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_has_the_drivers_layout() {
        assert_eq!(size_of::<Request>(), 40);
        assert_eq!(std::mem::offset_of!(Request, pages), 16);
    }
}

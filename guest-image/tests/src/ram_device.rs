// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device whose memory is RAM, by the module `ersatz_ram`: another driver's, that stands on the same abstractions as the GPU's.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ersatz_guest_image::run::RAM_MODULE_PATH;
use ersatz_init::driver::ModuleError;
use ersatz_uapi::ram::Pages;
use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, delete_module};

use crate::region::{Region, Span};

/// The device file.
const PATH: &str = "/dev/ersatz_ram";

/// How long pages that are busy for a moment may take to settle.
const PATIENCE: Duration = Duration::from_secs(10);

mod ioctls {
    use ersatz_uapi::ram::{IOC_TO_DEVICE, IOC_TO_SYSTEM, Pages};

    nix::ioctl_readwrite_bad!(
        /// [`IOC_TO_DEVICE`].
        to_device, IOC_TO_DEVICE, Pages
    );
    nix::ioctl_readwrite_bad!(
        /// [`IOC_TO_SYSTEM`].
        to_system, IOC_TO_SYSTEM, Pages
    );
}

/// Where pages are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the device.
    There,
    /// To the system.
    Back,
}

/// Whether the guest has the module.
pub fn is_there() -> bool {
    Path::new(RAM_MODULE_PATH).exists()
}

/// Unloads the module.
///
/// # Errors
///
/// `EWOULDBLOCK` if a file is open.
pub fn unload() -> Result<(), Errno> {
    delete_module(c"ersatz_ram", DeleteModuleFlags::O_NONBLOCK)
}

/// An open file of the device.
#[derive(Debug)]
pub struct RamDevice {
    file: File,
}

impl RamDevice {
    /// Opens the device; loads the module if it is not loaded.
    ///
    /// # Panics
    ///
    /// As all functions here that return no error, if the system refuses what a test needs.
    pub fn open() -> Self {
        if !Path::new(PATH).exists() {
            match ersatz_init::driver::load(Path::new(RAM_MODULE_PATH), "") {
                // Another process was quicker.
                Ok(()) | Err(ModuleError::Refused { source: Errno::EEXIST, .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let file = OpenOptions::new().read(true).write(true).open(PATH);
        Self { file: file.unwrap_or_else(|error| panic!("cannot open {PATH}: {error}")) }
    }

    /// The descriptor, for calls that no wrapper fits.
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Moves pages once, with any range.
    pub fn try_move(&self, way: Way, address: u64, length: u64) -> Result<Pages, Errno> {
        let mut request = Pages { address, length, ..Pages::default() };
        let ioctl: unsafe fn(RawFd, *mut Pages) -> nix::Result<i32> = match way {
            Way::There => ioctls::to_device,
            Way::Back => ioctls::to_system,
        };
        // SAFETY: the structure is the one the ioctl reads and writes, and lives through the call. Migrating changes no content.
        unsafe { ioctl(self.descriptor(), &mut request) }.map(|_| request)
    }

    /// Moves pages once. Returns how many moved.
    pub fn migrate(&self, way: Way, span: Span) -> u64 {
        let done = self.try_move(way, span.address, span.length);
        done.unwrap_or_else(|error| panic!("moving {span:x?} {way:?}: {error}")).moved
    }

    /// Moves all pages of a range, trying again for those that are busy for a moment.
    pub fn move_all(&self, way: Way, span: Span) {
        let (deadline, mut moved) = (Instant::now() + PATIENCE, 0);
        while moved < span.pages() as u64 {
            assert!(Instant::now() < deadline, "{moved} of {} pages went {way:?}", span.pages());
            moved += self.migrate(way, span);
        }
        assert_eq!(moved, span.pages() as u64);
    }

    /// Pages of the device's memory that are in use.
    pub fn in_use(&self) -> u64 {
        let hole = Region::new(1).span();
        self.try_move(Way::Back, hole.address, hole.length).expect("moving a hole").in_use
    }

    /// Waits until so many pages of the device's memory are in use: they are freed a moment after their last use.
    pub fn assert_in_use(&self, pages: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.in_use() != pages as u64 {
            assert!(Instant::now() < deadline, "{} pages of the device in use, not {pages}", self.in_use());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

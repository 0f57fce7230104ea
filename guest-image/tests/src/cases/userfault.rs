// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! userfaultfd(2): page faults that this process answers itself.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::region::{Region, Span};

/// Faults on pages that are not there.
pub const MISSING: u64 = 1 << 0;
/// Writes to pages that are protected.
pub const WRITE_PROTECT: u64 = 1 << 1;

/// Write protection also of pages that are not there (`UFFD_FEATURE_WP_UNPOPULATED`).
pub const PROTECT_UNPOPULATED: u64 = 1 << 13;
/// Write protection is reported to userfaultfd at all (`UFFD_FEATURE_PAGEFAULT_FLAG_WP`).
pub const REPORT_WRITE_PROTECT: u64 = 1 << 0;

/// The version of the interface (`UFFD_API`).
const API: u64 = 0xaa;
/// A page fault, as an event (`UFFD_EVENT_PAGEFAULT`).
const EVENT_PAGE_FAULT: u8 = 0x12;
/// Protect, rather than lift the protection (`UFFDIO_WRITEPROTECT_MODE_WP`).
const MODE_PROTECT: u64 = 1 << 0;

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Fill {
    target: u64,
    source: u64,
    length: u64,
    mode: u64,
    copied: i64,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct WriteProtect {
    start: u64,
    length: u64,
    mode: u64,
}

/// `struct uffd_msg`, as far as it tells of page faults.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Message {
    event: u8,
    reserved: [u8; 7],
    flags: u64,
    address: u64,
    thread: u64,
}

mod ioctls {
    use super::{Api, Fill, Register, WriteProtect};

    nix::ioctl_readwrite!(
        /// `UFFDIO_API`.
        api, 0xaa, 0x3f, Api
    );
    nix::ioctl_readwrite!(
        /// `UFFDIO_REGISTER`.
        register, 0xaa, 0x00, Register
    );
    nix::ioctl_readwrite!(
        /// `UFFDIO_COPY`.
        copy, 0xaa, 0x03, Fill
    );
    nix::ioctl_readwrite!(
        /// `UFFDIO_WRITEPROTECT`.
        write_protect, 0xaa, 0x06, WriteProtect
    );
}

/// A page fault that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The page's address.
    pub address: u64,
    /// Whether the page is there, but protected.
    pub protected: bool,
}

/// An open userfaultfd. Dropped, all faults that wait go on as if it had never been.
#[derive(Debug)]
pub struct Userfault(OwnedFd);

impl Userfault {
    /// Opens one with these features.
    ///
    /// # Panics
    ///
    /// As all functions here, if the system refuses what a test needs.
    pub fn open(features: u64) -> Self {
        // SAFETY: the call takes a number and returns one.
        let raw = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        assert!(raw >= 0, "userfaultfd: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is new and nobody else's.
        let file = unsafe { OwnedFd::from_raw_fd(raw as i32) };
        let mut request = Api { api: API, features, ioctls: 0 };
        // SAFETY: the structure is the one the ioctl reads and writes, and lives through the call.
        unsafe { ioctls::api(file.as_raw_fd(), &mut request) }.unwrap_or_else(|error| panic!("UFFDIO_API: {error}"));
        Self(file)
    }

    /// Has this userfaultfd answer the faults of a range: [`MISSING`], [`WRITE_PROTECT`], or both.
    pub fn register(&self, span: Span, mode: u64) {
        let mut request = Register { start: span.address, length: span.length, mode, ioctls: 0 };
        // SAFETY: the structure is the one the ioctl reads and writes, and lives through the call.
        unsafe { ioctls::register(self.0.as_raw_fd(), &mut request) }
            .unwrap_or_else(|error| panic!("UFFDIO_REGISTER of {span:x?}: {error}"));
    }

    /// Protects a range from writes.
    pub fn protect(&self, span: Span) {
        self.write_protect(span, MODE_PROTECT);
    }

    /// Lifts the protection, which lets the writes that wait go on.
    pub fn unprotect(&self, span: Span) {
        self.write_protect(span, 0);
    }

    fn write_protect(&self, span: Span, mode: u64) {
        let mut request = WriteProtect { start: span.address, length: span.length, mode };
        // SAFETY: the structure is the one the ioctl reads, and lives through the call; it changes no content.
        unsafe { ioctls::write_protect(self.0.as_raw_fd(), &mut request) }
            .unwrap_or_else(|error| panic!("UFFDIO_WRITEPROTECT of {span:x?}: {error}"));
    }

    /// Fills pages that are missing with the content of as many others, which lets the accesses that wait go on.
    pub fn fill(&self, target: Span, source: &Region) {
        assert!(source.pages() >= target.pages());
        let mut request =
            Fill { target: target.address, source: source.span().address, length: target.length, ..Fill::default() };
        // SAFETY: the structure is the one the ioctl reads and writes, and lives through the call. The target's pages are
        // missing, so nothing there is overwritten.
        unsafe { ioctls::copy(self.0.as_raw_fd(), &mut request) }
            .unwrap_or_else(|error| panic!("UFFDIO_COPY to {target:x?}: {error}"));
    }

    /// The next fault that waits for an answer, if one comes in time.
    pub fn next(&self, patience: Duration) -> Option<Fault> {
        let timeout = PollTimeout::try_from(patience).expect("a time to wait");
        let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, timeout).expect("poll of a userfaultfd") == 0 {
            return None;
        }
        const FLAG_PROTECTED: u64 = 1 << 1;
        let mut message = Message::default();
        // SAFETY: the structure has the size that is given, and any bytes are valid in it.
        let length = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut message).cast(), size_of::<Message>()) };
        assert_eq!(usize::try_from(length).ok(), Some(size_of::<Message>()), "read from a userfaultfd");
        assert_eq!(message.event, EVENT_PAGE_FAULT, "event of a userfaultfd");
        Some(Fault { address: message.address, protected: message.flags & FLAG_PROTECTED != 0 })
    }
}

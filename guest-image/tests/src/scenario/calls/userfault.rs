// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! userfaultfd(2). Each registration has a descriptor of its own, which stays open until the process ends.

use std::os::fd::{BorrowedFd, RawFd};

use ersatz_scenario::call::{Uffd, UffdMode};
use ersatz_scenario::range::Range;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::pattern::PAGE;
use crate::scenario::context::{Context, Done, Failure, done, done_with};
use crate::scenario::guarded::PageBuffer;
use crate::scenario::ranges::Place;

/// `UFFD_API`.
const API: u64 = 0xaa;
/// `UFFDIO_REGISTER_MODE_MISSING`, `UFFDIO_REGISTER_MODE_WP`.
const MODE_MISSING: u64 = 1 << 0;
const MODE_WP: u64 = 1 << 1;
/// `UFFD_FEATURE_PAGEFAULT_FLAG_WP`, `UFFD_FEATURE_WP_UNPOPULATED`, `UFFD_FEATURE_WP_ASYNC`, `UFFD_FEATURE_MOVE`.
const FEATURE_WP: u64 = 1 << 0;
const FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
const FEATURE_WP_ASYNC: u64 = 1 << 15;
const FEATURE_MOVE: u64 = 1 << 16;
/// `UFFDIO_WRITEPROTECT_MODE_WP`.
const PROTECT: u64 = 1 << 0;
/// `UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES`.
const ALLOW_HOLES: u64 = 1 << 1;

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Bounds {
    start: u64,
    length: u64,
}

/// `struct uffdio_register`, `uffdio_writeprotect` (without the last field) and `uffdio_zeropage`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Request {
    bounds: Bounds,
    mode: u64,
    result: u64,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Protection {
    bounds: Bounds,
    mode: u64,
}

/// `struct uffdio_copy` and `uffdio_move`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Transfer {
    target: u64,
    source: u64,
    length: u64,
    mode: u64,
    result: i64,
}

mod ioctls {
    use super::{Api, Bounds, Protection, Request, Transfer};

    nix::ioctl_readwrite!(
        /// `UFFDIO_API`.
        api, 0xaa, 0x3f, Api
    );
    nix::ioctl_readwrite!(
        /// `UFFDIO_REGISTER`.
        register, 0xaa, 0x00, Request
    );
    nix::ioctl_read!(
        /// `UFFDIO_UNREGISTER`.
        unregister, 0xaa, 0x01, Bounds
    );
    nix::ioctl_readwrite!(
        /// `UFFDIO_COPY`.
        copy, 0xaa, 0x03, Transfer
    );
    nix::ioctl_readwrite!(
        /// `UFFDIO_ZEROPAGE`.
        zeropage, 0xaa, 0x04, Request
    );
    nix::ioctl_readwrite!(
        /// `UFFDIO_MOVE`.
        move_pages, 0xaa, 0x05, Transfer
    );
    nix::ioctl_readwrite!(
        /// `UFFDIO_WRITEPROTECT`.
        write_protect, 0xaa, 0x06, Protection
    );
}

fn bounds(place: Place) -> Bounds {
    Bounds { start: place.span().address, length: place.span().length }
}

pub fn perform(context: &Context<'_>, uffd: &Uffd) -> Done {
    let find = |range: &Range| -> Result<(RawFd, Place), Failure> {
        Ok((context.ranges.userfault(&range.name)?, context.ranges.place(range)?))
    };
    match uffd {
        Uffd::Register { range, mode } => {
            let descriptor = register(context.ranges.place(range)?, *mode)?;
            context.ranges.set_userfault(&range.name, descriptor)?;
            done()
        }
        Uffd::Unregister(range) => {
            let (file, place) = find(range)?;
            // SAFETY: the structure is the one the ioctl reads, and lives through the call.
            unsafe { ioctls::unregister(file, &mut bounds(place)) }?;
            done()
        }
        Uffd::Protect(range) => find(range).and_then(|(file, place)| write_protect(file, place, PROTECT)),
        Uffd::Unprotect(range) => find(range).and_then(|(file, place)| write_protect(file, place, 0)),
        Uffd::Copy { range, byte } => find(range).and_then(|(file, place)| copy(file, place, *byte)),
        Uffd::Zeropage(range) => {
            let (file, place) = find(range)?;
            let mut request = Request { bounds: bounds(place), ..Request::default() };
            // SAFETY: the structure is the one the ioctl reads and writes, and lives through the call.
            unsafe { ioctls::zeropage(file, &mut request) }?;
            done()
        }
        Uffd::Move { range, from } => {
            let ((file, place), from) = (find(range)?, context.ranges.place(from)?);
            let (target, source) = (place.span(), from.span());
            let length = target.length;
            let mut request =
                Transfer { target: target.address, source: source.address, length, mode: ALLOW_HOLES, result: 0 };
            // SAFETY: the structure is the one the ioctl reads and writes, and lives through the call. Nothing but the
            // scenario knows the memory of places.
            unsafe { ioctls::move_pages(file, &mut request) }?;
            done()
        }
        Uffd::Wait(range) => find(range).and_then(|(file, place)| wait(context, file, place)),
    }
}

fn register(place: Place, mode: UffdMode) -> Result<RawFd, Errno> {
    // SAFETY: the call takes a number and returns one.
    let raw = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
    let file = Errno::result(raw)? as RawFd;
    let (features, mode) = match mode {
        UffdMode::Missing => (FEATURE_MOVE, MODE_MISSING),
        UffdMode::Wp => (FEATURE_WP | FEATURE_WP_UNPOPULATED, MODE_WP),
        UffdMode::WpAsync => (FEATURE_WP | FEATURE_WP_UNPOPULATED | FEATURE_WP_ASYNC, MODE_WP),
    };
    let mut api = Api { api: API, features, ioctls: 0 };
    // SAFETY: the structure is the one the ioctl reads and writes, and lives through the call.
    unsafe { ioctls::api(file, &mut api) }?;
    let mut request = Request { bounds: bounds(place), mode, result: 0 };
    // SAFETY: as above.
    unsafe { ioctls::register(file, &mut request) }?;
    Ok(file)
}

fn write_protect(file: RawFd, place: Place, mode: u64) -> Done {
    let mut request = Protection { bounds: bounds(place), mode };
    // SAFETY: the structure is the one the ioctl reads, and lives through the call; it changes no content.
    unsafe { ioctls::write_protect(file, &mut request) }?;
    done()
}

fn copy(file: RawFd, place: Place, byte: u8) -> Done {
    let page = PageBuffer::of(byte);
    for index in 0..place.pages() {
        let mut request = Transfer {
            target: place.span().address + (index * PAGE) as u64,
            source: page.0.as_ptr().expose_provenance() as u64,
            length: PAGE as u64,
            ..Transfer::default()
        };
        // SAFETY: the structure is the one the ioctl reads and writes, and it and the page live through the call.
        unsafe { ioctls::copy(file, &mut request) }?;
    }
    done()
}

/// Reads the event of a fault that waits for an answer.
fn wait(context: &Context<'_>, file: RawFd, place: Place) -> Done {
    /// Bytes of `struct uffd_msg`, and where in it the address of a fault is.
    const MESSAGE: usize = 32;
    const ADDRESS: usize = 16;
    // SAFETY: a registration's descriptor stays open until the process ends.
    let borrowed = unsafe { BorrowedFd::borrow_raw(file) };
    let timeout = PollTimeout::try_from(context.patience()).unwrap_or(PollTimeout::MAX);
    if poll(&mut [PollFd::new(borrowed, PollFlags::POLLIN)], timeout)? == 0 {
        return Err(String::from("no fault came in time").into());
    }
    let mut message = [0; MESSAGE];
    nix::unistd::read(borrowed, &mut message)?;
    let address = u64::from_ne_bytes(message[ADDRESS..ADDRESS + 8].try_into().unwrap_or_default());
    let page = address.wrapping_sub(place.span().address) / PAGE as u64;
    done_with(format!("a fault at page {page}"))
}

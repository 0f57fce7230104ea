// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A call that waits for user memory, which may take for ever, keeps nobody from taking the driver off the device.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use ersatz_uapi::{Digest, Direction, IOC_INFO, IOC_MIGRATE, Info, Migrate, Residency};
use nix::errno::Errno;
use nix::libc;

use super::fixture::{assert_works, on_device};
use super::userfault::{MISSING, Userfault};
use crate::bus::Function;
use crate::device::Device;
use crate::pattern::Pattern;
use crate::region::{Region, Span};
use crate::suite::{Need, test_list};

test_list! { "waiting":
    residency_for_its_array.disruptive().patience(2);
    digest_for_its_array.disruptive().patience(2);
    digest_for_the_memory_it_reads.needs(&[Need::NoDebugVm]).disruptive().patience(2);
    info_for_its_request.disruptive().patience(2);
    migrate_for_its_request.disruptive().patience(2);
}

/// How long unbinding may take while a call waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `call` in a thread with a page that is missing, unbinds the driver once the call waits for that page (or is over),
/// fills the page with `content`, and returns what the call said.
fn unbind_beside<T: Send>(content: &Region, call: impl FnOnce(&Device, &Region) -> T + Send) -> T {
    let device = Device::open();
    let function = Function::of(&device);
    let missing = Region::new(1);
    let userfault = Userfault::open(0);
    userfault.register(missing.span(), MISSING);
    let (in_time, result) = thread::scope(|scope| {
        let caller = scope.spawn(|| call(&device, &missing));
        while userfault.next(Duration::from_millis(50)).is_none() && !caller.is_finished() {}
        let unbinding = scope.spawn(|| function.unbind());
        let deadline = Instant::now() + PATIENCE;
        while !unbinding.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let in_time = unbinding.is_finished();
        // Before any assertion: both threads may wait for it.
        userfault.fill(missing.span(), content);
        unbinding.join().expect("the thread that unbinds");
        (in_time, caller.join().expect("the thread with the call"))
    });
    drop(device);
    function.bind();
    assert!(in_time, "the driver could not be unbound while a call waited for user memory");
    assert_works();
    result
}

/// Asserts that a call ended well, or because the device was gone by then.
fn assert_ended(result: Result<(), Errno>) {
    assert!(matches!(result, Ok(()) | Err(Errno::ENODEV | Errno::EFAULT)), "{result:?}");
}

/// An ioctl whose request itself is in a page that is missing.
fn call_with_request(device: &Device, number: u32, request: &Region) -> Result<(), Errno> {
    // SAFETY: the request is a page of memory, more than any request takes.
    let result = unsafe { libc::ioctl(device.descriptor(), number as _, request.pointer(0).as_ptr()) };
    if result < 0 { Err(Errno::from_raw(io::Error::last_os_error().raw_os_error().unwrap_or(0))) } else { Ok(()) }
}

/// A page that holds a request, to fill the missing one with.
fn page_with<T: Copy>(request: T) -> Region {
    let page = Region::new(1);
    // SAFETY: a page is aligned for any request, and has room for it.
    unsafe { page.pointer(0).cast::<T>().write_volatile(request) };
    page
}

fn residency_for_its_array() {
    let region = Region::filled(16, Pattern::new(1));
    let Span { address, length } = region.span();
    assert_ended(unbind_beside(&Region::new(1), |device, missing| {
        let request = Residency { address, length, states: missing.span().address };
        // SAFETY: the array is a page, of which one byte a page of the range is used.
        unsafe { device.try_residency_raw(request) }
    }));
    region.check(Pattern::new(1));
}

fn digest_for_its_array() {
    let region = on_device(&Device::open(), 16, Pattern::new(1));
    let Span { address, length } = region.span();
    assert_ended(unbind_beside(&Region::new(1), |device, missing| {
        let request = Digest { address, length, digests: missing.span().address, ..Digest::default() };
        // SAFETY: the array is a page, of which one number a page of the range is used.
        unsafe { device.try_digest_raw(request) }.map(drop)
    }));
    region.check(Pattern::new(1));
}

/// The device may refuse such memory at once; what it must not do is wait for it.
fn digest_for_the_memory_it_reads() {
    let content = Region::filled(1, Pattern::new(1));
    assert_ended(unbind_beside(&content, |device, missing| device.try_digest(missing.span()).map(drop)));
}

fn info_for_its_request() {
    let content = page_with(Info::default());
    assert_ended(unbind_beside(&content, |device, missing| call_with_request(device, IOC_INFO, missing)));
}

fn migrate_for_its_request() {
    let region = Region::filled(16, Pattern::new(1));
    let Span { address, length } = region.span();
    let direction = Direction::ToDevice as u32;
    let content = page_with(Migrate { address, length, direction, ..Migrate::default() });
    assert_ended(unbind_beside(&content, |device, missing| call_with_request(device, IOC_MIGRATE, missing)));
    region.check(Pattern::new(1));
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory fails (`MADV_HWPOISON`): its users get SIGBUS, and nobody else anything.
//!
//! A coherent page fails where it is, in VRAM. A private one is touched first, and so fails in system memory.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ersatz_uapi::{Direction, PageState};
use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::MmapAdvise;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use serde_json::json;

use super::fixture::{assert_works, on_device, send};
use crate::bus::Function;
use crate::compute::{Compute, LaunchError};
use crate::device::Device;
use crate::device_rules::DeviceRules;
use crate::pattern::{PAGE, Pattern};
use crate::process::{Child, Event};
use crate::region::Region;
use crate::registers::Registers;
use crate::suite::{Need, test_list};

test_list! { "poison":
    users_of_a_coherent_page_get_sigbus.needs(&[Need::Coherent]).disruptive().patience(2);
    a_coherent_page_is_out_of_use.needs(&[Need::Coherent]).disruptive().patience(2);
    the_device_is_emptied_beside_a_bad_page.needs(&[Need::Coherent]).disruptive().patience(2);
    a_private_page_fails_in_system_memory.needs(&[Need::Private]).patience(2);
    the_device_is_told_and_remembers.needs(&[Need::Coherent]).disruptive().patience(2);
    a_free_page_that_the_device_finds_is_left_out.needs(&[Need::ControlWindow]).disruptive();
    users_of_a_page_that_the_device_finds_get_sigbus.needs(&[Need::ControlWindow, Need::FillableVram(16384)]).disruptive().patience(2);
    unbinding_does_not_wait_for_the_user_of_a_bad_page.needs(&[Need::ControlWindow, Need::FillableVram(16384)]).disruptive().patience(2);
    kernels_end_at_a_page_that_the_device_finds.needs(&[Need::ControlWindow, Need::FillableVram(16384)]).disruptive().patience(2);
    soft_offlining_changes_nothing.patience(2);
    places_of_bad_pages_do_not_migrate;
}

/// Pages of the region that a test poisons one of, and which.
const PAGES: usize = 8;
const BAD: usize = 3;

/// Whether the page that is touched is the bad one, so that SIGBUS is what is to come.
static TOUCHING: AtomicBool = AtomicBool::new(false);
/// Signals that came otherwise: the kernel may report the failure at once.
static REPORTS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn take_sigbus(_: libc::c_int) {
    if TOUCHING.load(Ordering::Relaxed) {
        // SAFETY: `_exit` may be called by a signal handler.
        unsafe { libc::_exit(0) };
    }
    REPORTS.fetch_add(1, Ordering::Relaxed);
}

/// Has SIGBUS end this process well once the bad page is touched, and be counted until then.
fn expect_sigbus() {
    let action = SigAction::new(SigHandler::Handler(take_sigbus), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler calls nothing but `_exit`, and has atomics to itself.
    unsafe { sigaction(Signal::SIGBUS, &action) }.expect("sigaction");
}

/// Touches the bad page: this process ends, and by SIGBUS.
fn touch_bad(region: &Region) -> ! {
    TOUCHING.store(true, Ordering::Relaxed);
    let byte = region.touch(BAD);
    panic!("the page that failed holds {byte:#04x}");
}

/// Makes a page fail. The kernel may deny that it is done with it; what counts is what becomes of the page.
fn poison(region: &Region) {
    if let Err(error) = region.advise(BAD..BAD + 1, MmapAdvise::MADV_HWPOISON) {
        println!("MADV_HWPOISON: {error}");
    }
}

fn check_others(region: &Region, pattern: Pattern) {
    region.check_part(0..BAD, pattern);
    region.check_part(BAD + 1..PAGES, pattern);
}

/// A process whose page on the device fails, and that looks at it once it is told to.
fn victim(poisoned: &Event, go: &Event, pattern: Pattern) -> Child {
    Child::spawn(|| {
        let region = on_device(&Device::open(), PAGES, pattern);
        expect_sigbus();
        poison(&region);
        poisoned.signal();
        go.wait();
        check_others(&region, pattern);
        touch_bad(&region);
    })
}

/// Evicts until no more than some pages are left.
fn evict_all_but(pages: u64) {
    let device = Device::open();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let left = device.evict().left;
        if left <= pages {
            return;
        }
        assert!(Instant::now() < deadline, "{left} pages never leave the device, where {pages} may stay");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The driver is bound anew at the end, to a device whose memory is well again: what is out of use is missed by the runner otherwise.
fn rebind() {
    rebind_after(|registers| registers.clear_poison());
    assert_works();
}

/// Unbinds the driver, calls `meanwhile`, and binds it again.
fn rebind_after(meanwhile: impl FnOnce(&Registers)) {
    let function = Function::of(&Device::open());
    function.unbind();
    meanwhile(&function.registers());
    function.bind();
}

fn users_of_a_coherent_page_get_sigbus() {
    let (poisoned, go, pattern) = (Event::new(), Event::new(), Pattern::new(1));
    let child = victim(&poisoned, &go, pattern);
    poisoned.wait();
    go.signal();
    child.succeed();
    rebind();
}

fn a_coherent_page_is_out_of_use() {
    let free = Device::open().free_pages();
    let (poisoned, go, pattern) = (Event::new(), Event::new(), Pattern::new(1));
    let child = victim(&poisoned, &go, pattern);
    poisoned.wait();
    go.signal();
    child.succeed();
    let device = Device::open();
    device.assert_free(free - 1);
    // All that is left is used, the bad page never again.
    let again = on_device(&device, 64, pattern);
    device.assert_digests(again.span(), 64, |index| pattern.digest(index));
    drop(again);
    device.assert_free(free - 1);
    drop(device);
    rebind();
}

fn the_device_is_emptied_beside_a_bad_page() {
    let (poisoned, go, pattern) = (Event::new(), Event::new(), Pattern::new(1));
    let child = victim(&poisoned, &go, pattern);
    poisoned.wait();
    evict_all_but(1);
    rebind_after(Registers::clear_poison);
    go.signal();
    child.succeed();
    assert_works();
}

fn the_device_is_told_and_remembers() {
    let free = Device::open().free_pages();
    let (poisoned, go, pattern) = (Event::new(), Event::new(), Pattern::new(1));
    let child = victim(&poisoned, &go, pattern);
    poisoned.wait();
    go.signal();
    child.succeed();
    rebind_after(|registers| assert_eq!(registers.poisoned().len(), 1, "pages that the device was told of"));
    // A driver that comes later finds it, and leaves it out.
    Device::open().assert_free(free - 1);
    let region = on_device(&Device::open(), (free - 1) as usize, pattern);
    region.check(pattern);
    drop(region);
    rebind();
    Device::open().assert_free(free);
}

/// Adds a rule by which the device poisons a page of VRAM.
fn find_poison(rules: &DeviceRules, offset: u64) {
    rules.add("poison", &json!({ "at-ns": 0 }), &json!({ "kind": "poison", "offset": offset }));
}

fn a_free_page_that_the_device_finds_is_left_out() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let free = device.free_pages();
    let rules = DeviceRules::of(&device);
    find_poison(&rules, 5 * PAGE as u64);
    device.assert_free(free - 1);
    let region = on_device(&device, (free - 1) as usize, pattern);
    device.assert_digests(region.span(), region.pages(), |index| pattern.digest(index));
    drop((region, rules, device));
    rebind();
    Device::open().assert_free(free);
}

/// Memory that fills all of VRAM, of which a page is bad then: no one else can have it.
fn full_with_a_bad_page(device: &Device) -> Region {
    let region = on_device(device, device.free_pages() as usize, Pattern::new(1));
    fail_a_page(device);
    region
}

/// Has the device find a bad page in VRAM that is full.
fn fail_a_page(device: &Device) {
    let rules = DeviceRules::of(device);
    find_poison(&rules, 77 * PAGE as u64);
    let deadline = Instant::now() + Duration::from_secs(20);
    while rules.fired("poison") == 0 {
        assert!(Instant::now() < deadline, "the rule never fires");
    }
}

fn users_of_a_page_that_the_device_finds_get_sigbus() {
    Child::spawn(|| {
        let region = full_with_a_bad_page(&Device::open());
        expect_sigbus();
        TOUCHING.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(20);
        // The kernel hears of it a moment later, and until then the page reads as before.
        while Instant::now() < deadline {
            (0..region.pages()).for_each(|page| region.check_part(page..page + 1, Pattern::new(1)));
            Device::open().to_device(region.span());
        }
        panic!("no page fails");
    })
    .succeed();
    rebind();
}

fn unbinding_does_not_wait_for_the_user_of_a_bad_page() {
    let (ready, go) = (Event::new(), Event::new());
    let child = Child::spawn(|| {
        let device = Device::open();
        expect_sigbus();
        // A huge page of private memory would have to be split first, which takes the user.
        let region = Region::new(device.free_pages() as usize);
        region.advise(0..region.pages(), MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
        region.fill(Pattern::new(1));
        send(&device, &region);
        fail_a_page(&device);
        drop(device);
        ready.signal();
        go.wait();
        TOUCHING.store(true, Ordering::Relaxed);
        region.check(Pattern::new(1));
        panic!("the page that failed has its content");
    });
    ready.wait();
    rebind();
    go.signal();
    child.succeed();
    assert_works();
}

fn kernels_end_at_a_page_that_the_device_finds() {
    Child::spawn(|| {
        let compute = Compute::bind();
        let region = full_with_a_bad_page(compute.device());
        expect_sigbus();
        match compute.try_read(region.span()) {
            // The kernel's page tables lead there still, or no more.
            Err(LaunchError::Other(Errno::EHWPOISON) | LaunchError::Fault(..)) => {}
            other => panic!("{other:x?}"),
        }
    })
    .succeed();
    rebind();
}

fn a_private_page_fails_in_system_memory() {
    let device = Device::open();
    let free = device.free_pages();
    drop(device);
    let (poisoned, go, pattern) = (Event::new(), Event::new(), Pattern::new(1));
    let child = victim(&poisoned, &go, pattern);
    poisoned.wait();
    evict_all_but(0);
    go.signal();
    child.succeed();
    Device::open().assert_free(free);
    assert_works();
}

/// The kernel moves a page of system memory away from failing memory, and leaves one of a device.
fn soft_offlining_changes_nothing() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, PAGES, pattern);
    let result = region.advise(BAD..BAD + 1, MmapAdvise::MADV_SOFT_OFFLINE);
    if device.is_coherent() {
        assert!(matches!(result, Err(Errno::EIO | Errno::EOPNOTSUPP | Errno::EBUSY | Errno::ENXIO)), "{result:?}");
        device.assert_all(region.span(), PageState::Device);
    }
    region.check(pattern);
    device.to_device(region.span());
    device.assert_digests(region.span(), PAGES, |index| pattern.digest(index));
    region.check(pattern);
}

/// Where a page of system memory has failed there is an entry in the page table that is neither a page nor a hole.
fn places_of_bad_pages_do_not_migrate() {
    let pattern = Pattern::new(1);
    Child::spawn(|| {
        let (device, region) = (Device::open(), Region::filled(PAGES, pattern));
        expect_sigbus();
        poison(&region);
        let done = device.migrate(region.span(), Direction::ToDevice);
        assert_eq!((done.moved, done.left), (PAGES as u64 - 1, 1));
        assert_eq!(device.on_device(region.page(BAD)), 0);
        assert_eq!(device.try_digest(region.span()).unwrap_err(), Errno::EFAULT);
        check_others(&region, pattern);
        touch_bad(&region);
    })
    .succeed();
}

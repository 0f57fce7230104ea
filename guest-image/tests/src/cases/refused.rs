// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that is for CPUs alone, which the kernel gives no device: neither is it read there, nor does it go there.

use std::fs::File;
use std::os::fd::FromRawFd;

use ersatz_abi::counter::Counter;
use ersatz_uapi::Direction;
use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags};

use super::fixture::{assert_works, on_device};
use crate::bus::Function;
use crate::device::Device;
use crate::pattern::Pattern;
use crate::region::{READ_WRITE, Region};
use crate::suite::{Need, test_list};

test_list! { "refused":
    secret_memory;
    registers_of_the_device.disruptive();
    vram_by_its_bar.disruptive();
    pages_of_another_device.needs(&[Need::SecondDevice]);
    memory_without_permission;
}

/// Asserts that the device neither reads nor takes memory.
fn assert_refused(device: &Device, region: &Region) {
    let watch = device.watch();
    assert_eq!(device.try_digest(region.span()).unwrap_err(), Errno::EFAULT, "ERSATZ_IOC_DIGEST");
    watch.assert_pages(Counter::BytesDigested, 0);
    let done = device.migrate(region.span(), Direction::ToDevice);
    assert_eq!(done.moved, 0, "pages that went to the device");
    watch.assert_pages(Counter::BytesToVram, 0);
}

/// `memfd_secret(2)`, which stock kernels have switched on.
fn secret_file() -> File {
    // SAFETY: the call takes a number and returns one.
    let raw = unsafe { libc::syscall(libc::SYS_memfd_secret, 0) };
    assert!(raw >= 0, "memfd_secret: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    unsafe { File::from_raw_fd(raw as i32) }
}

fn secret_memory() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let file = secret_file();
    file.set_len(4 * 4096).expect("ftruncate");
    let region = Region::of_file(&file, 4, MapFlags::MAP_SHARED);
    region.fill(pattern);
    assert_refused(&device, &region);
    region.check(pattern);
}

fn registers_of_the_device() {
    const BAR_REGISTERS: u8 = 0;
    assert_bar_is_refused(BAR_REGISTERS);
}

fn vram_by_its_bar() {
    assert_bar_is_refused(ersatz_abi::pci::BAR_VRAM);
}

/// Maps a BAR while no driver is bound, and asserts that the driver refuses that mapping once one is.
fn assert_bar_is_refused(bar: u8) {
    let function = Function::of(&Device::open());
    function.unbind();
    let region = function.map_bar(bar, 0, 4);
    function.bind();
    assert_refused(&Device::open(), &region);
    drop(region);
    assert_works();
}

fn pages_of_another_device() {
    let (first, second) = (Device::open(), Device::open_second());
    let pattern = Pattern::new(1);
    let region = on_device(&first, 16, pattern);
    // Read by way of the system, or not at all; never by an address of the other device's.
    match second.try_digest(region.span()) {
        Ok((digests, in_vram)) => {
            assert_eq!(in_vram, 0, "pages of the first device that the second took for its own");
            assert!((0..16).all(|index| digests[index] == pattern.digest(index)));
        }
        Err(error) => assert_eq!(error, Errno::EFAULT),
    }
    region.check(pattern);
}

fn memory_without_permission() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 16, pattern);
    region.protect(4..8, ProtFlags::PROT_NONE);
    assert_eq!(device.try_digest(region.span()).unwrap_err(), Errno::EFAULT);
    region.protect(4..8, READ_WRITE);
    region.check(pattern);
}

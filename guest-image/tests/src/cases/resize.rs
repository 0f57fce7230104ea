// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! BAR2 gets another size, as an administrator or firmware gives it, and the driver works with what the BAR shows.

use nix::errno::Errno;

use super::fixture::on_device;
use crate::bus::Function;
use crate::device::Device;
use crate::pattern::Pattern;
use crate::suite::{Need, test_list};
use crate::vram_bar::VramBar;

const NEEDS: &[Need] = &[Need::ResizableBar];

test_list! { "resize":
    the_driver_uses_what_each_size_shows.disruptive().patience(4).needs(NEEDS);
    content_is_behind_the_bar_whatever_its_size.disruptive().patience(2).needs(NEEDS);
    a_bar_in_use_keeps_its_size.needs(NEEDS);
    a_size_that_is_not_offered_is_refused.disruptive().needs(NEEDS);
}

/// The first device's function, unbound, and its BAR.
fn unbound() -> (Function, VramBar) {
    let function = Function::of(&Device::open());
    function.unbind();
    let bar = VramBar::of(&function);
    (function, bar)
}

/// Sends content to the device and back, by the device's own copying.
fn assert_works() {
    let (device, pattern) = (Device::open(), Pattern::new(5));
    let region = on_device(&device, 64, pattern);
    device.assert_digests(region.span(), 64, |index| pattern.digest(index));
    device.to_system(region.span());
    region.check(pattern);
}

fn the_driver_uses_what_each_size_shows() {
    let before = Device::open().info().vram_bytes;
    let (function, bar) = unbound();
    let (at_first, sizes) = (bar.size(), bar.sizes());
    // Down to the smallest, up to the largest, and back: each step is a change.
    let (smallest, largest) = (sizes[0], sizes[sizes.len() - 1]);
    for size in [smallest, largest, at_first] {
        bar.resize(size);
        function.bind();
        let info = Device::open().info();
        assert!(info.vram_bytes <= size, "{} bytes of a BAR of {size}", info.vram_bytes);
        assert!(size == smallest || info.vram_bytes > smallest, "{} bytes of a BAR of {size}", info.vram_bytes);
        assert_works();
        function.unbind();
    }
    function.bind();
    assert_eq!(Device::open().info().vram_bytes, before);
}

fn content_is_behind_the_bar_whatever_its_size() {
    let (function, bar) = unbound();
    let (at_first, sizes) = (bar.size(), bar.sizes());
    let (smallest, largest) = (sizes[0], sizes[sizes.len() - 1]);
    bar.resize(largest);
    bar.write(smallest - 8, 0x1111);
    bar.write(smallest, 0x2222);
    bar.write(largest - 8, 0x3333);
    bar.resize(smallest);
    assert_eq!(bar.read(smallest - 8), 0x1111);
    bar.write(smallest - 8, 0x4444);
    bar.resize(largest);
    assert_eq!([smallest - 8, smallest, largest - 8].map(|offset| bar.read(offset)), [0x4444, 0x2222, 0x3333]);
    bar.resize(at_first);
    function.bind();
    assert_works();
}

fn a_bar_in_use_keeps_its_size() {
    let device = Device::open();
    let bar = VramBar::of(&Function::of(&device));
    let size = bar.size();
    let other = bar.sizes().into_iter().find(|other| *other != size).expect("another size");
    let error = bar.try_resize(other).expect_err("a driver is bound");
    assert_eq!(error.raw_os_error(), Some(Errno::EBUSY as i32), "{error}");
    assert_eq!(bar.size(), size);
    drop(device);
    assert_works();
}

fn a_size_that_is_not_offered_is_refused() {
    let (function, bar) = unbound();
    let (size, sizes) = (bar.size(), bar.sizes());
    for refused in [sizes[0] / 2, sizes[sizes.len() - 1] * 2] {
        let error = bar.try_resize(refused).expect_err("that size is not offered");
        assert_eq!(error.raw_os_error(), Some(Errno::EINVAL as i32), "{refused:#x}: {error}");
        assert_eq!(bar.size(), size);
    }
    function.bind();
    assert_works();
}

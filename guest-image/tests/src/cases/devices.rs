// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two devices, each with pages of its own, in the same process.

use ersatz_abi::counter::Counter;
use ersatz_uapi::{Direction, PageState};

use super::fixture::on_device;
use crate::device::Device;
use crate::pattern::Pattern;
use crate::region::Region;
use crate::suite::{Need, test_list};

const NEEDS: &[Need] = &[Need::SecondDevice];

test_list! { "devices":
    each_keeps_its_own_pages.needs(NEEDS);
    pages_of_the_other_device_are_left.needs(NEEDS);
    pages_travel_by_way_of_the_system.needs(NEEDS);
    evicting_one_leaves_the_other.needs(NEEDS);
    unlike_addresses.needs(NEEDS);
}

fn each_keeps_its_own_pages() {
    let (first, second) = (Device::open(), Device::open_second());
    let pattern = Pattern::new(1);
    let region = Region::filled(64, pattern);
    let (of_first, of_second) = (first.watch(), second.watch());
    first.to_device(region.part(0..24));
    second.to_device(region.part(24..64));
    of_first.assert_pages(Counter::BytesMigratedToDevice, 24);
    of_second.assert_pages(Counter::BytesMigratedToDevice, 40);
    first.assert_digests(region.part(0..24), 24, |index| pattern.digest(index));
    second.assert_digests(region.part(24..64), 40, |index| pattern.digest(24 + index));
    region.check(pattern);
}

fn pages_of_the_other_device_are_left() {
    let (first, second) = (Device::open(), Device::open_second());
    let pattern = Pattern::new(1);
    let region = on_device(&first, 32, pattern);
    let watch = second.watch();
    for direction in [Direction::ToDevice, Direction::ToSystem] {
        let done = second.migrate(region.span(), direction);
        assert_eq!(done.moved, 0, "{direction:?}");
    }
    watch.assert_pages(Counter::BytesToVram, 0);
    watch.assert_pages(Counter::BytesToSystem, 0);
    assert_eq!(second.on_device(region.span()), 0);
    first.assert_all(region.span(), PageState::Device);
    first.assert_digests(region.span(), 32, |index| pattern.digest(index));
    region.check(pattern);
}

fn pages_travel_by_way_of_the_system() {
    let (first, second) = (Device::open(), Device::open_second());
    let pattern = Pattern::new(1);
    let region = on_device(&first, 48, pattern);
    for _ in 0..3 {
        first.to_system(region.span());
        let watch = second.watch();
        second.to_device(region.span());
        watch.assert_pages(Counter::BytesMigratedToDevice, 48);
        second.assert_digests(region.span(), 48, |index| pattern.digest(index));
        second.to_system(region.span());
        first.to_device(region.span());
        first.assert_digests(region.span(), 48, |index| pattern.digest(index));
    }
    region.check(pattern);
}

fn evicting_one_leaves_the_other() {
    let (first, second) = (Device::open(), Device::open_second());
    let pattern = Pattern::new(1);
    let region = Region::filled(40, pattern);
    first.to_device(region.part(0..20));
    second.to_device(region.part(20..40));
    let watch = second.watch();
    while second.evict().left != 0 {
        std::thread::yield_now();
    }
    watch.assert_pages(Counter::BytesEvicted, 20);
    first.assert_all(region.part(0..20), PageState::Device);
    assert_eq!(second.on_device(region.span()), 0);
    region.check(pattern);
}

/// The devices themselves have nothing to do for this, and their counters nothing to tell.
fn unlike_addresses() {
    let (first, second) = (Device::open().info(), Device::open_second().info());
    assert_ne!(first.pci_address, second.pci_address, "two devices at one PCI address");
    assert_eq!(first.abi_version, second.abi_version);
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What most tests begin and end with.

use ersatz_abi::counter::Counter;
use ersatz_uapi::PageState;

use crate::device::{Device, Watch};
use crate::pattern::{PAGE, Pattern};
use crate::process::{Child, Event};
use crate::region::Region;

/// Memory with content, all of it on the device; the device's counters say that it copied every page.
pub fn on_device(device: &Device, pages: usize, pattern: Pattern) -> Region {
    let region = Region::filled(pages, pattern);
    send(device, &region);
    region
}

/// Moves memory that is wholly in system memory to the device; the device's counters say that it copied every page.
pub fn send(device: &Device, region: &Region) {
    let watch = device.watch();
    assert_eq!(device.to_device(region.span()), region.pages() as u64, "pages moved to the device");
    watch.assert_pages(Counter::BytesMigratedToDevice, region.pages());
    watch.assert_pages(Counter::BytesToVram, region.pages());
    device.assert_all(region.span(), PageState::Device);
}

/// Asserts that the CPU's touching at least so many pages of a region that was wholly on the device had the effect its
/// memory type promises: device-private pages came back by CPU faults, copied by the device; device-coherent ones stayed.
pub fn assert_touched(device: &Device, watch: &Watch<'_>, region: &Region, touched: usize) {
    let gone = region.pages() - device.on_device(region.span());
    if device.is_coherent() {
        assert_eq!(gone, 0, "device-coherent pages that left the device when the CPU touched them");
    } else {
        assert!(gone >= touched, "of {touched} touched pages only {gone} left the device");
    }
    watch.assert_pages(Counter::BytesCpuFault, gone);
}

/// Asserts that the device works as a whole: content goes there, is read there, and comes back.
pub fn assert_works() {
    let (device, pattern) = (Device::open(), Pattern::new(99));
    let region = on_device(&device, 32, pattern);
    device.assert_digests(region.span(), 32, |index| pattern.digest(index));
    let watch = device.watch();
    device.to_system(region.span());
    watch.assert_pages(Counter::BytesMigratedToSystem, 32);
    region.check(pattern);
}

/// Asserts that the device is given nothing to do meanwhile.
pub fn assert_idle(device: &Device, body: impl FnOnce()) {
    let watch = device.watch();
    body();
    for counter in [Counter::Doorbells, Counter::Commands, Counter::ChannelErrors, Counter::BadAccesses] {
        assert_eq!(watch.count(counter), 0, "{}", counter.name());
    }
}

/// Calls `visit` while other processes have so many pages each on the device, and none in this one has it open. What they
/// have there is the same afterwards.
pub fn beside_owners(processes: usize, pages: usize, visit: impl FnOnce()) {
    let (ready, go) = (Event::new(), Event::new());
    let start = |tag| {
        let (ready, go) = (&ready, &go);
        Child::spawn(move || {
            let pattern = Pattern::new(tag);
            let region = Region::filled(pages, pattern);
            Device::open().to_device(region.span());
            ready.signal();
            go.wait();
            region.check(pattern);
        })
    };
    // Not by a file that stays open: the children would inherit it.
    let migrated = || Device::open().count(Counter::BytesMigratedToDevice) / PAGE as u64;
    let before = migrated();
    let children: Vec<Child> = (1..).map(start).take(processes).collect();
    children.iter().for_each(|_| ready.wait());
    assert_eq!(migrated() - before, (processes * pages) as u64, "pages that the device copied for them");
    visit();
    children.iter().for_each(|_| go.signal());
    children.into_iter().for_each(Child::succeed);
}

/// Where the CPU finds a page after touching it on the device.
pub fn state_after_touch(device: &Device) -> PageState {
    if device.is_coherent() { PageState::Device } else { PageState::System }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What most tests begin and end with.

use ersatz_abi::counter::Counter;
use ersatz_uapi::PageState;

use crate::device::{Device, Watch};
use crate::pattern::Pattern;
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

/// Where the CPU finds a page after touching it on the device.
pub fn state_after_touch(device: &Device) -> PageState {
    if device.is_coherent() { PageState::Device } else { PageState::System }
}

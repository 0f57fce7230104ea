// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What users and tools see of pages on the device in `/proc`.

use ersatz_abi::counter::Counter;

use super::fixture::on_device;
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::proc_fs::{pagemap, smaps_kib, status_kib};
use crate::region::Region;
use crate::suite::test_list;

test_list! { "proc_view":
    device_pages_count_as_resident;
    device_pages_are_not_swapped_out;
    pagemap_tells_the_memory_type;
    looking_moves_nothing;
    freed_pages_are_not_resident;
}

const KIB: u64 = (PAGE / 1024) as u64;

fn device_pages_count_as_resident() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(512, pattern);
    let before = (smaps_kib(region.span(), "Rss"), smaps_kib(region.span(), "Anonymous"));
    assert!(before.0 >= 512 * KIB);
    super::fixture::send(&device, &region);
    let after = (smaps_kib(region.span(), "Rss"), smaps_kib(region.span(), "Anonymous"));
    assert_eq!(after, before, "resident and anonymous kB");
    region.check(pattern);
}

fn device_pages_are_not_swapped_out() {
    let device = Device::open();
    let region = on_device(&device, 64, Pattern::new(1));
    assert_eq!(smaps_kib(region.span(), "Swap"), 0);
    assert_eq!(status_kib("VmSwap"), 0);
}

fn pagemap_tells_the_memory_type() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 16, pattern);
    for entry in pagemap(region.span()) {
        // A device-private page is behind a swap entry; a coherent one is mapped like any other.
        assert_eq!((entry.present(), entry.swap()), (device.is_coherent(), !device.is_coherent()), "{entry:?}");
    }
    region.check(pattern);
    for entry in pagemap(region.span()) {
        assert_eq!((entry.present(), entry.swap()), (true, false), "{entry:?}");
    }
}

fn looking_moves_nothing() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 32, pattern);
    let watch = device.watch();
    for file in ["smaps", "smaps_rollup", "maps", "numa_maps", "status", "statm"] {
        std::fs::read_to_string(format!("/proc/self/{file}"))
            .unwrap_or_else(|error| panic!("/proc/self/{file}: {error}"));
    }
    pagemap(region.span());
    assert_eq!(watch.count(Counter::Commands), 0);
    device.assert_digests(region.span(), 32, |index| pattern.digest(index));
}

fn freed_pages_are_not_resident() {
    let device = Device::open();
    let region = on_device(&device, 512, Pattern::new(1));
    let before = status_kib("VmRSS");
    region.unmap(0..256);
    let after = status_kib("VmRSS");
    // The kernel sums this figure up in batches for each CPU: leave it some of them.
    assert!(after + 256 * KIB - 64 * KIB <= before, "{before} kB resident before, {after} kB after 1 MiB was unmapped");
    assert!(smaps_kib(region.part(256..512), "Rss") == 256 * KIB);
}

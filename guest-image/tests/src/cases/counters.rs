// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's counters and the driver's figures tell of the work that was done, and of no other.

use ersatz_abi::ABI_VERSION;
use ersatz_abi::counter::Counter;
use ersatz_uapi::MemoryType;

use super::fixture::on_device;
use crate::bus::Function;
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::suite::test_list;

test_list! { "counters":
    info_describes_the_device;
    free_vram_follows_pages;
    only_go_up;
    looking_is_no_copying;
    a_migration_is_commands_fences_and_doorbells;
    each_page_is_a_list_entry;
    marks_disturb_nothing;
}

/// The device itself has nothing to do for this, and its counters nothing to tell.
fn info_describes_the_device() {
    let device = Device::open();
    let info = device.info();
    assert_eq!(info.abi_version, ABI_VERSION);
    assert!([MemoryType::Private as u32, MemoryType::Coherent as u32].contains(&info.memory_type));
    assert!(info.vram_bytes > 0 && info.vram_bytes % PAGE as u64 == 0, "{:#x} bytes of VRAM", info.vram_bytes);
    assert!(info.vram_free <= info.vram_bytes, "{:#x} of {:#x} bytes free", info.vram_free, info.vram_bytes);
    assert_eq!(info.reserved, 0);
    assert!(Function::of(&device).is_bound());
}

fn free_vram_follows_pages() {
    let device = Device::open();
    let before = device.free_pages();
    let region = on_device(&device, 77, Pattern::new(1));
    assert_eq!(device.free_pages(), before - 77);
    device.to_system(region.span());
    assert_eq!(device.free_pages(), before);
}

fn only_go_up() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let mut last = device.try_counters().unwrap().values;
    for _ in 0..5 {
        let region = on_device(&device, 8, pattern);
        region.check(pattern);
        let now = device.try_counters().unwrap().values;
        for (number, (last, now)) in last.iter().zip(now).enumerate() {
            assert!(*last <= now, "counter {number} went from {last} to {now}");
        }
        last = now;
    }
}

fn looking_is_no_copying() {
    let device = Device::open();
    let region = on_device(&device, 24, Pattern::new(1));
    let watch = device.watch();
    device.info();
    device.residency(region.span());
    let copied = [
        Counter::BytesToVram,
        Counter::BytesToSystem,
        Counter::BytesWithinVram,
        Counter::BytesWithinSystem,
        Counter::BytesFilled,
    ];
    for counter in copied {
        watch.assert_pages(counter, 0);
    }
}

fn a_migration_is_commands_fences_and_doorbells() {
    let device = Device::open();
    let watch = device.watch();
    let _region = on_device(&device, 64, Pattern::new(1));
    for counter in [Counter::Commands, Counter::Fences, Counter::Doorbells] {
        assert!(watch.count(counter) >= 1, "{} did not move", counter.name());
    }
    assert!(watch.count(Counter::Commands) < 64, "a command a page is no batching");
    assert_eq!(watch.count(Counter::ChannelErrors), 0);
}

fn each_page_is_a_list_entry() {
    let device = Device::open();
    let watch = device.watch();
    let _region = on_device(&device, 64, Pattern::new(1));
    let entries = watch.count(Counter::CopyEntries);
    assert!((1..=64).contains(&entries), "{entries} list entries for 64 pages");
}

fn marks_disturb_nothing() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 8, pattern);
    let watch = device.watch();
    for value in [0, 1, u64::MAX] {
        device.mark(value);
    }
    assert_eq!(watch.count(Counter::BadAccesses), 0);
    assert_eq!(watch.count(Counter::Commands), 0);
    device.assert_digests(region.span(), 8, |index| pattern.digest(index));
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages that ksmd has merged stay in system memory: once they are device pages its scans lose track of where they are mapped.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ersatz_uapi::{Direction, PageState};
use nix::sys::mman::MmapAdvise;

use super::fixture::{assert_touched, send};
use super::setting::{Setting, number};
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::process::Child;
use crate::region::Region;
use crate::suite::test_list;

test_list! { "ksm":
    merged_pages_stay;
    merged_pages_survive_scans_after_a_migration;
    equal_memory_merges_after_a_migration;
    pages_on_the_device_are_not_merged;
    pages_written_to_go;
    unmerged_pages_go;
    merged_pages_of_two_processes_stay;
}

/// Pages that a test has merged.
const PAGES: usize = 16;
/// How long ksmd may take to merge some pages, or to scan all there are.
const PATIENCE: Duration = Duration::from_secs(30);

/// ksmd, scanning while it is told to. Dropped, it scans no more.
struct Scanner {
    run: Setting,
    _settings: [Setting; 2],
}

impl Scanner {
    /// Starts scans, as fast as they go.
    fn start() -> Self {
        Self {
            _settings: [Setting::set(file("pages_to_scan"), "4000"), Setting::set(file("sleep_millisecs"), "10")],
            run: Setting::set(file("run"), "1"),
        }
    }

    /// Stops scanning, so that ksmd holds no page.
    fn pause(&self) {
        self.run.change("0");
    }

    /// Goes on, and waits until all mergeable memory was scanned a few times: to merge a page takes two.
    fn scan_all(&self) {
        self.run.change("1");
        let before = number(file("full_scans"));
        wait_until("three full scans", || number(file("full_scans")) >= before + 3);
        self.pause();
    }
}

fn file(name: &str) -> impl AsRef<Path> + Into<std::path::PathBuf> {
    Path::new("/sys/kernel/mm/ksm").join(name)
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not after {} s", PATIENCE.as_secs());
        sleep(Duration::from_millis(10));
    }
}

/// Memory whose pages are all alike, for ksmd to merge.
fn alike(content: &[u8; PAGE]) -> Region {
    let region = Region::new(PAGES);
    region.advise(0..PAGES, MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
    (0..PAGES).for_each(|index| region.write(index, content));
    region.advise(0..PAGES, MmapAdvise::MADV_MERGEABLE).expect("MADV_MERGEABLE");
    region
}

fn assert_alike(region: &Region, content: &[u8; PAGE]) {
    for index in 0..region.pages() {
        assert!(region.read(index) == *content, "page {index} does not hold what was written");
    }
}

/// The same once it is merged, and ksmd at rest.
fn merged(scanner: &Scanner, content: &[u8; PAGE]) -> Region {
    let region = alike(content);
    wait_until("merging", || number("/proc/self/ksm_merging_pages") >= PAGES as u64);
    scanner.pause();
    region
}

/// Tries to send merged memory to the device, more than once: a page may just be busy.
fn try_to_send(device: &Device, region: &Region) -> u64 {
    (0..5).map(|_| device.migrate(region.span(), Direction::ToDevice).moved).sum()
}

fn merged_pages_stay() {
    let (device, content, scanner) = (Device::open(), Pattern::new(1).page(0), Scanner::start());
    let region = merged(&scanner, &content);
    assert_eq!(try_to_send(&device, &region), 0, "merged pages that went to the device");
    device.assert_all(region.span(), PageState::System);
    let digest = u64::from(crc32c::crc32c(&content));
    device.assert_digests(region.span(), 0, |_| digest);
    assert_alike(&region, &content);
}

/// What went wrong when such pages went: they came back as migration entries that nobody resolved.
fn merged_pages_survive_scans_after_a_migration() {
    let (device, content, scanner) = (Device::open(), Pattern::new(1).page(0), Scanner::start());
    let region = merged(&scanner, &content);
    try_to_send(&device, &region);
    scanner.scan_all();
    device.to_system(region.span());
    assert_alike(&region, &content);
    (0..PAGES).for_each(|index| region.write(index, &Pattern::new(2).page(index)));
    region.check(Pattern::new(2));
}

/// ksmd compares each page with those that it has merged before, and those must be memory that it can read.
fn equal_memory_merges_after_a_migration() {
    let (device, content, scanner) = (Device::open(), Pattern::new(1).page(0), Scanner::start());
    let region = merged(&scanner, &content);
    try_to_send(&device, &region);
    let more = alike(&content);
    scanner.scan_all();
    assert_alike(&more, &content);
    assert_alike(&region, &content);
}

fn pages_on_the_device_are_not_merged() {
    let (device, content) = (Device::open(), Pattern::new(1).page(0));
    let region = alike(&content);
    send(&device, &region);
    let scanner = Scanner::start();
    let beside = alike(&content);
    scanner.scan_all();
    device.assert_all(region.span(), PageState::Device);
    device.assert_digests(region.span(), PAGES, |_| u64::from(crc32c::crc32c(&content)));
    let watch = device.watch();
    assert_alike(&region, &content);
    assert_touched(&device, &watch, &region, PAGES);
    scanner.scan_all();
    assert_alike(&beside, &content);
    assert_alike(&region, &content);
}

fn pages_written_to_go() {
    let (device, pattern, scanner) = (Device::open(), Pattern::new(2), Scanner::start());
    let region = merged(&scanner, &Pattern::new(1).page(0));
    region.fill(pattern); // each page is a copy of its own now
    send(&device, &region);
    scanner.scan_all();
    device.assert_digests(region.span(), PAGES, |index| pattern.digest(index));
    region.check(pattern);
}

fn unmerged_pages_go() {
    let (device, content, scanner) = (Device::open(), Pattern::new(1).page(0), Scanner::start());
    let region = merged(&scanner, &content);
    region.advise(0..PAGES, MmapAdvise::MADV_UNMERGEABLE).expect("MADV_UNMERGEABLE");
    send(&device, &region);
    // With nothing to merge at all, ksmd sleeps.
    let _beside = alike(&content);
    scanner.scan_all();
    device.assert_digests(region.span(), PAGES, |_| u64::from(crc32c::crc32c(&content)));
    assert_alike(&region, &content);
}

fn merged_pages_of_two_processes_stay() {
    let (content, scanner) = (Pattern::new(1).page(0), Scanner::start());
    let region = merged(&scanner, &content);
    Child::spawn(|| {
        let device = Device::open();
        assert_eq!(try_to_send(&device, &region), 0, "merged pages of a forked process that went to the device");
        assert_alike(&region, &content);
    })
    .succeed();
    assert_eq!(try_to_send(&Device::open(), &region), 0, "merged pages that went to the device");
    assert_alike(&region, &content);
}

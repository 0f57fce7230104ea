// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the driver tells of its work: tracepoints, and statistics in debugfs.

use std::collections::HashMap;
use std::fs;

use super::fixture::on_device;
use super::folio::{HUGE, NEEDS, huge};
use super::setting::Setting;
use crate::device::Device;
use crate::pattern::Pattern;
use crate::region::Region;
use crate::statistics::Statistics;
use crate::suite::{Need, test_list};

const EVENTS: &str = "/sys/kernel/tracing/events/ersatz/enable";
const TRACE: &str = "/sys/kernel/tracing/trace";

test_list! { "observability":
    copies_and_migrations_are_traced;
    faults_are_traced.needs(&[Need::Private]);
    evicted_blocks_are_traced;
    freed_folios_are_traced.needs(NEEDS);
    statistics_count_pieces_by_size.needs(NEEDS);
    statistics_have_every_step;
}

/// The fields of the events of a kind that were recorded for this process's memory or, if they have no address, at all.
fn events(kind: &str) -> Vec<HashMap<String, String>> {
    let trace = fs::read_to_string(TRACE).expect("the trace can be read");
    let of_kind = trace.lines().filter_map(|line| line.split_once(&format!(" {kind}: ")));
    let fields = |text: &str| {
        text.split(' ')
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    };
    of_kind.map(|(_, text)| fields(text)).collect()
}

fn recording() -> Setting {
    fs::write(TRACE, "").expect("the trace can be cleared");
    Setting::set(EVENTS, "1")
}

fn address(region: &Region) -> String {
    format!("{:#x}", region.pointer(0).as_ptr().addr())
}

fn copies_and_migrations_are_traced() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(4, pattern);
    let _recording = recording();
    device.to_device(region.span());
    let copies = events("ersatz_copy");
    let copy = copies.iter().find(|copy| copy["address"] == address(&region)).expect("a copy of the first page");
    assert_eq!(copy["cause"], "migrate-to-device");
    let migrations = events("ersatz_migrate");
    let same = |migration: &&HashMap<String, String>| {
        ["dev", "channel", "fence", "address"].iter().all(|&field| migration[field] == copy[field])
    };
    let migration = migrations.iter().find(same).expect("the migration of that copy");
    assert!(migration["moved"].parse::<usize>().expect("a number") >= 1);
}

fn faults_are_traced() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 4, pattern);
    let _recording = recording();
    region.check(pattern);
    let faults = events("ersatz_cpu_fault");
    let fault = faults.iter().find(|fault| fault["address"] == address(&region)).expect("a fault on the first page");
    assert_eq!(fault["end"], "0x0");
}

fn evicted_blocks_are_traced() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = on_device(&device, 4, pattern);
    let _recording = recording();
    device.evict();
    let evicted: usize = events("ersatz_evict").iter().map(|event| event["pages"].parse::<usize>().unwrap()).sum();
    assert!(evicted >= 4, "{evicted} pages");
    region.check(pattern);
}

fn freed_folios_are_traced() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = huge(1, pattern);
    device.to_device(region.span());
    let whole = device.info().memory_type == ersatz_uapi::MemoryType::Private as u32;
    let _recording = recording();
    drop(region);
    let wanted = if whole { HUGE } else { 1 }.to_string();
    assert!(events("ersatz_free").iter().any(|event| event["pages"] == wanted), "a folio of {wanted} pages");
}

fn statistics_count_pieces_by_size() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let (single, large) = (Region::filled(1, pattern), huge(2, pattern));
    let before = Statistics::read();
    device.to_device(single.span());
    device.to_device(large.span());
    device.to_system(large.span());
    let after = Statistics::read();
    let grown = |name: &str| after.get(name) - before.get(name);
    assert!(grown("svm_4K_migrate_count") >= 1 && grown("svm_2M_migrate_count") >= 4);
    assert_eq!(grown("svm_4K_device_copy_kb"), 4);
    assert_eq!(grown("svm_2M_device_copy_kb"), 4096);
    assert_eq!(grown("svm_2M_cpu_copy_kb"), 4096);
    single.check(pattern);
    large.check(pattern);
}

fn statistics_have_every_step() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    let region = Region::filled(2 * HUGE, pattern);
    let before = Statistics::read().steps();
    device.to_device(region.span());
    device.to_system(region.span());
    let steps = Statistics::read().steps() - before;
    for (name, time) in steps.named() {
        // A copy may be done before anybody waits for it.
        assert!(name == "copy" || !time.is_zero(), "{name} has not grown");
    }
}

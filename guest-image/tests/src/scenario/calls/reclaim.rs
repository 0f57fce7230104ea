// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Steps that have the kernel do something to memory of its own accord: KSM, swap, compaction, a limit.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::libc;

use super::mapping::madvise;
use super::order::wait_until;
use crate::proc_fs::pagemap;
use crate::runner::drain_page_lists;
use crate::scenario::context::{Done, Failure, done, done_with};
use crate::scenario::ranges::Place;

/// How long ksmd and reclaim may take.
const PATIENCE: Duration = Duration::from_secs(8);

const KSM: &str = "/sys/kernel/mm/ksm";

fn number(path: &str) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Has ksmd scan until something holds, and rest again.
fn scan_until(what: &str, holds: impl Fn() -> bool) -> Done {
    for (setting, value) in [("pages_to_scan", "4000"), ("sleep_millisecs", "10"), ("run", "1")] {
        fs::write(format!("{KSM}/{setting}"), value)?;
    }
    let came = wait_until(PATIENCE, holds);
    fs::write(format!("{KSM}/run"), "0")?;
    if came { done() } else { Err(format!("{what}: not in time").into()) }
}

pub fn merge(place: Place) -> Done {
    let merged = || number("/proc/self/ksm_merging_pages");
    madvise(place, libc::MADV_MERGEABLE)?;
    let wanted = merged() + place.pages() as u64;
    scan_until("ksmd merges the range", || merged() >= wanted)
}

/// To merge a page takes two scans.
pub fn scan() -> Done {
    let scans = || number(&format!("{KSM}/full_scans"));
    let wanted = scans() + 3;
    scan_until("ksmd scans three times", || scans() >= wanted)
}

pub fn swap_out(place: Place) -> Done {
    let swapped = || pagemap(place.span()).iter().filter(|entry| entry.swap()).count();
    let all = wait_until(PATIENCE / 4, || {
        // What cannot go now is tried again; what waits in the list of another CPU to go to an LRU list cannot go.
        drain_page_lists();
        let _ = madvise(place, libc::MADV_PAGEOUT);
        swapped() == place.pages()
    });
    if all { done() } else { Err(format!("{} of {} pages are swapped", swapped(), place.pages()).into()) }
}

pub fn compact() -> Done {
    fs::write("/proc/sys/vm/compact_memory", "1")?;
    done()
}

/// Where a cgroup of version 2 is made for the attempt; the monitor removes it.
pub const CGROUP: &str = "/sys/fs/cgroup/scenario";

pub fn limit_memory(limit: u64) -> Done {
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")?;
    if !PathBuf::from(CGROUP).exists() {
        fs::create_dir(CGROUP)?;
    }
    fs::write(format!("{CGROUP}/memory.max"), limit.to_string())?;
    fs::write(format!("{CGROUP}/cgroup.procs"), "0")?;
    done()
}

/// The file of a setting.
pub fn setting_file(setting: &str) -> PathBuf {
    match setting.strip_prefix("vm.") {
        Some(name) => PathBuf::from("/proc/sys/vm").join(name),
        None => PathBuf::from("/sys/kernel/mm").join(setting),
    }
}

pub fn set(setting: &str, value: &str) -> Done {
    let file = setting_file(setting);
    fs::write(&file, value).map_err(|error| Failure::from(format!("cannot write {}: {error}", file.display())))?;
    done_with(fs::read_to_string(&file).unwrap_or_default().trim().to_owned())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the processes of a test that ran out of time are stuck.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use nix::unistd::Pid;

/// What each thread of a process group, and of the children of its leader, is doing: its name, state and kernel stack, as far as the
/// kernel tells.
pub fn describe(group: Pid) -> String {
    let mut text = String::new();
    for process in numbered("/proc".as_ref()) {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let belongs = process_group(&stat) == Some(group.as_raw()) || parent(&stat) == Some(group.as_raw());
        if !belongs {
            continue;
        }
        for thread in numbered(format!("/proc/{process}/task").as_ref()) {
            describe_thread(&mut text, format!("/proc/{process}/task/{thread}").as_ref(), thread);
        }
    }
    text
}

fn describe_thread(text: &mut String, folder: &Path, thread: u32) {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let stat = read("stat");
    let state = stat.rsplit_once(") ").map_or("?", |(_, rest)| rest.get(..1).unwrap_or("?"));
    // Writing to a string cannot fail.
    let _ = writeln!(text, "thread {thread} ({}), state {state}, in:", read("comm").trim_end());
    for line in read("stack").lines() {
        let _ = writeln!(text, "  {line}");
    }
}

/// The process group in a line of `/proc/PID/stat`; the name before it may hold anything but is in parentheses.
fn process_group(stat: &str) -> Option<i32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(2)?.parse().ok()
}

/// The parent in such a line.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Returns the processes whose parent is `pid`.
pub fn children(pid: Pid) -> Vec<Pid> {
    let is_child = |process: &u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        parent(&stat) == Some(pid.as_raw())
    };
    let processes = numbered("/proc".as_ref()).into_iter().filter(is_child);
    processes.filter_map(|process| i32::try_from(process).ok()).map(Pid::from_raw).collect()
}

fn numbered(folder: &Path) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_behind_any_name() {
        assert_eq!(process_group("7 (a) b) R 1 42 42 0"), Some(42));
        assert_eq!(parent("7 (a) b) R 1 42 42 0"), Some(1));
        assert_eq!(process_group("7 (x) R 1"), None);
    }

    #[test]
    fn this_very_thread_is_described() {
        assert!(describe(nix::unistd::getpgrp()).contains("state"));
    }
}

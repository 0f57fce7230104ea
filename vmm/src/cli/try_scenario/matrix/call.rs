// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The columns of the matrix: what is done to the range `r`.
//!
//! In steps, `{a}` and `{b}` stand for the halves of the range, `{p}` for its second page, `{size}`, `{half}` and `{double}` for sizes.

use super::state::State;

/// A call, with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// What is done.
    pub title: &'static str,
    /// The steps.
    pub steps: &'static [&'static str],
    /// The steps of the forked process `child`, if the steps fork one.
    pub child: &'static [&'static str],
    /// What the call cannot be done to.
    pub not_for: NotFor,
}

/// States in which a call makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFor {
    /// There are none.
    None,
    /// Those in which somebody else has steps to do that need the caller's process: another process that waits for the end of the caller's steps,
    /// or the thread that lets a held migration go on.
    Needed,
    /// Those with a migration that is held: the call waits for that one's CPU, and not at a moment of its own.
    Held,
    /// All that are smaller than a huge page.
    Small,
}

impl Call {
    /// Why the call makes no sense in a state, if it makes none.
    pub fn senseless(&self, state: &State) -> Option<&'static str> {
        match self.not_for {
            NotFor::Needed if state.shared => Some("the other process waits for the caller, which is gone"),
            NotFor::Needed if state.held.is_some() => Some("the thread that ends the hold is gone with the caller"),
            NotFor::Held if state.held.is_some() => Some("the call waits for the end of the hold, whatever it is"),
            NotFor::Small if state.size == super::state::Size::Small => Some("there is no room for a huge page"),
            _ => None,
        }
    }
}

const fn call(name: &'static str, title: &'static str, steps: &'static [&'static str]) -> Call {
    Call { name, title, steps, child: &[], not_for: NotFor::None }
}

impl Call {
    const fn child(self, steps: &'static [&'static str]) -> Self {
        Self { child: steps, ..self }
    }

    const fn not_for(self, not_for: NotFor) -> Self {
        Self { not_for, ..self }
    }
}

/// All calls.
pub const CALLS: &[Call] = &[
    call("read", "all is read", &["read r"]),
    call("touch-page", "one page is touched", &["touch {p}"]),
    call("write", "each page is written to", &["write r 9"]),
    call("fill-half", "half of it is overwritten", &["fill {a} 9"]),
    call("dontneed", "MADV_DONTNEED", &["madvise r dontneed"]),
    call("dontneed-half", "MADV_DONTNEED of half of it", &["madvise {a} dontneed"]),
    call("dontneed-locked", "MADV_DONTNEED_LOCKED", &["madvise r dontneed-locked"]),
    call("free", "MADV_FREE", &["madvise r free"]),
    call("free-half", "MADV_FREE of half of it", &["madvise {b} free"]),
    call("cold", "MADV_COLD", &["madvise r cold"]),
    call("cold-half", "MADV_COLD of half of it", &["madvise {a} cold"]),
    call("pageout", "MADV_PAGEOUT", &["madvise r pageout"]),
    call("pageout-half", "MADV_PAGEOUT of half of it", &["madvise {b} pageout"]),
    call("willneed", "MADV_WILLNEED", &["madvise r willneed"]),
    call("populate-read", "MADV_POPULATE_READ", &["madvise r populate-read"]),
    call("populate-write", "MADV_POPULATE_WRITE", &["madvise r populate-write"]),
    call("collapse", "MADV_COLLAPSE", &["madvise r hugepage", "madvise r collapse"]).not_for(NotFor::Small),
    call("hugepage", "MADV_NOHUGEPAGE and MADV_HUGEPAGE", &["madvise r nohugepage", "madvise r hugepage"]),
    call(
        "guard",
        "guard regions come and go",
        &["madvise {a} guard-install", "touch {p}", "read {b}", "madvise {a} guard-remove"],
    ),
    call("guard-remove", "MADV_GUARD_REMOVE where there is no guard", &["madvise {a} guard-remove"]),
    call("remove", "MADV_REMOVE, which is for other memory", &["madvise r remove"]),
    call("soft-offline", "MADV_SOFT_OFFLINE of one page", &["madvise {p} soft-offline"]),
    call("hwpoison", "MADV_HWPOISON of one page", &["madvise {p} hwpoison", "touch {p}", "read {b}"]),
    call("mprotect-none", "mprotect to PROT_NONE and back", &["mprotect r none", "touch {p}", "mprotect r rw"]),
    call("mprotect-ro", "mprotect to PROT_READ", &["mprotect r r", "write {p} 9", "read {a}"]),
    call("mprotect-both", "mprotect to PROT_READ and back", &["mprotect r r", "mprotect r rw", "write {p} 9"]),
    call("mprotect-half", "mprotect of half of it", &["mprotect {a} r", "write {p} 9", "write {b} 9"]),
    call("mremap", "mremap onto another place", &["map s {size}", "mremap r onto s", "read s"]),
    call("mremap-half", "mremap of half of it", &["map s {half}", "mremap {b} onto s", "read s"]),
    call(
        "mremap-keep",
        "mremap with MREMAP_DONTUNMAP",
        &["map s {size}", "mremap r onto s dontunmap", "read s", "write s 9", "read s"],
    ),
    call("grow", "mremap to twice the size", &["mremap r resize {double}"]),
    call("shrink", "mremap to half the size", &["mremap r resize {half}"]),
    call("munmap", "munmap", &["munmap r"]),
    call("munmap-half", "munmap of half of it", &["munmap {a}"]),
    call("munmap-page", "munmap of one page", &["munmap {p}", "touch {b}"]),
    call("mlock", "mlock", &["mlock r"]),
    call("mlock-onfault", "mlock2 with MLOCK_ONFAULT", &["mlock r onfault"]),
    call("munlock", "mlock and munlock", &["mlock r", "munlock r"]),
    call("fork", "fork; parent and child write", &["fork child", "join child", "write {a} 9", "read r"]).child(&[
        "read r",
        "write {b} 8",
        "read r",
    ]),
    call("fork-write", "fork; the parent writes first", &["fork child", "write r 9", "join child"]).child(&[
        "sleep 5ms",
        "write r 8",
        "read r",
    ]),
    call("fork-exit", "a child that is forked and ends at once", &["fork child", "join child"]).child(&["exit"]),
    call("fork-kill", "a child that is killed", &["fork child", "kill child", "join child"]).child(&["sleep 2s"]),
    call("fork-exec", "a child that is forked and executes another program", &["fork child", "join child"])
        .child(&["exec"]),
    call("dontfork", "fork with MADV_DONTFORK", &["madvise r dontfork", "fork child", "join child"])
        .child(&["touch {p}"]),
    call("wipeonfork", "fork with MADV_WIPEONFORK", &["madvise r wipeonfork", "fork child", "join child"])
        .child(&["read r"]),
    call("exit", "the process ends", &["exit"]).not_for(NotFor::Needed),
    call("exec", "the process executes another program", &["exec"]).not_for(NotFor::Needed),
    call("vmread", "a child reads by process_vm_readv", &["fork child", "join child"])
        .child(&["vmread parent r[0..16]"]),
    call("vmwrite", "a child writes by process_vm_writev", &["fork child", "join child"])
        .child(&["vmwrite parent {p} 9", "read {a}"]),
    call("ptrace-peek", "a child reads by PTRACE_PEEKDATA", &["fork child", "join child"])
        .child(&["ptrace peek parent r[0..16]"]),
    call("ptrace-poke", "a child writes by PTRACE_POKEDATA", &["fork child", "join child"])
        .child(&["ptrace poke parent {p} 9", "read {a}"]),
    call(
        "direct-write",
        "it is written to a disk with O_DIRECT",
        &["map s {size}", "direct write r", "direct read s", "read s"],
    ),
    call(
        "direct-read",
        "half of it is read from a disk with O_DIRECT",
        &["map s {size}", "fill s 5", "direct write s", "direct read {a}", "read {a}"],
    ),
    call(
        "uring-write",
        "it is written to a disk by io_uring",
        &["map s {size}", "uring write r", "uring read s", "read s"],
    ),
    call(
        "uring-fixed",
        "half of it is a registered buffer of io_uring",
        &["map s {size}", "fill s 5", "uring write s direct", "uring read {a} direct fixed", "read {a}"],
    ),
    call("migrate-back", "migration to system memory", &["migrate r to-system"]),
    call("migrate-back-half", "migration of half of it to system memory", &["migrate {a} to-system"]),
    call("migrate-out", "migration to the device", &["migrate r to-device"]),
    call("evict", "eviction of all pages from the device", &["evict"]),
    call("device-read", "the device reads all of it", &["device-read r"]),
    call("device-write", "the device writes to half of it", &["device-write {a} 9", "read {a}"]),
    call("device-add", "the device adds to half of it by atomics", &["device-add {a} 1", "read {a}"]),
    call("exclusive", "the device gets exclusive access to half of it", &["exclusive {a}", "touch {p}"]),
    call("clear-soft-dirty", "soft-dirty bits are cleared", &["clear-soft-dirty", "pagemap r soft-dirty"]),
    call(
        "soft-dirty",
        "soft-dirty bits are cleared, and set by writes",
        &["clear-soft-dirty", "write {a} 9", "pagemap r soft-dirty"],
    ),
    call(
        "uffd-wp",
        "userfaultfd write-protects",
        &["uffd register r wp-async", "uffd protect r", "write {a} 9", "pagemap r uffd-wp", "uffd unprotect r"],
    ),
    call(
        "uffd-missing",
        "userfaultfd fills holes",
        &["uffd register r missing", "madvise {a} dontneed", "uffd copy {a} 5", "uffd unregister r"],
    ),
    call(
        "uffd-zeropage",
        "userfaultfd fills holes with zero pages",
        &["uffd register r missing", "madvise {a} dontneed", "uffd zeropage {a}", "uffd unregister r"],
    ),
    call(
        "uffd-present",
        "userfaultfd fills what is there",
        &["uffd register r missing", "uffd copy {p} 5", "uffd unregister r"],
    ),
    call(
        "uffd-move",
        "UFFDIO_MOVE takes the pages",
        &["map s {size}", "uffd register s missing", "uffd move s from r", "uffd unregister s", "read s"],
    ),
    call(
        "uffd-move-onto",
        "UFFDIO_MOVE onto the pages",
        &["map s {size}", "fill s 5", "uffd register r missing", "uffd move r from s", "uffd unregister r", "read s"],
    ),
    call("ksm", "ksmd scans the pages", &["madvise r mergeable", "ksm scan", "write {p} 9"]).not_for(NotFor::Held),
    call("unmerge", "MADV_UNMERGEABLE", &["madvise r mergeable", "madvise r unmergeable"]),
    call("swap", "all comes back and is swapped out", &["migrate r to-system all", "swap-out {a}"])
        .not_for(NotFor::Held),
    call("compact", "the machine's memory is compacted", &["compact"]).not_for(NotFor::Held),
    call("limit", "a cgroup limits memory", &["cgroup limit 32M", "write r 9"]),
];

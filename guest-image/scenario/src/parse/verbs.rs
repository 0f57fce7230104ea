// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The verbs that steps begin with.

/// A verb.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    /// The first word of the step.
    pub name: &'static str,
    /// What follows it, in capitals what the author chooses.
    pub syntax: &'static str,
    /// What it does.
    pub summary: &'static str,
}

const fn verb(name: &'static str, syntax: &'static str, summary: &'static str) -> Verb {
    Verb { name, syntax, summary }
}

/// All verbs.
pub const VERBS: &[Verb] = &[
    verb("map", "NAME SIZE [huge|nohuge] [shared] [ro|none] [noreserve] [populate]", "mmap(2) of anonymous memory"),
    verb("munmap", "R", "munmap(2)"),
    verb("fill", "R BYTE", "writes the byte everywhere"),
    verb("write", "R BYTE", "writes the byte at the beginning of each page"),
    verb("read", "R", "reads everything; compared"),
    verb("touch", "R", "reads the first byte of each page; compared"),
    verb("migrate", "R to-device|to-system [all]", "moves pages; with all, until none is left"),
    verb("evict", "", "moves all pages of all processes off the device"),
    verb("device-read", "R", "the device reads everything by the process's addresses; compared"),
    verb("device-write", "R BYTE", "the device writes the byte everywhere by the process's addresses"),
    verb("device-add", "R BYTE", "the device adds the byte to every byte, by atomics over 64-bit words"),
    verb("exclusive", "R", "gives the device exclusive access until a CPU touches a page"),
    verb("expect", "R device|system|swapped|hole, or device-empty", "a finding if that does not hold, on the GPU"),
    verb("madvise", "R ADVICE", "madvise(2)"),
    verb("mprotect", "R none|r|rw", "mprotect(2)"),
    verb("mremap", "R onto S [dontunmap], or NAME resize SIZE", "mremap(2)"),
    verb("mlock", "R [onfault]", "mlock2(2)"),
    verb("munlock", "R", "munlock(2)"),
    verb("pagemap", "R soft-dirty|uffd-wp", "reads a bit of each page's pagemap entry; compared"),
    verb("scan-written", "R", "PAGEMAP_SCAN for pages written since the last one, protecting them again; compared"),
    verb("clear-soft-dirty", "", "clears the soft-dirty bits of the process"),
    verb("fork", "CHILD", "fork(2); the threads of CHILD begin in it"),
    verb("exit", "", "_exit(2) of the thread's process"),
    verb("exec", "", "execve(2) of a program that ends at once, in place of the thread's process"),
    verb("kill", "CHILD", "SIGKILL to a forked process"),
    verb("join", "CHILD", "waits until a forked process is over"),
    verb(
        "uffd",
        "register R missing|wp|wp-async, unregister R, protect R, unprotect R, copy R BYTE, zeropage R, move R from S, or wait R",
        "userfaultfd(2)",
    ),
    verb("ksm", "merge R, or scan", "has ksmd merge a range, or scan all mergeable memory"),
    verb("swap-out", "R", "pages memory out until it is swapped"),
    verb("compact", "", "compacts the memory of the machine"),
    verb("vmread", "PROCESS R", "process_vm_readv(2); compared"),
    verb("vmwrite", "PROCESS R BYTE", "process_vm_writev(2)"),
    verb(
        "ptrace",
        "peek PROCESS R, or poke PROCESS R BYTE",
        "reads (compared) or writes the first word of each page by ptrace(2)",
    ),
    verb("direct", "read R, or write R", "pread(2) or pwrite(2) with O_DIRECT, from or to the scenario's disk"),
    verb("uring", "read R [direct] [fixed], or write R [direct] [fixed]", "the same by io_uring"),
    verb("cgroup", "limit SIZE", "limits the memory of the scenario's processes"),
    verb("set", "SETTING VALUE", "writes a setting of /sys/kernel/mm or, as vm.NAME, of /proc/sys/vm"),
    verb("hold", "FUNCTION|device:STEP [nth=N] [argN=R]", "stops the thread's next call there"),
    verb("wait", "THREAD held|done", "waits for another thread"),
    verb("resume", "THREAD", "lets a held thread go on"),
    verb("barrier", "NAME", "waits until all threads that name it are there"),
    verb("sleep", "TIME", "does nothing for a time"),
];

impl Verb {
    /// The verb of a name.
    pub fn find(name: &str) -> Option<&'static Self> {
        VERBS.iter().find(|verb| verb.name == name)
    }
}

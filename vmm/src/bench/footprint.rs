// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How much memory a VMM takes besides what is the guest's.
//!
//! `/proc/PID/smaps` tells the resident bytes of each mapping. Guest memory is a mapping, or several, at least as large as
//! the smallest piece a VMM cuts guest memory into; VRAM is a memfd. All the rest is the VMM's own: its program, heap,
//! stacks, and pages of libraries (counted in full, although others may share them).

use std::io;

use thiserror::Error;

/// Part of the names of mappings of VRAM, which is a memfd of that name.
const VRAM: &str = "vram";

/// Why the memory of a process is not known.
#[derive(Debug, Error)]
pub enum FootprintError {
    /// `/proc/PID/smaps` could not be read.
    #[error("cannot read the memory map of process {pid}")]
    Read {
        /// The process.
        pid: u32,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// No mapping is large enough to be the guest's memory: what was found is not what it is taken for.
    #[error("process {pid} has no mapping of the guest's {guest} bytes; this VMM keeps guest memory in another way")]
    NoGuestMemory {
        /// The process.
        pid: u32,
        /// Guest memory in bytes.
        guest: u64,
    },
}

/// One mapping of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    name: String,
    size: u64,
    resident: u64,
}

/// Resident bytes of process `pid` besides guest memory (of `guest` bytes in all) and VRAM.
///
/// # Errors
///
/// Fails if the process is gone, or guest memory is not found in it.
pub fn own_bytes(pid: u32, guest: u64) -> Result<u64, FootprintError> {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/smaps")).map_err(|source| FootprintError::Read { pid, source })?;
    sum(&parse(&text), guest).ok_or(FootprintError::NoGuestMemory { pid, guest })
}

/// The sum over what is neither guest memory nor VRAM; `None` if there is no guest memory.
fn sum(mappings: &[Mapping], guest: u64) -> Option<u64> {
    // A VMM may map guest memory in one piece with something small, or leave out a hole below 1 MiB.
    let is_guest = |mapping: &Mapping| mapping.size >= guest - guest / 8;
    let is_vram = |mapping: &Mapping| mapping.name.contains(VRAM);
    let found = mappings.iter().any(|mapping| !is_vram(mapping) && is_guest(mapping));
    let own = mappings.iter().filter(|mapping| !is_vram(mapping) && !is_guest(mapping));
    found.then(|| own.map(|mapping| mapping.resident).sum())
}

/// Reads `smaps`: a line with the address range and name of each mapping, then lines `Key: value kB`.
fn parse(text: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some(key) = first.strip_suffix(':') {
            let value = words.next().and_then(|value| value.parse::<u64>().ok()).unwrap_or(0) * 1024;
            match (key, mappings.last_mut()) {
                ("Size", Some(mapping)) => mapping.size = value,
                ("Rss", Some(mapping)) => mapping.resident = value,
                _ => {}
            }
        } else {
            // Range, permissions, offset, device, inode, and then the name, which may have blanks in it.
            let name = words.skip(4).collect::<Vec<_>>().join(" ");
            mappings.push(Mapping { name, size: 0, resident: 0 });
        }
    }
    mappings
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00400000-00800000 r-xp 00001000 00:01 12 /ersatz/vmm
Size:               4096 kB
Rss:                1024 kB
VmFlags: rd ex mr
7f0000000000-7f0020000000 rw-s 00000000 00:01 7 /memfd:guest memory (deleted)
Size:             524288 kB
Rss:              100000 kB
7f1000000000-7f1040000000 rw-s 00000000 00:01 8 /memfd:ersatz-vram (deleted)
Size:            1048576 kB
Rss:               50000 kB
7f2000000000-7f2000001000 rw-p 00000000 00:00 0
Size:                  4 kB
Rss:                   4 kB
";

    #[test]
    fn guest_memory_and_vram_do_not_count() {
        let mappings = parse(SMAPS);
        assert_eq!(mappings.len(), 4);
        assert_eq!(mappings[1].name, "/memfd:guest memory (deleted)");
        assert_eq!(sum(&mappings, 512 << 20), Some(1028 << 10));
    }

    #[test]
    fn without_guest_memory_there_is_no_result() {
        assert_eq!(sum(&parse(SMAPS), 2 << 30), None);
        assert_eq!(sum(&[], 1 << 30), None);
    }

    #[test]
    fn a_process_that_is_gone_has_none() {
        assert!(matches!(own_bytes(u32::MAX, 1), Err(FootprintError::Read { .. })));
    }

    #[test]
    fn nonsense_is_passed_over() {
        assert_eq!(parse("Rss: 4 kB\n\n:\nSize:\n"), []);
    }
}

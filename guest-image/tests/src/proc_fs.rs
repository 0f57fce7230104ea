// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `/proc` says about memory: the view that users and tools have of pages on the device.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::pattern::PAGE;
use crate::region::Span;

/// One field of the `/proc/self/smaps` entry of the mapping a range begins in, in kilobytes.
///
/// # Panics
///
/// As all functions here, if `/proc` does not say what the test is about.
pub fn smaps_kib(span: Span, field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps").expect("/proc/self/smaps");
    smaps_field(&text, span.address, field)
        .unwrap_or_else(|| panic!("/proc/self/smaps has no {field} for address {:#x}", span.address))
}

fn smaps_field(text: &str, address: u64, field: &str) -> Option<u64> {
    let mut inside = false;
    for line in text.lines() {
        if let Some((start, end)) = mapping_bounds(line) {
            inside = (start..end).contains(&address);
        } else if let Some((name, value)) = line.split_once(':') {
            if inside && name == field {
                return value.trim().strip_suffix("kB")?.trim().parse().ok();
            }
        }
    }
    None
}

/// The bounds in the first line of an entry; `None` for the lines of its fields.
fn mapping_bounds(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

/// One field of `/proc/self/status`, in kilobytes.
pub fn status_kib(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| *name == field)
        .and_then(|(_, value)| value.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap_or_else(|| panic!("/proc/self/status has no {field} in kB"))
}

/// An entry of `/proc/self/pagemap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagemapEntry(u64);

impl PagemapEntry {
    /// The page table points at memory.
    pub fn present(self) -> bool {
        self.0 >> 63 & 1 == 1
    }

    /// The physical address of the page. The kernel tells it only those with the capability to administrate the system.
    pub fn address(self) -> Option<u64> {
        const FRAME: u64 = (1 << 55) - 1;
        Some(self.0 & FRAME).filter(|&frame| self.present() && frame != 0).map(|frame| frame * PAGE as u64)
    }

    /// The page table holds a swap entry, which one for a device-private page is too.
    pub fn swap(self) -> bool {
        self.0 >> 62 & 1 == 1
    }
}

/// The entries of `/proc/self/pagemap` for a range.
pub fn pagemap(span: Span) -> Vec<PagemapEntry> {
    let file = File::open("/proc/self/pagemap").expect("/proc/self/pagemap");
    let mut bytes = vec![0; span.pages() * 8];
    file.read_exact_at(&mut bytes, span.address / PAGE as u64 * 8).expect("/proc/self/pagemap");
    bytes
        .chunks_exact(8)
        .map(|chunk| chunk.iter().rev().fold(0, |entry, &byte| entry << 8 | u64::from(byte)))
        .map(PagemapEntry)
        .collect()
}

/// Whether `madvise(MADV_HUGEPAGE)` has an effect.
pub fn huge_pages_on_request() -> bool {
    std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").is_ok_and(|modes| !modes.contains("[never]"))
}

/// The kernel's search for lost memory, where it has one.
pub const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

/// Whether the kernel has a function: `dump_vma` it has with `CONFIG_DEBUG_VM` alone, `kasan_report` with KASAN.
pub fn has_function(name: &str) -> bool {
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    symbols.lines().any(|line| line.split_whitespace().nth(2) == Some(name))
}

/// Whether GCC built the kernel.
pub fn is_built_by_gcc() -> bool {
    std::fs::read_to_string("/proc/version").unwrap_or_default().contains("gcc")
}

/// The kernel's release, as `uname -r` has it.
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// The kernel's version, major and minor.
pub fn kernel_version() -> (u32, u32) {
    let release = kernel_release();
    let mut numbers = release.split(['.', '-', '+']).map(|number| number.trim().parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_that_of_the_right_mapping() {
        let text = "1000-2000 rw-p 0 00:00 0\nRss: 4 kB\nSwap: 0 kB\n3000-5000 r--p 0 00:00 0 [x]\nRss:   8 kB\n";
        assert_eq!(smaps_field(text, 0x1fff, "Rss"), Some(4));
        assert_eq!(smaps_field(text, 0x3000, "Rss"), Some(8));
        assert_eq!(smaps_field(text, 0x2000, "Rss"), None);
        assert_eq!(smaps_field(text, 0x3000, "Swap"), None);
    }

    #[test]
    fn an_address_is_that_of_a_page_that_is_there() {
        const PRESENT: u64 = 1 << 63;
        assert_eq!(PagemapEntry(PRESENT | 1 << 56 | 5).address(), Some(5 * PAGE as u64));
        // Of a page that is elsewhere, or of one that the kernel does not tell of.
        assert_eq!(PagemapEntry(1 << 62 | 5).address(), None);
        assert_eq!(PagemapEntry(PRESENT).address(), None);
    }

    #[test]
    fn the_own_memory_is_present() {
        let region = crate::region::Region::filled(2, crate::pattern::Pattern::new(1));
        assert!(pagemap(region.span()).iter().all(|entry| entry.present() && !entry.swap()));
        assert_eq!(smaps_kib(region.span(), "Rss") % 4, 0);
        assert!(status_kib("VmRSS") > 0);
    }
}

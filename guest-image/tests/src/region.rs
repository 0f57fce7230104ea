// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory mappings to migrate, and plain accesses to them by the CPU.
//!
//! All accesses go through raw pointers and never through references to the bytes: the pages move underneath, other
//! threads and processes write them, and parts may be unmapped or protected on purpose.

use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc::{c_void, off_t};
use nix::sys::mman::{
    MRemapFlags, MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap, mmap_anonymous, mprotect, mremap, munmap,
};

use crate::pattern::{PAGE, Pattern};

/// Bytes that are read or written at once.
const WORD: usize = size_of::<u64>();

/// Bytes in a huge page.
pub const HUGE_PAGE: usize = 2 << 20;

/// Readable and writable.
pub const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

/// A range of addresses, as the ioctls take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
}

impl Span {
    /// Number of pages.
    pub fn pages(self) -> usize {
        self.length as usize / PAGE
    }
}

/// A mapping of its own, unmapped when dropped.
#[derive(Debug)]
pub struct Region {
    base: NonNull<c_void>,
    length: usize,
}

// SAFETY: the region is memory that this value alone owns the mapping of; no reference to its bytes is ever handed out
// but to atomics.
unsafe impl Send for Region {}
// SAFETY: as above; plain accesses that race are what some tests are about, and are made by volatile copies.
unsafe impl Sync for Region {}

impl Region {
    /// Private anonymous memory, readable and writable, not touched yet.
    ///
    /// # Panics
    ///
    /// As all functions here, if the system refuses what a test needs.
    pub fn new(pages: usize) -> Self {
        Self::with(pages, READ_WRITE, MapFlags::MAP_PRIVATE)
    }

    /// The same with content.
    pub fn filled(pages: usize, pattern: Pattern) -> Self {
        let region = Self::new(pages);
        region.fill(pattern);
        region
    }

    /// Anonymous memory that forked processes share.
    pub fn shared(pages: usize) -> Self {
        Self::with(pages, READ_WRITE, MapFlags::MAP_SHARED)
    }

    /// Anonymous memory with protection and flags of choice.
    pub fn with(pages: usize, protection: ProtFlags, flags: MapFlags) -> Self {
        let length = NonZeroUsize::new(pages * PAGE).expect("a region has pages");
        // SAFETY: a mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe { mmap_anonymous(None, length, protection, flags) }.expect("mmap of anonymous memory");
        Self { base, length: length.get() }
    }

    /// A file's first pages.
    pub fn of_file(file: &File, pages: usize, flags: MapFlags) -> Self {
        Self::of_part_of_file(file, 0, pages, flags)
    }

    /// Pages of a file from a byte offset on, the boundary of a page.
    pub fn of_part_of_file(file: &File, offset: u64, pages: usize, flags: MapFlags) -> Self {
        let length = NonZeroUsize::new(pages * PAGE).expect("a region has pages");
        let offset = off_t::try_from(offset).expect("an offset in a file");
        // SAFETY: a mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe { mmap(None, length, READ_WRITE, flags, file, offset) }.expect("mmap of a file");
        Self { base, length: length.get() }
    }

    /// Private anonymous memory that begins at a huge page's boundary and asks for huge pages.
    pub fn huge(count: usize) -> Self {
        let mut region = Self::new((count + 1) * HUGE_PAGE / PAGE);
        let before = region.base.as_ptr().align_offset(HUGE_PAGE);
        let wanted = count * HUGE_PAGE;
        let aligned = region.pointer(before).cast();
        region.unmap_bytes(0, before);
        region.unmap_bytes(before + wanted, region.length - before - wanted);
        region.base = aligned;
        region.length = wanted;
        region.advise(0..region.pages(), MmapAdvise::MADV_HUGEPAGE).expect("MADV_HUGEPAGE");
        region
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.length / PAGE
    }

    /// All of it.
    pub fn span(&self) -> Span {
        self.part(0..self.pages())
    }

    /// Some pages of it.
    pub fn part(&self, pages: Range<usize>) -> Span {
        assert!(pages.start <= pages.end && pages.end <= self.pages(), "{pages:?} of {} pages", self.pages());
        Span {
            address: self.base.as_ptr().addr() as u64 + (pages.start * PAGE) as u64,
            length: (pages.len() * PAGE) as u64,
        }
    }

    /// One page of it.
    pub fn page(&self, index: usize) -> Span {
        self.part(index..index + 1)
    }

    /// Where a byte is.
    pub fn pointer(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.length, "offset {offset:#x} in a region of {:#x} bytes", self.length);
        // SAFETY: the offset is inside the mapping, or one past its end.
        unsafe { self.base.cast::<u8>().add(offset) }
    }

    /// Reads one page as the CPU sees it.
    pub fn read(&self, index: usize) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        for (target, word) in page.chunks_exact_mut(WORD).zip(self.words(index)) {
            target.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        page
    }

    /// Writes one page.
    pub fn write(&self, index: usize, content: &[u8; PAGE]) {
        for (word, source) in self.words(index).iter().zip(content.chunks_exact(WORD)) {
            let mut value = [0; WORD];
            value.copy_from_slice(source);
            word.store(u64::from_ne_bytes(value), Ordering::Relaxed);
        }
    }

    /// One page. By words: a volatile access to an array is one to each byte, which compilers write out.
    fn words(&self, index: usize) -> &[AtomicU64] {
        self.atomics(self.page_offset(index), PAGE / WORD)
    }

    /// A number in the region that threads and processes may use at once.
    pub fn atomic(&self, offset: usize) -> &AtomicU64 {
        assert!(offset % 8 == 0 && offset + 8 <= self.length, "no aligned number at offset {offset:#x}");
        // SAFETY: aligned, inside the mapping, and valid for every bit pattern. The borrow keeps the region mapped.
        unsafe { self.pointer(offset).cast().as_ref() }
    }

    /// Numbers in the region that others, a device for one, may use at once.
    pub fn atomics(&self, offset: usize, count: usize) -> &[AtomicU64] {
        assert!(offset % 8 == 0 && offset + count * 8 <= self.length, "no {count} numbers at offset {offset:#x}");
        let first = self.pointer(offset).cast();
        // SAFETY: as in `atomic`, for each of them.
        unsafe { NonNull::slice_from_raw_parts(first, count).as_ref() }
    }

    /// Reads one byte of a page: the smallest touch there is.
    pub fn touch(&self, index: usize) -> u8 {
        let byte = self.pointer(self.page_offset(index));
        // SAFETY: as in `read`.
        unsafe { byte.read_volatile() }
    }

    /// Writes the pattern to every page.
    pub fn fill(&self, pattern: Pattern) {
        for index in 0..self.pages() {
            self.write(index, &pattern.page(index));
        }
    }

    /// Asserts that every page holds the pattern, by reading it with the CPU.
    pub fn check(&self, pattern: Pattern) {
        self.check_part(0..self.pages(), pattern);
    }

    /// Asserts that some pages hold the pattern.
    pub fn check_part(&self, pages: Range<usize>, pattern: Pattern) {
        for index in pages {
            assert_page(index, &self.read(index), &pattern.page(index));
        }
    }

    /// Asserts that some pages hold nothing but zeros.
    pub fn check_zero(&self, pages: Range<usize>) {
        for index in pages {
            assert_page(index, &self.read(index), &[0; PAGE]);
        }
    }

    /// `mprotect` on some pages.
    pub fn protect(&self, pages: Range<usize>, protection: ProtFlags) {
        let span = self.part(pages.clone());
        // SAFETY: the pages are this region's own.
        unsafe { mprotect(self.pointer(pages.start * PAGE).cast(), span.length as usize, protection) }
            .unwrap_or_else(|error| panic!("mprotect of {pages:?}: {error}"));
    }

    /// `madvise` on some pages.
    pub fn advise(&self, pages: Range<usize>, advice: MmapAdvise) -> Result<(), Errno> {
        let span = self.part(pages.clone());
        // SAFETY: the pages are this region's own, and no advice makes their memory invalid.
        unsafe { madvise(self.pointer(pages.start * PAGE).cast(), span.length as usize, advice) }
    }

    /// `mlock` on all pages.
    pub fn lock(&self) {
        // SAFETY: the pages are this region's own.
        unsafe { mlock(self.base, self.length) }.expect("mlock");
    }

    /// Unmaps some pages and leaves a gap, which the region still spans.
    pub fn unmap(&self, pages: Range<usize>) {
        self.unmap_bytes(pages.start * PAGE, pages.len() * PAGE);
    }

    fn unmap_bytes(&self, offset: usize, length: usize) {
        if length == 0 {
            return;
        }
        // SAFETY: the bytes are this region's own, and the tests keep no reference into them.
        unsafe { munmap(self.pointer(offset).cast(), length) }.expect("munmap");
    }

    /// `mremap` to a new size, the kernel choosing the place.
    pub fn resize(mut self, pages: usize) -> Self {
        // SAFETY: the region is this value's own, and no reference into it outlives the borrow that made it.
        let base = unsafe { mremap(self.base, self.length, pages * PAGE, MRemapFlags::MREMAP_MAYMOVE, None) }
            .expect("mremap to another size");
        self.base = base;
        self.length = pages * PAGE;
        self
    }

    /// `mremap` onto another region of the same size, which is replaced.
    pub fn move_onto(self, target: Self) -> Self {
        assert_eq!(self.length, target.length);
        let flags = MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED;
        // SAFETY: both regions are this function's own; the target's mapping ends here.
        unsafe { mremap(self.base, self.length, self.length, flags, Some(target.base)) }
            .expect("mremap to a given address");
        std::mem::forget(self);
        target
    }

    fn page_offset(&self, index: usize) -> usize {
        assert!(index < self.pages(), "page {index} of {}", self.pages());
        index * PAGE
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.unmap_bytes(0, self.length);
    }
}

fn assert_page(index: usize, found: &[u8; PAGE], expected: &[u8; PAGE]) {
    // All at once first: an emulated CPU takes its time over single bytes.
    if found == expected {
        return;
    }
    let wrong: Vec<usize> = (0..PAGE).filter(|&at| found[at] != expected[at]).collect();
    let first = wrong[0];
    panic!(
        "page {index}: {} bytes are wrong, the first at offset {first:#x} (found {:#04x}, expected {:#04x})",
        wrong.len(),
        found[first],
        expected[first]
    );
}
